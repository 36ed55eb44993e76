"""Mixtures: a vector moved towards another one, or averaged with others (chunks of a document)."""

from dataclasses import dataclass

import numpy as np

from invlib.door.options import SHARE, whole, within
from invlib.door.vectors import as_array
from invlib.errors import InputError, require
from invlib.perturb.perturbation import Perturbation, unit


@dataclass(frozen=True)
class Interpolation(Perturbation):
    """Each vector moved towards one other of the batch: `interpolate` with the row that `partners` draws."""

    weight: float = within(SHARE)
    name, measure, random = "interpolation", "weight of the other vector", True

    def _store(self, vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return interpolate(vectors, vectors[partners(len(vectors), 2, random)[:, 1]], self.weight)


@dataclass(frozen=True)
class Averaging(Perturbation):
    """Each vector averaged with count - 1 others of the batch; from unrelated ones it keeps a cosine of 1 / √count."""

    count: int = within(whole(1, 2**20))
    name, measure, random = "averaging", "vectors averaged", True

    def _store(self, vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return unit(vectors[partners(len(vectors), self.count, random)].mean(axis=1))


def interpolate(a: np.ndarray, b: np.ndarray, weight: float) -> np.ndarray:
    """(1 - weight) a + weight b, row by row, normalised, [n, d]. Raises `InputError` where opposite rows cancel."""
    a, b = as_array(a), as_array(b)
    SHARE.check("weight", weight)
    require(
        a.shape == b.shape and a.dtype.kind + b.dtype.kind in ("ff", "fi", "if", "ii"),
        "vectors",
        "two arrays of one shape",
        (a, b),
    )
    return unit((1 - weight) * a + weight * b)


def partners(n: int, count: int, random: np.random.Generator) -> np.ndarray:
    """For each of n rows itself and count - 1 different others, [n, count]: shifts of one random order, so that every
    row serves equally often. Raises `InputError` for count > n.
    """
    if count > n:
        raise InputError(f"{count} different vectors are asked for, the batch has {n}; give more or average fewer")
    order = random.permutation(n)
    return order[(order.argsort()[:, None] + np.arange(count)) % n]
