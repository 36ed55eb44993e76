"""Alignment: what is read of a foreign encoder's vectors after how many known pairs, beside its controls.

It writes `alignment.csv`: leave-one-out cosine, token F1 and ROUGE-L for every foreign encoder and number of pairs, on
other texts of the same file (in-domain) and of another one (across); and `alignment_texts.csv`: some sentences, read
with ever fewer pairs. Vectors are kept, so that a second run is short.
"""

import argparse
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from invlib.alignment import Alignment
from invlib.checkpoint import fingerprint
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import cosine, mean_interval, rouge_l, token_f1
from invlib.studies.foreign import Encode, foreign_encoders
from invlib.studies.results import commit_of_this_clone, kept_vectors, write_table
from invlib.studies.score import CONTROLS, INVERTED, nearest, somebody_else
from invlib.studies.tables import DATA
from invlib.training.pairs import fitting, read_texts

COUNTS = (30, 100, 300, 1000, 3000, 10_000)  # known pairs
TARGETS, STEPS = 200, 4
CACHE = Path("data/runs/vectors")
KNOWN = "nearest known text"
SHOWN = ("I lost my keys in the park.", "Can you send me the report by Friday?")
SHOWN += ("The train to the coast leaves at noon.",)
METRICS = {"token_f1": token_f1, "rouge_l": rouge_l}
COLUMNS = ["encoder", "pairs", "domain", "attacker", "metric", "value", "low", "high", "n"]


class Side:
    """The texts of one domain, with their vectors in the checkpoint's space."""

    def __init__(self, inverter: Inverter, domain: str, texts: Sequence[str], cache: Path):
        self.inverter, self.domain, self.texts = inverter, domain, list(texts)
        self.vectors = kept_vectors(inverter.encoder.encode, inverter.encoder.name, self.texts, cache)
        self.others = somebody_else(len(self.texts), torch.Generator().manual_seed(0))

    def written(self, vectors: np.ndarray, **options) -> list[str]:
        """What is read of vectors in the checkpoint's space."""
        return self.inverter.invert(vectors, num_steps=STEPS, keep_trajectories=False, **options).texts

    @cached_property
    def prior(self) -> list[str]:
        """What is written without the vectors, but for the lengths."""
        return self.written(self.vectors, conditional=False)

    def rows(self, attacker: str, written: Sequence[str], order: np.ndarray | None = None) -> Iterator[tuple]:
        """Every metric of what an attacker wrote for each text, or for the texts in another order."""
        references = self.texts if order is None else [self.texts[row] for row in order]
        for metric, of in METRICS.items():
            values = [of(*pair) for pair in zip(references, written, strict=True)]
            yield self.domain, attacker, metric, *mean_interval(values), len(values)

    def read(self, alignment: Alignment, foreign: np.ndarray, known: Sequence[str]) -> Iterator[tuple]:
        """What comes back of foreign vectors [n, D] through an alignment, and what the controls write.

        known: for each the known text whose foreign vector is closest.
        """
        mapped = alignment(foreign)
        level = alignment.noise_level if self.inverter.config.noise_condition else 0.0
        written = self.written(mapped, noise_level=level)
        cosines = cosine(mapped, self.vectors)
        yield self.domain, INVERTED, "cosine", *mean_interval(cosines), len(cosines)
        yield from self.rows(INVERTED, written)
        yield from self.rows(CONTROLS[0], self.prior)
        yield from self.rows(CONTROLS[1], written, self.others)
        yield from self.rows(KNOWN, known)


def taught(foreign: np.ndarray, known: Side, counts: Sequence[int], name: str) -> dict[int, Alignment]:
    """Alignments of the first known pairs, by their number."""
    vector_of, fit = dict(zip(known.texts, known.vectors, strict=True)), [n for n in counts if n <= len(known.texts)]
    return {
        n: Alignment.fit(foreign[:n], known.texts[:n], lambda asked: np.stack([vector_of[text] for text in asked]))
        for n in tqdm(fit, desc=name, unit=" alignments")
    }


def curve(
    name: str, alignments: dict[int, Alignment], foreign: np.ndarray, known: Side, sides: dict[Side, np.ndarray]
) -> pd.DataFrame:
    """The rows of one foreign encoder. sides: what is attacked, with its foreign vectors."""
    rows = []
    for count, alignment in alignments.items():
        left_out = mean_interval(alignment.cosines)
        rows.append((name, count, "left out", "known pairs", "cosine", *left_out, alignment.pairs))
        for side, vectors in sides.items():
            closest = [known.texts[row] for row in nearest(vectors, foreign[:count])]
            rows += [(name, count, *row) for row in side.read(alignment, vectors, closest)]
    return pd.DataFrame(rows, columns=COLUMNS)


def dissolved(encode: Encode, alignments: dict[int, Alignment], side: Side) -> pd.DataFrame:
    """What is read of some sentences of our own as the pairs get fewer: pairs, cosine, text, read."""
    rows = []
    for count, alignment in sorted(alignments.items(), reverse=True):
        mapped = alignment(encode(side.texts))
        cosines, read = cosine(mapped, side.vectors), side.written(mapped)
        rows += [(count, *row) for row in zip(cosines, side.texts, read, strict=True)]
    return pd.DataFrame(rows, columns=["pairs", "cosine", "text", "read"])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, help="known texts, and behind them the in-domain targets")
    parser.add_argument("--target", type=Path, help="texts of another domain (default: none)")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help=f"known pairs (default: {COUNTS})")
    parser.add_argument("--targets", type=int, default=TARGETS, help=f"texts that are inverted (default: {TARGETS})")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these foreign encoders")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"vectors (default: {CACHE})")
    parser.add_argument("--out", type=Path, default=DATA / "tables" / "alignment.csv")


def run(chosen: argparse.Namespace) -> None:
    """Write `alignment.csv` and print its token F1."""
    commit, inverter = commit_of_this_clone(), Inverter.load(chosen.checkpoint, dtype=torch.int8)
    encoders = foreign_encoders(inverter.encoder)
    if unknown := [name for name in chosen.only or () if name not in encoders]:
        raise InputError(f"no foreign encoder {', '.join(unknown)}; there are {', '.join(encoders)}")
    most = max(chosen.counts)
    own = some(inverter, chosen.text, most + chosen.targets)
    if len(own) < min(chosen.counts) + chosen.targets:
        raise InputError(
            f"{chosen.text} has {len(own)} texts that fit the model; fewer --counts and --targets, or more"
        )
    known, target = own[: -chosen.targets], own[-chosen.targets :]
    sides = [Side(inverter, "same", target, chosen.cache)]
    if chosen.target:
        sides.append(Side(inverter, "other", some(inverter, chosen.target, chosen.targets), chosen.cache))
    pairs, parts = Side(inverter, "known pairs", known, chosen.cache), []
    for name in chosen.only or encoders:
        foreign = kept_vectors(encoders[name], name, known, chosen.cache)
        targets = {side: kept_vectors(encoders[name], name, side.texts, chosen.cache) for side in sides}
        alignments = taught(foreign, pairs, chosen.counts, name)
        parts.append(curve(name, alignments, foreign, pairs, targets))
        if len(parts) == 1:
            texts = dissolved(encoders[name], alignments, Side(inverter, "shown", SHOWN, chosen.cache))
    about = {"weights": fingerprint(inverter.model)[:12], "commit": commit}
    about["made"] = datetime.now(UTC).isoformat(timespec="seconds")
    table = pd.concat(parts, ignore_index=True)
    write_table(chosen.out, table.assign(**about))
    write_table(chosen.out.with_stem(f"{chosen.out.stem}_texts"), texts)
    shown = table[table["metric"] == "token_f1"]
    print(shown.pivot_table("value", ["encoder", "domain", "pairs"], "attacker", sort=False).round(3).to_string())
    print(f"{chosen.targets} targets of each domain; written to {chosen.out}")


def some(inverter: Inverter, path: Path, count: int) -> list[str]:
    """Different texts of a file that fit the model, at random, always the same."""
    texts = list(dict.fromkeys(read_texts(path)))
    order = np.random.default_rng(0).permutation(len(texts))[: 3 * count]
    return fitting([texts[row] for row in order], inverter.tokenizer, inverter.config.max_seq_len)[:count]
