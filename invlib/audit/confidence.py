"""Confidence: what the cosine of a text, encoded again, is worth. Measured on known texts, domain by domain.

A store's own domain is not known, so a chance is told as the range over all measured ones; texts like those of the
store make it one number: `python -m invlib.audit --calibrate TEXTS`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression

from invlib.audit.decoding import STEPS, decoded, ways_back
from invlib.checkpoint import locate
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import exact_match, words
from invlib.training.pairs import read_corpus

FILE = "confidence.csv"
STEP = 0.05
GRID = np.linspace(0, 1, 21)  # confidences at which the curves are kept
FEWEST = 50  # texts of a domain


def measure(inverter: Inverter, texts: Mapping[str, Sequence[str]], num_steps: int = STEPS) -> pd.DataFrame:
    """One row per domain and confidence of GRID: domain, confidence, exact, words, n.

    texts: by domain. exact: chance that the whole text is right; words: that one of its words is. Both rise with the
    confidence (isotonic regression), and are told where the domain has such. Raises `InputError` without 50 texts.
    """
    known = {domain: own for domain, own in texts.items() if len(own) >= FEWEST}
    if not known:
        raise InputError(f"no domain has {FEWEST} texts; give more, with a `source` where there are several domains")
    curves = []
    for domain, own in known.items():
        vectors = inverter.encoder.encode(own)
        found = decoded(inverter, vectors, num_steps)
        confidence = (ways_back(inverter, vectors, found) * vectors).sum(axis=1)
        exact = [exact_match(true, text) for true, text in zip(own, found, strict=True)]
        right = [words_right(true, text) for true, text in zip(own, found, strict=True)]
        table = {name: _rising(confidence, values) for name, values in (("exact", exact), ("words", right))}
        curve = pd.DataFrame({"domain": domain, "confidence": GRID, **table, "n": len(own)})
        curves.append(curve[(confidence.min() <= GRID + STEP) & (confidence.max() >= GRID - STEP)])
    return pd.concat(curves, ignore_index=True)


def measure_file(inverter: Inverter, path: Path, out: Path, num_steps: int = STEPS) -> pd.DataFrame:
    """`measure` on a corpus, a domain for each of its sources, into a file of the folder `out`."""
    corpus = read_corpus(path)
    by_source = pd.Series(corpus.texts).groupby(pd.Series(corpus.sources)).agg(list)
    found = measure(inverter, by_source.to_dict(), num_steps)
    out.mkdir(parents=True, exist_ok=True)
    found.round(4).to_csv(out / FILE, index=False)
    return found


def words_right(true: str, text: str) -> float:
    """Share of a text's words that stand in the true one, each as often; 0 for an empty text."""
    written = Counter(words(text))
    return (written & Counter(words(true))).total() / max(1, written.total())


class Chances:
    """What a confidence is worth: chances as the range over the measured domains."""

    def __init__(self, table: pd.DataFrame):
        self.table = table

    @classmethod
    def near(cls, inverter: Inverter, out: Path) -> "Chances | None":
        """Those of the audit's own folder, else of the checkpoint; None where nothing was measured."""
        folders = [out, *([locate(inverter.name)] if inverter.name else [])]
        path = next((own / FILE for own in folders if (own / FILE).is_file()), None)
        return None if path is None else cls(pd.read_csv(path))

    def of(self, confidence: np.ndarray) -> dict[str, np.ndarray]:
        """exact_low, exact_high, words_low, words_high for each confidence [n]."""
        confidence = np.clip(confidence, self.table["confidence"].min(), self.table["confidence"].max())
        said, outside = {}, {"left": np.nan, "right": np.nan}  # a domain says nothing of confidences it never has
        for kind in ("exact", "words"):
            curves = [(own["confidence"], own[kind]) for _, own in self.table.groupby("domain")]
            each = np.stack([np.interp(confidence, at, values, **outside) for at, values in curves])
            said |= {f"{kind}_low": np.nanmin(each, axis=0), f"{kind}_high": np.nanmax(each, axis=0)}
        return said


def _rising(confidence: np.ndarray, values: Sequence[float]) -> np.ndarray:
    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, values).predict(GRID)
