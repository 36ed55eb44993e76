"""Precision: from what a store keeps, whole numbers or bits, back to vectors that can be inverted.

The ranges of a per-column int8 are not in the store. They are taken from what training saw of the encoder, in two
ways; which way is right, or none, is decided by the texts: read rightly, they lead back to their vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from invlib.audit.origin import check_dimension
from invlib.audit.survey import Survey
from invlib.inverter import Inverter

CODES = 127.5  # half of the distance between the lowest and the highest int8
WIDTHS = np.linspace(1.5, 5, 36)  # half ranges of a column, in standard deviations, that are tried


@dataclass(frozen=True)
class Precision:
    """One reading of what is stored."""

    told: str  # for a person
    read: Callable[[np.ndarray], np.ndarray]  # as stored [n, m] → vectors [n, d]
    attacker: str | None = None  # the adapted one for it, by its name
    is_exact: bool = True  # are coordinates that the encoder never uses still zero in it?
    keep: Callable[[np.ndarray], np.ndarray] = lambda clean: clean  # what is left of clean vectors [n, d]
    estimated: bool = False  # the ranges of its columns are not stored


PLAIN = Precision("numbers as the encoder gives them", lambda stored: stored)


def readings(survey: Survey, inverter: Inverter) -> list[Precision]:
    """How the stored numbers may be meant; more than one where only the texts can tell.

    Raises `InputError` for a dimension that the checkpoint does not invert.
    """
    width, dim = survey.sample.shape[1], inverter.config.embedding_cond_dim
    is_code = survey.is_whole and survey.low >= -128 and survey.high <= 255
    if not (is_code and width * 8 == dim):
        check_dimension(width, dim)
    if not is_code:
        return [PLAIN]
    if width * 8 == dim:
        offset = 128 if survey.low < 0 else 0  # as sentence-transformers writes "binary" and "ubinary"
        return [
            Precision(f"{dim} packed bits, {order} first", _unpacked(offset, order), "binary", False, np.sign)
            for order in ("big", "little")
        ]
    if survey.high <= 1 and survey.low >= -1:
        middle = 0.5 if survey.low >= 0 else 0.0
        return [Precision("one bit a coordinate", lambda stored: np.sign(stored - middle), "binary", False, np.sign)]
    kind = "int8" if survey.low < 0 else "uint8"
    shift = 0.0 if survey.low < 0 else CODES
    plain = Precision(f"{kind}, one scale for all", lambda stored: stored - shift, "int8", not shift, _rounded)
    if not inverter.config.standardize:
        return [plain]
    columns = f"{kind}, every column in a range of its own; the ranges are not stored and were estimated"
    live, mean, std = _seen(inverter, survey.sample)
    ways = {"general text": _by_range, "mean and spread": _by_moments}

    def keep(clean: np.ndarray, way: Callable) -> np.ndarray:
        low, high = clean.min(axis=0), clean.max(axis=0)
        codes = np.rint((clean - low) / np.maximum(high - low, 1e-9) * 2 * CODES) - (CODES + 0.5) * (survey.low < 0)
        return way(codes, *_seen(inverter, codes))(codes)

    return [plain, *(Precision(f"{columns} from {name}", way(survey.sample, live, mean, std), "int8",
                               keep=partial(keep, way=way), estimated=True) for name, way in ways.items())]  # fmt: skip


def _rounded(clean: np.ndarray) -> np.ndarray:
    top = np.abs(clean).max(axis=1, keepdims=True)
    return np.rint(clean / top * 127)


def _unpacked(offset: int, order: str) -> Callable[[np.ndarray], np.ndarray]:
    def read(stored: np.ndarray) -> np.ndarray:
        return 2.0 * np.unpackbits((stored + offset).astype(np.uint8), axis=1, bitorder=order) - 1

    return read


def _seen(inverter: Inverter, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which columns say anything; mean and deviation of the encoder's coordinates."""
    mean, std = (own.float().cpu().numpy() for own in (inverter.model.embedding_mean, inverter.model.embedding_std))
    return (sample.std(axis=0) > 0) & (std > 0.2 * np.median(std)), mean, std


def _by_moments(sample: np.ndarray, live: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Callable:
    """Mean and spread of every column become those of the encoder: right where the texts are of every kind."""
    centre, spread = sample.mean(axis=0), np.where(live, sample.std(axis=0), np.inf)
    return lambda stored: np.where(live, mean + std * (stored - centre) / spread, 0)


def _by_range(sample: np.ndarray, live: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Callable:
    """The codes spread over mean ± k deviations, k such that vectors have length 1: for ranges of general text."""
    middle = -0.5 if sample.min() < 0 else CODES

    def read(stored: np.ndarray, k: float) -> np.ndarray:
        return np.where(live, mean + std * k * (stored - middle) / CODES, 0)

    best = min(WIDTHS, key=lambda k: abs(np.linalg.norm(read(sample, k), axis=1).mean() - 1))
    return lambda stored: read(stored, best)
