"""Secrets: a key turns the space, distances stay; and what known pairs of clean and stored vectors do to the key.

`recover` does not know the key: it hands the vectors on as they are stored, which is the attack of somebody who does
not notice. `procrustes`, `match_columns` and `least_squares` need pairs, and no key.
"""

from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge

from invlib.door.options import Domain, finite_array, whole, within
from invlib.errors import InputError, require
from invlib.perturb.perturbation import Perturbation, numpy_generator

RIDGE = 1e-3  # of `least_squares`, in units of a stored vector's mean squared length

PERMUTATION = Domain("a permutation of 0 … d - 1", lambda key: (np.sort(key) == np.arange(len(key))).all())


@dataclass(frozen=True, eq=False)
class SecretRotation(Perturbation):
    """y = x R with a secret orthogonal R: inner products, and with them every search, stay as they were.

    Draw one with `draw`: uniform over all rotations and reflections (Mezzadri 2007). With the key: x = y Rᵀ.
    """

    key: np.ndarray = within(finite_array(2), repr=False)  # [d, d] orthogonal
    name, measure = "secret rotation", "dimension of the key"

    @classmethod
    def draw(cls, embed_dim: int, generator: torch.Generator | None = None) -> "SecretRotation":
        """A key for vectors of dimension embed_dim ≥ 1."""
        whole(1, 2**14).check("embed_dim", embed_dim)
        return cls(ortho_group.rvs(embed_dim, random_state=numpy_generator(generator, "drawing a rotation")))

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        self._check_width(vectors, len(self.key))
        return (vectors @ self.key).astype(np.float32)


@dataclass(frozen=True, eq=False)
class SecretPermutation(Perturbation):
    """y_j = x_key(j): the coordinates in a secret order, values untouched. Draw one with `draw`."""

    key: np.ndarray = within(PERMUTATION, repr=False)  # [d] a permutation of 0 … d - 1
    name, measure = "secret permutation", "dimension of the key"

    @classmethod
    def draw(cls, embed_dim: int, generator: torch.Generator | None = None) -> "SecretPermutation":
        """A key for vectors of dimension embed_dim ≥ 1."""
        whole(1, 2**14).check("embed_dim", embed_dim)
        return cls(numpy_generator(generator, "drawing a permutation").permutation(embed_dim))

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        self._check_width(vectors, len(self.key))
        return vectors[:, self.key]


@dataclass(frozen=True, eq=False)
class KnownPairs(Perturbation):
    """The store of another perturbation, seen by somebody who learned the way back from clean vectors and their stored
    forms (a leak, or texts of the attacker's own that were stored). Open one with `fit`.

    With 0 pairs it is the attack that hands the vectors on as they are stored.
    """

    inner: Perturbation
    matrix: np.ndarray | None = within(finite_array(2).or_none(), repr=False)  # [m, d]; None without a pair
    pairs: int = 0
    measure = "known pairs"
    random, strength = property(attrgetter("inner.random")), property(attrgetter("pairs"))
    name = property(lambda self: f"{self.inner.name}, known pairs")

    @classmethod
    def fit(cls, inner: Perturbation, clean: np.ndarray, generator: torch.Generator | None = None) -> "KnownPairs":
        """The way back from the stored forms of `clean` [n, d]: `procrustes` for a rotation, `match_columns` for a
        permutation, `least_squares` for everything else.
        """
        if len(clean) == 0:
            return cls(inner, None)
        stored = inner.store(clean, generator)
        if isinstance(inner, SecretPermutation):
            return cls(inner, np.eye(clean.shape[1])[match_columns(stored, clean)], len(clean))
        attack = procrustes if isinstance(inner, SecretRotation) else least_squares
        return cls(inner, attack(stored, clean), len(clean))

    def bits(self, embed_dim: int) -> int:
        return self.inner.bits(embed_dim)

    def _store(self, vectors: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
        return self.inner._store(vectors, random)

    def _recover(self, stored: np.ndarray) -> np.ndarray:
        return self.inner._recover(stored) if self.matrix is None else stored @ self.matrix


def procrustes(stored: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The orthogonal A [d, d] that brings known stored vectors [n, d] closest to their clean ones (Schönemann 1966).
    `unit(stored @ A)` is the attacker's vector.

    d independent pairs give a rotation's key away exactly; with fewer, only what lies in their span.
    """
    _check_pairs(stored, clean, same_width=True)
    return orthogonal_procrustes(stored.astype(np.float64), clean)[0]


def least_squares(stored: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The linear A [m, d] from stored vectors [n, m] to their clean ones [n, d]: (SᵀS + λ I)⁻¹ Sᵀ C, with λ a
    thousandth of a stored vector's mean squared length.

    For whatever is linear and more than a rotation: a secret projection, another encoder's space (ALGEN, Chen et al.
    2025).
    """
    _check_pairs(stored, clean)
    stored = stored.astype(np.float64)
    return Ridge(RIDGE * (stored**2).sum(axis=1).mean(), fit_intercept=False).fit(stored, clean).coef_.T


def match_columns(stored: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The key of a permutation from known pairs [n, d]: column j of the stored is the clean column key[j] with the
    smallest squared distance, one for one (Kuhn 1955). One pair is enough where no value stands twice.
    """
    _check_pairs(stored, clean, same_width=True)
    return linear_sum_assignment(cdist(stored.T, clean.T, "sqeuclidean"))[1]


def _check_pairs(stored: np.ndarray, clean: np.ndarray, *, same_width: bool = False) -> None:
    for name, given in (("stored vectors", stored), ("clean vectors", clean)):
        require(isinstance(given, np.ndarray) and given.dtype.kind in "fiu", name, "an array of numbers", given)
    if stored.ndim != 2 or clean.ndim != 2 or len(stored) != len(clean) or len(stored) == 0:
        got = f"got shapes {list(stored.shape)} and {list(clean.shape)}"
        raise InputError(f"known pairs need as many stored as clean vectors, at least one; {got}")
    if not (np.isfinite(stored).all() and np.isfinite(clean).all()):
        raise InputError("the known pairs have NaN or infinite entries; remove those pairs")
    if same_width and stored.shape[1] != clean.shape[1]:
        raise InputError("stored and clean vectors have unequal dimensions, no key keeps those; use least_squares")
