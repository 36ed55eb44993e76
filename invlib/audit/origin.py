"""Origin: can these vectors come from the encoder at all? Asked before anything is read out of them.

Three looks at a sample, each at what training saw of the encoder: the length of the vectors, their distribution
(coordinates that the encoder never uses, and the mean), and whether a recovered text leads back to its vector.
"""

from dataclasses import dataclass

import numpy as np

from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import cosine, reencoded

SAMPLE = 64
# Vectors of other encoders, and rotated or noisy ones, lie on the far side of these; notebook 08 prints how far.
UNUSED_LIMIT = 2e-3  # largest entry, of a unit vector, in a coordinate that the encoder leaves at 0
LIKENESS_LIMIT = 0.2  # correlation of the mean vector to the training's
LOOP_LIMIT = 0.3  # median cosine of re-encoded texts to their vectors
KNOWN = {384: "minilm (all-MiniLM-L6-v2), bundled", 1024: "Qwen/Qwen3-Embedding-0.6B, see configs/v2_qwen3.yaml"}


@dataclass(frozen=True)
class Origin:
    """What a sample says about where the vectors come from."""

    encoder: str
    n: int
    unit_share: float  # share of vectors of length 1 ± 1 %
    unused: float  # largest entry, at length 1, in the coordinates that the encoder never uses; NaN where there is none
    likeness: float  # correlation of the sample's mean vector to the training's; NaN for a model without statistics
    loop: float  # median cosine of the re-encoded recovered texts to their vectors
    control: float  # the same, to the vector of another row: what strangers have

    @property
    def doubts(self) -> list[str]:
        """What speaks against the encoder. A small change alone does not, as by noise: such vectors can be read."""
        doubts = []
        if self.likeness < LIKENESS_LIMIT and self.n >= SAMPLE // 2:
            doubts.append("their mean is not like its mean")
        if self.loop < LOOP_LIMIT:
            doubts.append("the texts recovered from them lead elsewhere when they are encoded again")
        if doubts and self.changed:
            doubts.insert(0, "coordinates that it never uses hold numbers, as after a rotation, a projection or noise")
        return doubts

    @property
    def plausible(self) -> bool:
        return not self.doubts

    @property
    def changed(self) -> bool:
        """Do coordinates that the encoder leaves at zero hold numbers?"""
        return self.unused > UNUSED_LIMIT  # NaN is no change

    def __str__(self) -> str:
        said = f"These vectors can come from {self.encoder}"
        if not self.plausible:
            said = f"These vectors do not look like those of {self.encoder}: {'; '.join(self.doubts)}"
        elif self.changed:
            said += ", changed afterwards, as by noise: coordinates that it never uses hold numbers"
            said += ", and the recovered texts lead back all the same"
        return (
            f"{said}. {self.n} vectors looked at: {self.unit_share:.0%} of length 1; mean vector correlates "
            f"{self.likeness:.2f} with the encoder's; recovered texts lead back with a median cosine of "
            f"{self.loop:.2f} (to another vector: {self.control:.2f})."
        )


def check_dimension(dim: int, expected: int) -> None:
    """Raise `InputError` for vectors of a dimension that this checkpoint does not invert; names what exists."""
    if dim != expected:
        hint, known = "no encoder here makes such vectors", "; ".join(f"{size}: {name}" for size, name in KNOWN.items())
        if dim in KNOWN:
            hint = f"open a checkpoint for {KNOWN[dim]} with --checkpoint"
        found = f"the vectors have {dim} dimensions, this checkpoint inverts {expected}"
        raise InputError(f"{found}; {hint}. Known: {known}")


def check_origin(inverter: Inverter, vectors: np.ndarray, *, num_steps: int = 4) -> Origin:
    """Look at 64 at most of the finite, non-zero vectors [n, d]. Raises `InputError` for another dimension."""
    check_dimension(vectors.shape[1], inverter.config.embedding_cond_dim)
    vectors = vectors[np.linspace(0, len(vectors) - 1, min(SAMPLE, len(vectors))).astype(int)]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows, unit_share = vectors / lengths, float((np.abs(lengths - 1) < 0.01).mean())
    seen = *_against_training(inverter, rows), *_round_trip(inverter, rows, num_steps)
    return Origin(inverter.config.encoder_model, len(rows), unit_share, *seen)


def _against_training(inverter: Inverter, rows: np.ndarray) -> tuple[float, float]:
    model = inverter.model
    if not model.config.standardize:
        return float("nan"), float("nan")
    mean, std = (value.float().cpu().numpy() for value in (model.embedding_mean, model.embedding_std))
    never = std < 0.2 * np.median(std)
    unused = float(np.abs(rows[:, never]).max()) if never.any() else float("nan")
    return unused, float(np.corrcoef(rows.mean(axis=0)[~never], mean[~never])[0, 1])


def _round_trip(inverter: Inverter, rows: np.ndarray, num_steps: int) -> tuple[float, float]:
    texts = inverter.invert(rows, num_steps=num_steps, keep_trajectories=False).texts
    again = reencoded(texts, inverter.encoder.encode, rows.shape[1])
    again, rows = again[again.any(axis=1)], rows[again.any(axis=1)]
    if len(again) < 2:
        return 0.0, 0.0
    return tuple(float(np.median(cosine(again, np.roll(rows, shift, axis=0)))) for shift in (0, 1))
