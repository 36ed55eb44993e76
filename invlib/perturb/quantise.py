"""Quantisation: fewer bits a coordinate. What all vectors share (ranges, codebook) is public: a store must know it."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.vq import kmeans2, vq

from invlib.door.options import finite_array, whole, within
from invlib.errors import require
from invlib.perturb.perturbation import Perturbation, check_unit, numpy_generator

ROUNDS = 20  # of k-means


@dataclass(frozen=True)
class HalfPrecision(Perturbation):
    """fp16: 10 bits after the leading one, so |y - x| ≤ 2⁻¹¹ |x| a coordinate (above 2⁻¹⁴, IEEE 754)."""

    name, measure, strength = "fp16", "bits a coordinate", 16

    def bits(self, embed_dim: int) -> int:
        return 16 * embed_dim

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        return vectors.astype(np.float16)


@dataclass(frozen=True)
class AbsmaxQuantisation(Perturbation):
    """q = round(x / s), s = max|x| / (2^(bits-1) - 1), one scale a vector (as in Dettmers et al. 2022): int8, int4, …

    Stored are the codes, one int8 a coordinate whatever the bits (a store packs two int4 in a byte, the information
    is the same). The scale is not needed: a vector's direction is that of its codes. |s q - x| ≤ s/2 a coordinate.
    """

    level_bits: int = within(whole(2, 8), default=8)  # 1 bit: Binary
    name, measure = "absmax quantisation", "bits a coordinate"

    def bits(self, embed_dim: int) -> int:
        return self.level_bits * embed_dim + 32  # and the scale

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        top = 2 ** (self.level_bits - 1) - 1
        return np.rint(vectors / np.abs(vectors).max(axis=1, keepdims=True) * top).astype(np.int8)


@dataclass(frozen=True, eq=False)
class ZeroPointQuantisation(Perturbation):
    """q = round((x - low) / s), s = (high - low) / (2^bits - 1): the range of each coordinate, seen on calibration
    vectors, is spread over all codes (Jacob et al. 2018, eq. 1, where the zero point is -low / s).

    Open one with `fit`. Values outside the range are clipped; inside, |low + s q - x| ≤ s/2. A coordinate that is the
    same in all calibration vectors (all-MiniLM-L6-v2 has three) is code 0 and comes back as it was there.
    """

    level_bits: int = within(whole(1, 8))
    low: np.ndarray = within(finite_array(1), repr=False)  # [d]
    high: np.ndarray = within(finite_array(1), repr=False)  # [d]
    name, measure = "zero-point quantisation", "bits a coordinate"

    @classmethod
    def fit(cls, vectors: np.ndarray, level_bits: int = 8) -> "ZeroPointQuantisation":
        """Ranges of the calibration vectors [n, d]. Raises `InputError` for fewer than two."""
        vectors = check_unit(vectors)
        require(len(vectors) >= 2, "the number of calibration vectors", "at least 2", len(vectors))
        return cls(level_bits, vectors.min(axis=0), vectors.max(axis=0))

    @property
    def step(self) -> np.ndarray:
        """Distance between two codes, [d]; 1 where there is only one."""
        return np.where(self.high > self.low, self.high - self.low, 1) / (2**self.level_bits - 1)

    def bits(self, embed_dim: int) -> int:
        return self.level_bits * embed_dim

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        self._check_width(vectors, len(self.low))
        return np.rint((vectors.clip(self.low, self.high) - self.low) / self.step).astype(np.uint8)

    def _recover(self, stored: np.ndarray) -> np.ndarray:
        self._check_width(stored, len(self.low))
        return self.low + stored * self.step


@dataclass(frozen=True)
class Binary(Perturbation):
    """One bit a coordinate, x > 0, eight in a byte (as sentence-transformers' "ubinary"). The attacker reads the bits
    as ±1/√d. For directions spread evenly, E[cos] → √(2/π) = 0.798 in high dimension.
    """

    embed_dim: int = within(whole(1, 2**20))
    name, measure, strength = "binary", "bits a coordinate", 1

    def bits(self, embed_dim: int) -> int:
        return embed_dim

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        self._check_width(vectors, self.embed_dim)
        return np.packbits(vectors > 0, axis=1)

    def _recover(self, stored: np.ndarray) -> np.ndarray:
        self._check_width(stored, -(-self.embed_dim // 8))
        return 2.0 * np.unpackbits(stored, axis=1, count=self.embed_dim) - 1


@dataclass(frozen=True, eq=False)
class ProductQuantisation(Perturbation):
    """The vector is cut into parts; of each only the number of the nearest centroid is kept (Jégou et al. 2011).

    Open one with `fit`. The attacker puts the centroids back together; the codebook is public.
    """

    centroids: np.ndarray = within(finite_array(3), repr=False)  # [parts, codes, d / parts]
    name, measure = "product quantisation", "parts of a vector"

    @classmethod
    def fit(
        cls, vectors: np.ndarray, parts: int, *, codes: int = 256, generator: torch.Generator | None = None
    ) -> "ProductQuantisation":
        """Codebook by k-means on training vectors [n, d], for each part on its own.

        Raises `InputError` unless parts divides d, 2 ≤ codes ≤ 256, and there is a vector for each code.
        """
        vectors = check_unit(vectors)
        n, d = vectors.shape
        whole(1, d).check("parts", parts)
        require(d % parts == 0, "parts", f"a divisor of the dimension {d}", parts)
        whole(2, 256).check("codes", codes)  # one byte a part
        require(codes <= n, "codes", f"at most the {n} training vectors", codes)
        random = numpy_generator(generator, "fitting a product quantiser")
        pieces = vectors.reshape(n, parts, d // parts).swapaxes(0, 1)
        with warnings.catch_warnings(action="ignore"):  # a centroid that loses all its points stays where it is
            return cls(np.stack([kmeans2(piece, codes, ROUNDS, minit="points", rng=random)[0] for piece in pieces]))

    def bits(self, embed_dim: int) -> int:
        parts, codes, _ = self.centroids.shape
        return parts * (codes - 1).bit_length()

    def _store(self, vectors: np.ndarray, random: None) -> np.ndarray:
        parts, _, width = self.centroids.shape
        self._check_width(vectors, parts * width)
        pieces = vectors.reshape(len(vectors), parts, width)
        return np.stack([vq(pieces[:, i], self.centroids[i])[0] for i in range(parts)], axis=1).astype(np.uint8)

    def _recover(self, stored: np.ndarray) -> np.ndarray:
        self._check_width(stored, len(self.centroids))
        return self.centroids[np.arange(len(self.centroids)), stored].reshape(len(stored), -1)
