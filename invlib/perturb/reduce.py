"""Reduction: fewer coordinates. The way back is explicit, for the model wants all d of them."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA

from invlib.door.options import Domain, finite_array, number, whole, within
from invlib.perturb.perturbation import Perturbation, check_unit, numpy_generator, unit

MEAN = Domain("a finite number or vector", lambda value: np.isfinite(value).all() and np.ndim(value) < 2)


@dataclass(frozen=True)
class Truncation(Perturbation):
    """The leading `keep` of `embed_dim` coordinates, renormalised (Matryoshka: Kusupati et al. 2022, §3).

    Way back: zeros for the rest, so the cosine to the clean vector is the length of its leading part. An encoder that
    was not trained for it (all-MiniLM-L6-v2 was not) has no reason to keep its meaning in front.
    """

    keep: int = within(whole(1, 2**20))
    embed_dim: int = within(whole(1, 2**20))
    name, measure = "truncation", "leading coordinates kept"

    def __post_init__(self):
        super().__post_init__()
        whole(1, self.embed_dim).check("keep", self.keep)

    def bits(self, embed_dim: int) -> int:
        return 32 * self.keep

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        self._check_width(vectors, self.embed_dim)
        return unit(vectors[:, : self.keep])

    def _recover(self, stored: np.ndarray) -> np.ndarray:
        self._check_width(stored, self.keep)
        return np.pad(stored, ((0, 0), (0, self.embed_dim - self.keep)))


@dataclass(frozen=True, eq=False)
class Projection(Perturbation):
    """y = (x - mean) Cᵀ. Way back, for who knows C: y (Cᵀ)⁺ + mean, the shortest way to a vector that projects to y."""

    components: np.ndarray = within(finite_array(2), repr=False)  # [keep, d]
    mean: np.ndarray | float = within(MEAN, default=0.0, repr=False)  # [d]

    def bits(self, embed_dim: int) -> int:
        return 32 * len(self.components)

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        self._check_width(vectors, self.components.shape[1])
        return ((vectors - self.mean) @ self.components.T).astype(np.float32)

    def _recover(self, stored: np.ndarray) -> np.ndarray:
        self._check_width(stored, len(self.components))
        return stored @ np.linalg.pinv(self.components.T) + self.mean


@dataclass(frozen=True, eq=False)
class PrincipalComponents(Projection):
    """The `keep` orthonormal directions of largest variance around the mean (Pearson 1901).

    Open one with `fit`; mean and directions are public, as a query must pass through them too.
    """

    name, measure = "principal components", "components kept"

    @classmethod
    def fit(cls, vectors: np.ndarray, keep: int) -> "PrincipalComponents":
        """Directions of the given vectors [n, d]. Raises `InputError` for more than min(n - 1, d) of them."""
        vectors = check_unit(vectors)
        n, d = vectors.shape
        whole(1, min(n - 1, d)).check("keep", keep)
        found = PCA(keep, svd_solver="full").fit(vectors.astype(np.float64))
        return cls(found.components_, found.mean_)


@dataclass(frozen=True, eq=False)
class RandomProjection(Projection):
    """Directions of independent N(0, 1/keep): E|y|² = |x|² (Johnson and Lindenstrauss 1984; Dasgupta and Gupta 2003),
    and after the way back E[cos²] = keep / d.

    Draw one with `draw`. Kept secret, it is a key: then `recover` is out of reach, and `least_squares` on known pairs
    takes its place.
    """

    name, measure = "random projection", "dimensions kept"

    @classmethod
    def draw(cls, embed_dim: int, keep: int, generator: torch.Generator | None = None) -> "RandomProjection":
        """Directions for vectors of dimension embed_dim. Raises `InputError` unless 1 ≤ keep ≤ embed_dim."""
        whole(1, 2**20).check("embed_dim", embed_dim)
        whole(1, embed_dim).check("keep", keep)
        random = numpy_generator(generator, "drawing a projection")
        return cls(random.standard_normal((embed_dim, keep)).T / np.sqrt(keep))


@dataclass(frozen=True)
class CoordinateDropout(Perturbation):
    """A share of the coordinates, drawn anew for each vector, is set to 0: exactly share · d of them (rounded), so that
    E[cos²] = 1 - share whatever the vector.
    """

    share: float = within(number(0, 1, below=True))
    name, measure, random = "coordinate dropout", "share of coordinates set to 0", True

    def _store(self, vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        d = vectors.shape[1]
        dropped = min(round(self.share * d), d - 1)  # one coordinate is left: zero vectors have no direction
        rank = random.uniform(size=vectors.shape).argsort(axis=1).argsort(axis=1)
        return np.where(rank < dropped, np.float32(0), vectors)
