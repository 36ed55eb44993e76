"""Perturbation: from clean vectors to what a store would hold, and back to what an attacker can invert."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from invlib.door.options import GENERATOR, Checked
from invlib.door.vectors import as_array, directions
from invlib.errors import InputError, require
from invlib.metrics import cosine, mean_interval

UNIT_TOLERANCE = 0.01  # a bf16 encoder's own division leaves lengths of 1 ± 0.004


class Perturbation(Checked):
    """One thing that can happen to a vector, as a frozen value: a name, a strength, and two maps.

    store: clean unit vectors float32 [n, d] → what the store holds, [n, m] of any number type.
    recover: what the store holds → unit vectors float32 [n, d], by what everybody may know: the method and its
      public parameters. It never uses a secret key, the noise that was drawn, or a clean vector.

    A subclass writes the formulas (`_store`, `_recover`); the checks on both sides are made here, once, and those of
    its parameters are declared with `within`. It sets its `name` and what follows without an annotation: to a
    dataclass an annotated name is a parameter.
    """

    name: ClassVar[str]
    measure: ClassVar[str]  # what `strength` counts
    random: ClassVar[bool] = False  # does `store` draw from the generator?
    caution: ClassVar[str] = ""  # what the strength does not mean, where it is easily misread

    @property
    def strength(self) -> float:
        """The one number that a study sweeps: the first parameter, or how many rows it has."""
        first = getattr(self, fields(self)[0].name)
        return len(first) if isinstance(first, np.ndarray) else first

    def bits(self, embed_dim: int) -> int:
        """Size of one stored vector; what all vectors share (codebooks, ranges, keys) is not counted."""
        return 32 * embed_dim

    def store(self, vectors: np.ndarray, generator: torch.Generator | None = None) -> np.ndarray:
        """Clean unit vectors [n, d] → what the store holds, [n, m]. The input stays as it is.

        Raises `InputError` for vectors that are not finite or not of unit length, for a random perturbation without
        a generator, and for a result that is not finite.
        """
        vectors = check_unit(vectors)
        random = numpy_generator(generator, self.name) if self.random else None
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is told below, with the fix
            stored = self._store(vectors, random)
        if (row := _broken_row(stored)) is not None:
            told = f"{self.name} at strength {self.strength:g} makes row {row} infinite or NaN"
            raise InputError(f"{told}; choose a weaker one")
        return stored

    def recover(self, stored: np.ndarray) -> np.ndarray:
        """What the store holds [n, m] → unit vectors float32 [n, d]. Raises `InputError` for NaN or a zero result."""
        stored = as_array(stored)
        _check_rows(stored)
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            recovered = np.asarray(self._recover(stored))
        if (row := _broken_row(recovered)) is not None:
            raise InputError(f"{self.name} maps row {row} back to infinite or NaN entries; repair its `_recover`")
        return unit(recovered)

    def _check_width(self, vectors: np.ndarray, width: int) -> None:
        if vectors.shape[1] != width:
            found = f"{self.name} expects {width} columns here, got {vectors.shape[1]}"
            raise InputError(f"{found}; was this stored by another perturbation?")

    def _store(self, vectors: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
        raise NotImplementedError

    def _recover(self, stored: np.ndarray) -> np.ndarray:
        return stored


@dataclass(frozen=True)
class Unchanged(Perturbation):
    """y = x: the store holds the clean vector. The reference of every sweep."""

    name, measure, strength = "none", "nothing", 0

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        return vectors.copy()


@dataclass(frozen=True)
class Perturbed:
    """What a perturbation made of n clean vectors."""

    stored: np.ndarray  # [n, m] what the store holds
    vectors: np.ndarray  # [n, d] float32 of unit length: what the attacker inverts
    cosines: np.ndarray  # [n] of each of these to its clean vector


def apply(perturbation: Perturbation, vectors: np.ndarray, generator: torch.Generator | None = None) -> Perturbed:
    """Clean unit vectors [n, d] → stored, mapped back, and how far off. Raises what `store` and `recover` raise."""
    require(isinstance(perturbation, Perturbation), "a perturbation", "one of invlib.perturb", perturbation)
    stored = perturbation.store(vectors, generator)
    recovered = perturbation.recover(stored)
    if recovered.shape != np.shape(vectors):
        shapes = f"{list(recovered.shape)}, the clean vectors have {list(np.shape(vectors))}"
        raise InputError(f"{perturbation.name} maps back to shape {shapes}; write the way back, `_recover`")
    return Perturbed(stored, recovered, cosine(recovered, np.asarray(vectors)))


def distortion(
    perturbations: Iterable[Perturbation], vectors: np.ndarray, generator: torch.Generator | None = None
) -> pd.DataFrame:
    """What each perturbation does to the vectors: one row per perturbation.

    cosine, low, high: mean cosine of the attacker's vector to the clean one, with its 95 % interval over the n vectors.
    noise: root mean square of |stored - clean|, the clean length being 1; for Gaussian noise this is σ√d. NaN where
      the store does not hold d real numbers.
    bits: size of one stored vector. caution: what the strength does not mean.
    """
    (n, d), rows = check_unit(vectors).shape, []
    for p in perturbations:
        seen, noise = apply(p, vectors, generator), math.nan
        if seen.stored.shape == (n, d) and seen.stored.dtype.kind == "f":
            noise = float(np.sqrt(((seen.stored.astype(np.float64) - vectors) ** 2).sum(axis=1).mean()))
        rows.append((p.name, p.strength, p.measure, *mean_interval(seen.cosines), n, noise, p.bits(d), p.caution))
    columns = ["perturbation", "strength", "measure", "cosine", "low", "high", "n", "noise", "bits", "caution"]
    return pd.DataFrame(rows, columns=columns)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32 [n, d]. Raises `InputError` for a zero row: it has no direction."""
    vectors = as_array(vectors)
    _check_rows(vectors)
    return directions(vectors, "row", "it has no direction: choose a weaker perturbation or remove the row")


def check_unit(vectors: np.ndarray) -> np.ndarray:
    """Clean vectors as float32 [n, d], or an `InputError` that names the row that is not finite or not of length 1."""
    vectors = as_array(vectors)
    _check_rows(vectors)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(np.abs(lengths - 1) > UNIT_TOLERANCE)
    if wrong.size:
        told = f"row {wrong[0]} has length {lengths[wrong[0]]:.3g}, but every strength is measured against unit vectors"
        raise InputError(f"{told}; pass the clean vectors through invlib.perturb.unit first")
    return vectors.astype(np.float32)


def numpy_generator(generator: torch.Generator | None, name: str) -> np.random.Generator:
    """A numpy generator, seeded by one draw from the house's: torch has no public gamma or beta variates of its own.

    No default: torch's global generator starts from the same number in every process, and a key drawn from it
    would be no secret.
    """
    GENERATOR.check("generator", generator)
    if generator is None:
        raise InputError(f"{name} is random; pass generator=torch.Generator().manual_seed(0), or any other seed")
    return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))


def _check_rows(vectors: np.ndarray) -> None:
    if vectors.ndim != 2 or vectors.size == 0 or vectors.dtype.kind not in "fiu":
        raise InputError(f"expected numbers of shape [n, d], got {vectors.dtype} of shape {list(vectors.shape)}")
    if (row := _broken_row(vectors)) is not None:
        raise InputError(f"row {row} has NaN or infinite entries; remove it or repair its source")


def _broken_row(vectors: np.ndarray) -> int | None:
    """The first row that is not finite, or None."""
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    return int(broken[0]) if broken.size else None
