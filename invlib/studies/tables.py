"""Tables: the full-size study that notebooks 06 and 07 read.

It sweeps every perturbation over the project's own texts, lets the adapted attackers and those with known pairs have
their try, measures what each defence costs a search, and writes `sweep.csv`, `utility.csv` and `about.json` (commit,
time, weights) into data/tables. Stopped at any moment, the same command goes on.
"""

import argparse
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from invlib import perturb
from invlib.checkpoint import PACKAGE, fingerprint, locate
from invlib.inverter import Inverter
from invlib.perturb import KnownPairs, Perturbation
from invlib.studies.attackers import load_attackers, studied
from invlib.studies.leaks import Record, read_records
from invlib.studies.results import commit_of_this_clone, machine, write_json, write_table
from invlib.studies.sweep import CACHE, sweep
from invlib.studies.utility import Retrieval, cost, read_retrieval

# Beside the package in a clone; where the package was installed without one, beside whoever reads it.
_PLACES = (PACKAGE.parent, Path.cwd(), *Path.cwd().parents)
DATA = next((place / "data" for place in _PLACES if (place / "data" / "sentences").is_dir()), PACKAGE.parent / "data")
DECODING = {"4 steps": {"num_steps": 4}}  # half the time of 8 steps, for little; notebook 06 compares them
LABELS = ("perturbation", "strength", "measure")
PER_KIND = 48  # sentences of each kind, beside all the records
PAIRS = {"secret rotation": (10, 100, 200, 300, 400), "secret permutation": (1, 3)}


@dataclass(frozen=True)
class Texts:
    """The project's own texts. `studied` are attacked; `others` fit codebooks and are the pairs an attacker knows."""

    studied: list[Record]
    others: list[str]
    retrieval: Retrieval


def project_texts(limit: int | None = None) -> Texts:
    """All the records and 48 sentences of each kind; the rest of the sentences, and those of the retrieval set.

    In a random order, always the same, so that the first `limit` of them are a fair sample.
    """
    records, retrieval = read_records(DATA / "records" / "records.jsonl"), read_retrieval(DATA / "retrieval")
    sentences = pd.read_json(DATA / "sentences" / "sentences.jsonl", lines=True)
    first = sentences.groupby("kind").cumcount() < PER_KIND
    chosen = [Record(text, ()) for text in sentences.loc[first, "text"]]
    order = np.random.default_rng(0).permutation(len(chosen) + len(records))[:limit]
    mixed = [(chosen + records)[i] for i in order]
    return Texts(mixed, [*sentences.loc[~first, "text"], *retrieval.sentences], retrieval)


def perturbations(others: np.ndarray) -> list[Perturbation]:
    """Everything that a vector is put through. others: clean vectors [n, d] for codebooks, ranges and components."""
    d, generator = others.shape[1], torch.Generator().manual_seed(0)
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
        *secrets(d),
    ]


def secrets(embed_dim: int) -> list[Perturbation]:
    """A secret rotation and a secret permutation, always the same."""
    kinds, generator = (perturb.SecretRotation, perturb.SecretPermutation), torch.Generator().manual_seed(1)
    return [kind.draw(embed_dim, generator) for kind in kinds]


def known_pairs(others: np.ndarray) -> list[KnownPairs]:
    """The secrets, seen by attackers who know 1 to 400 pairs of clean and stored vectors."""
    drawn = secrets(others.shape[1])
    return [KnownPairs.fit(secret, others[:count]) for secret in drawn for count in PAIRS[secret.name]]


def attacks(naive: Inverter, attackers: dict[str, Inverter], texts: Texts, cache: Path = CACHE) -> pd.DataFrame:
    """The table of `sweep`, with a column `attack`: naive, adapted, known pairs, and noise-aware where the checkpoint
    takes a noise level.
    """
    others = naive.encoder.encode(texts.others)
    defences, ((label, options),) = studied(others.shape[1]), DECODING.items()
    runs = [("naive", naive, perturbations(others), DECODING), ("known pairs", naive, known_pairs(others), DECODING)]
    runs += [("adapted", inverter, [defences[name]], DECODING) for name, inverter in attackers.items()]
    if naive.config.noise_condition:
        noises = [p for p in defences.values() if isinstance(p, perturb.GaussianNoise)]
        told = {label: lambda noise: {**options, "noise_level": noise.noise_norm(others.shape[1])}}
        runs.append(("noise-aware", naive, noises, told))
    parts = []
    for attack, inverter, chosen, decodings in runs:
        run = {"decodings": decodings, "reference": attack == "naive", "cache": cache}
        parts.append(sweep(inverter, texts.studied, chosen, **run).assign(attack=attack))
    return pd.concat(parts, ignore_index=True)


def costs(naive: Inverter, texts: Texts) -> pd.DataFrame:
    """`utility.cost` of every perturbation on the retrieval set, with what `perturb.distortion` says of each."""
    others, retrieval = naive.encoder.encode(texts.others), texts.retrieval
    sentences, queries = naive.encoder.encode(retrieval.sentences), naive.encoder.encode(retrieval.queries)
    parts = []
    for perturbation in [perturb.Unchanged(), *perturbations(others)]:
        generator = torch.Generator().manual_seed(0)
        table = cost(perturbation, sentences, queries, retrieval.relevance, generator)
        about = perturb.distortion([perturbation], sentences, generator)
        parts.append(about[[*LABELS, "bits", "noise", "caution"]].merge(table, how="cross"))
    return pd.concat(parts, ignore_index=True)[[*LABELS, *table.columns, "bits", "noise", "caution"]]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--limit", type=int, help="only so many texts, for a trial (default: all 553)")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"finished cells (default: {CACHE})")
    parser.add_argument("--out", type=Path, default=DATA / "tables")


def run(chosen: argparse.Namespace) -> None:
    """Write both tables and what made them."""
    started = time.perf_counter()
    commit = commit_of_this_clone()  # now: the tables themselves are no change that it should tell
    naive = Inverter.load(chosen.checkpoint, dtype=torch.int8)
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
        "machine": machine(),
    }
    write_json(chosen.out / "about.json", about)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n")
