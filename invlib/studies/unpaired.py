"""Unpaired: what is read through a secret key by somebody who knows no pair, only clean vectors of similar text.

It writes `unpaired.csv`: for a permutation, a rotation and what products sell (a key and bounded noise), over the
number of vectors that the store and the attacker have, and for attackers whose texts come from different files.
"""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from invlib import perturb
from invlib.checkpoint import fingerprint
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import cosine, mean_interval, token_f1
from invlib.perturb import BoundedNoise, SecretPermutation, SecretRotation
from invlib.studies.alignment import CACHE, STEPS, some
from invlib.studies.results import commit_of_this_clone, kept_vectors, write_table
from invlib.studies.tables import DATA
from invlib.studies.utility import neighbour_recall

COUNTS = (1000, 10_000, 100_000)  # vectors in the store, and as many of the attacker's own
TARGETS = 200
RADIUS = (
    0.25  # of the bounded noise: an approximation factor of 1, a quarter of which bounds it (Fuchsbauer et al. 2022)
)
COLUMNS = ["defence", "own texts", "vectors", "metric", "value", "low", "high", "n"]


def defences(embed_dim: int) -> dict[str, list]:
    """What happens to a vector, in order, by name."""
    rotation, permutation = (
        kind.draw(embed_dim, torch.Generator().manual_seed(0)) for kind in (SecretRotation, SecretPermutation)
    )
    noise = BoundedNoise(RADIUS)
    return {
        "secret permutation": [permutation],
        "secret rotation": [rotation],
        "bounded noise, permutation": [noise, permutation],
        "bounded noise, rotation": [noise, rotation],
    }


def store(steps: list, vectors: np.ndarray) -> np.ndarray:
    """What a store holds of clean vectors [n, d] after one perturbation and the next."""
    for step in steps:
        vectors = step.store(perturb.unit(vectors), torch.Generator().manual_seed(1))
    return vectors


def undo(steps: list, stored: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The stored vectors [n, d] as the attacker brings them back, from clean vectors [m, d] of other texts."""
    if isinstance(steps[-1], SecretPermutation):
        back = np.empty_like(stored)
        back[:, perturb.match_distributions(stored, own)] = stored
        return back
    return stored @ perturb.turn_back(stored, own, np.random.default_rng(0))


class Attack:
    """The targets, their clean vectors, and what is read of vectors that stand for them."""

    def __init__(self, inverter: Inverter, texts: list[str], clean: np.ndarray):
        self.inverter, self.texts, self.clean = inverter, texts, clean

    def rows(self, vectors: np.ndarray, conditional: bool = True) -> Iterator[tuple]:
        """Token F1 of what is read, and the cosine of the vectors to the clean ones: metric, value, low, high, n."""
        options = {"num_steps": STEPS, "keep_trajectories": False, "conditional": conditional}
        written = self.inverter.invert(vectors, **options).texts
        scores = [token_f1(*pair) for pair in zip(self.texts, written, strict=True)]
        yield "token_f1", *mean_interval(scores), len(scores)
        yield "cosine", *mean_interval(cosine(vectors, self.clean)), len(scores)


def table(inverter: Inverter, texts: list[str], clean: np.ndarray, owns: dict[str, np.ndarray], counts) -> pd.DataFrame:
    """All rows. owns: the attacker's clean vectors by the name of their texts; the first texts are the targets."""
    attack, rows = Attack(inverter, texts[:TARGETS], clean[:TARGETS]), []
    rows += [("no key", "none", 0, *row) for row in attack.rows(clean[:TARGETS])]
    rows += [("no vector", "none", 0, *row) for row in attack.rows(clean[:TARGETS], conditional=False)]
    for name, steps in defences(clean.shape[1]).items():
        stored = store(steps, clean)
        recall = neighbour_recall(clean[:1000], stored[:1000])
        rows.append((name, "none", 0, "recall@10", *mean_interval(recall), len(recall)))
        rows += [(name, "none", 0, *row) for row in attack.rows(perturb.unit(stored[:TARGETS]))]  # as it is stored
        for own, vectors in owns.items():
            most = min(len(vectors), len(clean))
            for count in tqdm([count for count in counts if count <= most], desc=f"{name}, {own}", leave=False):
                found = undo(steps, stored[:count], vectors[:count])[:TARGETS]
                rows += [(name, own, count, *row) for row in attack.rows(perturb.unit(found))]
    return pd.DataFrame(rows, columns=COLUMNS)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", type=Path, required=True, help="the texts behind the store")
    parser.add_argument(
        "--text", type=Path, required=True, nargs="+", help="texts the attacker has, a curve for each file"
    )
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help=f"vectors (default: {COUNTS})")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"vectors (default: {CACHE})")
    parser.add_argument("--out", type=Path, default=DATA / "tables" / "unpaired.csv")


def run(chosen: argparse.Namespace) -> None:
    """Write `unpaired.csv` and print it."""
    commit, inverter = commit_of_this_clone(), Inverter.load(chosen.checkpoint, dtype=torch.int8)
    most, least = max(chosen.counts), min(chosen.counts)
    texts = some(inverter, chosen.target, most)
    own_texts = {path.name.split(".")[0]: some(inverter, path, most) for path in chosen.text}
    for path, found in {chosen.target: texts, **dict(zip(chosen.text, own_texts.values(), strict=True))}.items():
        if len(found) < max(least, TARGETS):
            raise InputError(f"{path} has {len(found)} texts that fit, {max(least, TARGETS)} are needed; give more")
    known = set(texts)
    encode, name = inverter.encoder.encode, inverter.encoder.name
    clean = kept_vectors(encode, name, texts, chosen.cache)
    owns = {
        label: kept_vectors(encode, name, [text for text in own if text not in known], chosen.cache)
        for label, own in own_texts.items()
    }
    found = table(inverter, texts, clean, owns, chosen.counts)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    write_table(chosen.out, found.assign(weights=fingerprint(inverter.model)[:12], commit=commit, made=made))
    shown = found[found["metric"] == "token_f1"]
    print(shown[["defence", "own texts", "vectors", "value", "low", "high"]].round(3).to_string(index=False))
    print(f"{TARGETS} targets; written to {chosen.out}")
