"""Alignment: vectors of an encoder that no checkpoint was trained on, mapped into the space of one that was.

A few known (text, vector) pairs are enough: of a leak, or of texts that one has stored oneself. The map is a ridge
regression in closed form (ALGEN, Chen et al. 2025), on the vectors or on their nearness to some of the known ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file, save_file

from invlib.config import TrainingConfig
from invlib.door.files import guarded, reading, write_atomically
from invlib.door.options import ENCODER, NAME
from invlib.door.vectors import answers, check_texts, check_vectors, directions
from invlib.errors import InputError

FEWEST = 10  # pairs
TAKER = "this alignment maps"  # how an error calls it
STRENGTHS = np.geomspace(1e-7, 1, 15)  # of the ridge, in units of the sum of all squares
LANDMARKS, NARROWNESS = 1000, 2.0  # known vectors to which nearness is measured; its exponent at their mean distance
DISTANCE = 1e-6  # squared; rows that are nearer are the same to fp32
FILE_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Alignment:
    """The map of another encoder's vectors into the space of a checkpoint's encoder. Learn one with `fit`.

    `inverter.invert(alignment(vectors), noise_level=alignment.noise_level)` decodes them; with `alignment=alignment`
    and `encoder=` the foreign one, a search asks and compares in the foreign space (`Inverter.invert`).
    """

    landmarks: Float[np.ndarray, "landmark foreign"]  # none for a linear map
    width: Float[np.ndarray, "1"]  # of nearness, exp(-width · |x - landmark|²)
    center: Float[
        np.ndarray, "feature"
    ]  # mean of the known vectors' features: nearness, or the unit vectors themselves
    matrix: Float[np.ndarray, "feature embed"]
    offset: Float[np.ndarray, "embed"]  # mean of their texts' vectors
    cosines: Float[np.ndarray, "pairs"]  # of each known pair, mapped by what the others taught, to its text's vector

    @classmethod
    def fit(cls, vectors: Any, texts: Sequence[str], encoder: Any, *, linear: bool = False) -> "Alignment":
        """Learn from known pairs.

        vectors: foreign ones, [n, D] with any D; only their direction counts. texts: theirs, [n], in the same order.
        encoder: of the checkpoint that is to invert, such as `inverter.encoder`, or a function texts → vectors [n, d].

        linear: consider no other map than a linear one.

        Pairs whose texts have one vector count once, as the first of them. Map and strength are those with the highest
        mean cosine when each pair in turn is left out.
        Raises `InputError` for fewer than 10 different texts, unequal numbers, rows that are NaN, infinite or zero,
        vectors that are all the same, and an encoder that fails.
        """
        ENCODER.check("encoder", encoder)
        vectors, texts = directions(vectors, "foreign vector"), check_texts(texts)
        if len(vectors) != len(texts):
            raise InputError(f"{len(vectors)} vectors but {len(texts)} texts; give the text of every vector, in order")
        _check_count(len(texts), "pairs of text and vector")
        known = encoded(encoder, texts)
        different = np.sort(np.unique(known.round(5), axis=0, return_index=True)[1])
        _check_count(len(different), f"texts that the encoder can tell apart, of {len(texts)}")
        vectors, known = vectors[different].astype(np.float64), known[different].astype(np.float64)
        if ((vectors - vectors[0]) ** 2).sum(axis=1).max() < DISTANCE:
            raise InputError("all foreign vectors are the same; a column that never changes says nothing of its text")
        maps = [_linear(vectors, known)] + ([] if linear else [_kernel(vectors, known)])
        best = max(maps, key=lambda parts: parts[-1].mean())
        return cls(*(part.astype(np.float32) for part in best))

    @property
    def foreign_dim(self) -> int:
        """Dimension of the vectors that are mapped."""
        return self.landmarks.shape[1]

    @property
    def pairs(self) -> int:
        """How many different texts were known."""
        return len(self.cosines)

    @property
    def cosine(self) -> float:
        """Mean cosine of a mapped vector to the true one, on pairs that were left out one by one."""
        return float(self.cosines.mean())

    @property
    def noise_level(self) -> float:
        """σ√d of the Gaussian noise that turns a unit vector by as much: √(1 / cosine² - 1).

        At most what a training tells its model (`max_noise`): what is louder, no checkpoint has heard of.
        """
        most = TrainingConfig.max_noise
        return most if self.cosine < 1 / math.hypot(1, most) else math.sqrt(max(0.0, 1 / self.cosine**2 - 1))

    def __call__(self, vectors: Any) -> Float[np.ndarray, "n embed"]:
        """Foreign vectors [n, D] or [D] → unit vectors [n, d]. Raises `InputError` for another dimension or NaN."""
        checked = check_vectors(vectors, self.foreign_dim, TAKER)
        features = _nearness(checked, self.landmarks, self.width) if len(self.landmarks) else checked
        return directions((features - self.center) @ self.matrix + self.offset, "mapped vector")

    def save(self, path: str | Path) -> None:
        """Write a safetensors file. Raises `InputError` where that is not possible."""
        NAME.check("the file of an alignment", path)
        tensors = {name: np.ascontiguousarray(value) for name, value in vars(self).items()}
        write_atomically(Path(path).expanduser(), lambda partial: save_file(tensors, partial))

    @classmethod
    def load(cls, path: str | Path) -> "Alignment":
        """Open what `save` wrote. Raises `InputError` for a file that is missing, damaged or something else."""
        NAME.check("the file of an alignment", path)
        path = Path(path).expanduser()
        with reading(path, "is no alignment", "write one with Alignment.save", most=FILE_BYTES):
            found = load_file(path)
            if set(found) != set(cls.__dataclass_fields__):
                raise ValueError(f"it holds {', '.join(sorted(found)[:4])}")
            (count, dim), (features, embed) = found["landmarks"].shape, found["matrix"].shape
            shapes = {"width": (1,), "center": (features,), "offset": (embed,), "cosines": (found["cosines"].size,)}
            if features != (count or dim) or any(found[name].shape != shape for name, shape in shapes.items()):
                raise ValueError("its shapes do not fit each other")
            if not all(own.dtype == np.float32 and np.isfinite(own).all() for own in found.values()):
                raise ValueError("its numbers are not finite fp32 ones")
        return cls(**found)


def encoded(encoder: Any, texts: list[str]) -> Float[np.ndarray, "n embed"]:
    """Unit vectors of texts from an `Encoder` or a function. Raises `InputError` for one that fails."""
    with guarded("the encoder failed", "repair it, or wait for its service, and try again"):
        vectors = np.asarray(getattr(encoder, "encode", encoder)(texts))
    return answers(vectors, len(texts), vectors.shape[-1] if vectors.ndim == 2 else 0)


def _check_count(count: int, what: str) -> None:
    if count < FEWEST:
        raise InputError(
            f"an alignment needs at least {FEWEST} {what}, got {count}; know more texts with their vectors"
        )


def _linear(vectors: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, ...]:
    """The parts of an alignment that is linear."""
    return vectors[:0], np.zeros(1), *_ridge(vectors, known)


def _kernel(vectors: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, ...]:
    """The parts of an alignment by nearness: Gaussian kernel ridge, on some landmarks (Williams and Seeger 2000)."""
    landmarks = vectors[np.random.default_rng(0).permutation(len(vectors))[:LANDMARKS]]
    apart = 2 * len(landmarks) / (len(landmarks) - 1) * (1 - (landmarks.mean(axis=0) ** 2).sum())  # mean |x - x'|²
    width = np.array([NARROWNESS / apart])
    squares, basis = np.linalg.eigh(_nearness(landmarks, landmarks, width))
    held = squares > squares[-1] * 1e-6
    whitened = basis[:, held] / np.sqrt(squares[held])
    features = _nearness(vectors, landmarks, width)
    _, matrix, *others = _ridge(features @ whitened, known)
    return landmarks, width, features.mean(axis=0), whitened @ matrix, *others


def _nearness(vectors: np.ndarray, landmarks: np.ndarray, width: np.ndarray) -> np.ndarray:
    """exp(-width · |x - landmark|²) of unit vectors [n, D] and landmarks [m, D], [n, m]."""
    return np.exp(-width * (2 - 2 * vectors @ landmarks.T).clip(min=0))


def _ridge(vectors: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, ...]:
    """Center, matrix, offset and left-out cosines of the ridge whose strength does best on what is left out.

    With U S Vᵀ = X, both sides centred, and f = s² / (s² + λ): predictions U f Uᵀ Y, matrix V (f / s) Uᵀ Y. A pair's
    error, were it left out, is its error / (1 - h) with h its diagonal entry of 1/n + U f Uᵀ (Allen 1974).
    """
    center, offset = vectors.mean(axis=0), known.mean(axis=0)
    x, y = vectors - center, known - offset
    wide = len(x) < x.shape[1]
    squares, basis = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    held = squares > squares[-1] * 1e-10
    squares, basis = squares[held], basis[:, held]
    left = basis if wide else x @ basis / np.sqrt(squares)  # U
    seen, best = left.T @ y, (-np.inf, 0.0, None)
    for strength in STRENGTHS * squares.sum():
        share = squares / (squares + strength)
        error = y - left @ (share[:, None] * seen)
        alone = known - error / np.maximum(1 - 1 / len(x) - left**2 @ share, 1e-6)[:, None]
        cosines = (alone * known).sum(axis=1) / np.linalg.norm(alone, axis=1)
        best = max(best, (float(cosines.mean()), strength, cosines), key=lambda found: found[0])
    _, strength, cosines = best
    heard = seen / (squares + strength)[:, None]
    matrix = x.T @ (left @ heard) if wide else basis @ (np.sqrt(squares)[:, None] * heard)
    return center, matrix, offset, cosines
