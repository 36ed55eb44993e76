"""Tables: the full-size study that notebooks 06 and 07 read.

It sweeps every perturbation over the project's own texts, lets the adapted attackers and those with known pairs have
their try, measures what each defence costs a search, and writes `sweep.csv`, `utility.csv` and `about.json` (commit,
time, weights) into data/tables. Stopped at any moment, the same command goes on.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from invlib import perturb
from invlib.checkpoint import PACKAGE, fingerprint, locate, write_atomically
from invlib.inverter import Inverter
from invlib.perturb import KnownPairs, Perturbation
from invlib.studies.attackers import load_attackers, studied
from invlib.studies.leaks import Record, read_records
from invlib.studies.provenance import commit_of_this_clone, write_table
from invlib.studies.sweep import CACHE, sweep
from invlib.studies.utility import Retrieval, cost, read_retrieval

DATA = PACKAGE.parent / "data"
DECODING = {"4 steps": {"num_steps": 4}}  # half the time of 8 steps, for little; notebook 06 compares them
PER_KIND = 48  # sentences of each kind, beside all the records
PAIRS = {"secret rotation": (10, 100, 200, 300, 400), "secret permutation": (1, 3)}


@dataclass(frozen=True)
class Texts:
    """The project's own texts. `studied` are attacked; `others` fit codebooks and are the pairs an attacker knows."""

    studied: list[Record]
    others: list[str]
    retrieval: Retrieval


def project_texts(data: str | Path = DATA, limit: int | None = None) -> Texts:
    """All the records and 48 sentences of each kind; the rest of the sentences, and those of the retrieval set.

    In a random order, always the same, so that the first `limit` of them are a fair sample.
    """
    data = Path(data)
    records, retrieval = read_records(data / "records" / "records.jsonl"), read_retrieval(data / "retrieval")
    sentences = pd.read_json(data / "sentences" / "sentences.jsonl", lines=True)
    first = sentences.groupby("kind").cumcount() < PER_KIND
    chosen = [Record(text, ()) for text in sentences.loc[first, "text"]]
    order = np.random.default_rng(0).permutation(len(chosen) + len(records))[:limit]
    mixed = [(chosen + records)[i] for i in order]
    return Texts(mixed, [*sentences.loc[~first, "text"], *retrieval.sentences], retrieval)


def perturbations(others: np.ndarray, seed: int = 0) -> list[Perturbation]:
    """Everything that a vector is put through. others: clean vectors [n, d] for codebooks, ranges and components."""
    d, generator = others.shape[1], torch.Generator().manual_seed(seed)
    half, quarter, eighth = d // 2, d // 4, d // 8
    return [
        *(perturb.GaussianNoise(sigma) for sigma in (0.005, 0.01, 0.02, 0.05, 0.1)),
        perturb.PurMech(4.0 * d),
        perturb.LaplaceNoise(4.0 * d),
        perturb.AnalyticGaussian(32.0),
        perturb.HalfPrecision(),
        perturb.AbsmaxQuantisation(8),
        perturb.AbsmaxQuantisation(4),
        perturb.ZeroPointQuantisation.fit(others, 4),
        perturb.Binary(d),
        perturb.ProductQuantisation.fit(others, eighth, codes=128, generator=generator),
        *(perturb.Truncation(keep, d) for keep in (half, quarter, eighth)),
        *(perturb.PrincipalComponents.fit(others, keep) for keep in (half, quarter, eighth)),
        perturb.RandomProjection.draw(d, half, generator),
        studied(d)[f"projection-{quarter}"],  # the very matrix that an attacker was trained for
        perturb.CoordinateDropout(0.5),
        perturb.Interpolation(0.25),
        perturb.Averaging(2),
        *secrets(d, seed),
    ]


def secrets(embed_dim: int, seed: int = 0) -> list[Perturbation]:
    """A secret rotation and a secret permutation."""
    generator = torch.Generator().manual_seed(seed + 1)
    return [
        perturb.SecretRotation.draw(embed_dim, generator),
        perturb.SecretPermutation.draw(embed_dim, generator),
    ]


def known_pairs(others: np.ndarray, seed: int = 0) -> Iterator[KnownPairs]:
    """The secrets, seen by attackers who know 1 to 400 pairs of clean and stored vectors."""
    for secret in secrets(others.shape[1], seed):
        for count in PAIRS[secret.name]:
            yield KnownPairs.fit(secret, others[:count])


def attacks(naive: Inverter, attackers: dict[str, Inverter], texts: Texts, cache: Path = CACHE) -> pd.DataFrame:
    """The table of `sweep`, with a column `attack`: naive, adapted, known pairs, and noise-aware where the checkpoint
    takes a noise level.
    """
    others = naive.encoder.encode(texts.others)
    d = others.shape[1]
    run = {"decodings": DECODING, "cache": cache}
    parts = [sweep(naive, texts.studied, perturbations(others), **run).assign(attack="naive")]
    run["reference"] = False
    pairs = list(known_pairs(others))
    parts.append(sweep(naive, texts.studied, pairs, **run).assign(attack="known pairs"))
    for name, inverter in attackers.items():
        parts.append(sweep(inverter, texts.studied, [studied(d)[name]], **run).assign(attack="adapted"))
    if naive.config.noise_condition:
        ((label, options),) = DECODING.items()
        run["decodings"] = {label: lambda noise: {**options, "noise_level": noise.noise_norm(d)}}
        noises = [p for p in studied(d).values() if isinstance(p, perturb.GaussianNoise)]
        parts.append(sweep(naive, texts.studied, noises, **run).assign(attack="noise-aware"))
    return pd.concat(parts, ignore_index=True)


def costs(naive: Inverter, texts: Texts, seed: int = 0) -> pd.DataFrame:
    """`utility.cost` of every perturbation on the retrieval set, with what `perturb.distortion` says of each."""
    others, retrieval = naive.encoder.encode(texts.others), texts.retrieval
    sentences, queries = naive.encoder.encode(retrieval.sentences), naive.encoder.encode(retrieval.queries)
    parts = []
    for perturbation in [perturb.Unchanged(), *perturbations(others)]:
        generator = torch.Generator().manual_seed(seed)
        table = cost(perturbation, sentences, queries, retrieval.relevance, generator)
        about = perturb.distortion([perturbation], sentences, generator).iloc[0]
        labels = {name: about[name] for name in ("perturbation", "strength", "measure")}
        parts.append(table.assign(**labels, bits=about["bits"], noise=about["noise"], caution=about["caution"]))
    first = ["perturbation", "strength", "measure", "metric", "value", "low", "high", "n", "bits", "noise", "caution"]
    return pd.concat(parts, ignore_index=True)[first]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--limit", type=int, help="only so many texts, for a trial (default: all 553)")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"finished cells (default: {CACHE})")
    parser.add_argument("--out", type=Path, default=DATA / "tables")


def run(chosen: argparse.Namespace) -> None:
    """Write both tables and what made them."""
    started = time.perf_counter()
    commit = commit_of_this_clone()  # now: the tables themselves are no change that it should tell
    naive = Inverter.load(chosen.checkpoint, dtype=torch.bfloat16)
    attackers = load_attackers(naive, locate(chosen.checkpoint) / "attackers")
    texts = project_texts(limit=chosen.limit)
    try:
        write_table(chosen.out / "utility.csv", costs(naive, texts), "%.5g")
        write_table(chosen.out / "sweep.csv", attacks(naive, attackers, texts, chosen.cache), "%.5g")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from {chosen.cache}") from None
    about = {
        "commit": commit,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights": fingerprint(naive.model),
        "texts": len(texts.studied),
        "seconds": round(time.perf_counter() - started),
        "machine": f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
    }
    contents = json.dumps(about, indent=1) + "\n"
    write_atomically(chosen.out / "about.json", lambda path: Path(path).write_text(contents))
    print(contents)
