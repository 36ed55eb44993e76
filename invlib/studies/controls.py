"""Controls: what an attacker writes who does not listen to the vector, or needs no model."""

import numpy as np
import torch

from invlib.errors import InputError

INVERTED = "inverted"
CONTROLS = ("unconditional prior", "shuffled embeddings", "nearest sentence")


def somebody_else(n: int, generator: torch.Generator | None = None) -> np.ndarray:
    """For each of n rows another one, [n]; each serves once. Raises `InputError` for fewer than two rows."""
    if n < 2:
        raise InputError("the controls need at least two texts")
    # A cyclic shift of a random order: nobody keeps the own row.
    order = torch.randperm(n, generator=generator).numpy()
    other = np.empty(n, int)
    other[order] = np.roll(order, 1)
    return other


def nearest(vectors: np.ndarray, pool: np.ndarray, *, own_excluded: bool = False) -> np.ndarray:
    """Row of the pool [m, d] that is closest to each vector [n, d] by inner product, [n].

    own_excluded: vectors and pool belong together row by row, and the own row is not known to the attacker.
    """
    similarity = vectors @ pool.T
    if own_excluded:
        np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)
