"""Origin: can these vectors come from the encoder, and which of them can be read? Asked of every row.

A row is read where its text, encoded again, leads back to it, and further than to the other rows. What the encoder
leaves at zero tells the others apart: numbers there are another encoder's, or came afterwards, as noise does. The
limits are calibrated on stores of many domains, of other encoders, and changed ones; notebook 08 shows the errors.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from invlib.audit.decoding import STEPS, decoded, ways_back
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import share_interval

LOOP = 0.28  # cosine of a row's text, encoded again, to its vector
MARGIN = 0.08  # how much further that leads than to the other rows, on average
UNUSED = 2e-3  # largest entry, of a unit vector, in a coordinate that the encoder leaves at 0
PLAUSIBLE = 1 / 3  # share of rows that are read, from which on a store can come from the encoder
SOME = 0.05  # share of rows from which on they are mentioned
READ, CHANGED, FOREIGN, UNREAD = "read", "read, changed since", "another encoder's, or changed", "not read"
KNOWN = {384: "minilm (all-MiniLM-L6-v2), bundled", 1024: "Qwen/Qwen3-Embedding-0.6B, see configs/v2_qwen3.yaml"}


@dataclass(frozen=True)
class Rows:
    """What speaks for and against each of n rows."""

    loop: np.ndarray  # cosine of the text, encoded again, to the vector
    control: np.ndarray  # the same to other rows, on average
    changed: np.ndarray  # do coordinates that the encoder never uses hold numbers?

    @property
    def read(self) -> np.ndarray:
        """Which rows are read, bool [n]."""
        return (self.loop >= LOOP) & (self.loop - self.control >= MARGIN)

    @property
    def verdicts(self) -> np.ndarray:
        """The verdict of each row."""
        ways = [self.read & ~self.changed, self.read, self.changed]
        return np.select(ways, [READ, CHANGED, FOREIGN], UNREAD).astype(object)


@dataclass(frozen=True)
class Others:
    """The sample that rows are held against: its unit vectors' sum [d] and their number."""

    total: np.ndarray
    n: int
    includes: bool  # are the rows that are judged among them?

    def control(self, back: np.ndarray, loop: np.ndarray) -> np.ndarray:
        """Mean cosine of texts' vectors [n, d] to the others; 0 where there is no other."""
        own = int(self.includes)
        return (back @ self.total - own * loop) / max(1, self.n - own)


@dataclass(frozen=True)
class Origin:
    """What a sample says about where the vectors come from."""

    encoder: str
    unit_share: float  # share of vectors of length 1 ± 1 %
    rows: Rows
    others: Others

    @property
    def n(self) -> int:
        return len(self.rows.loop)

    @cached_property
    def share(self) -> tuple[float, float, float]:
        """Share of rows that are read, with its 95 % interval."""
        return share_interval(self.rows.read)

    @cached_property
    def foreign(self) -> tuple[float, float, float]:
        """Share of rows that are another encoder's or changed beyond reading, with its 95 % interval."""
        return share_interval(self.rows.verdicts == FOREIGN)

    @property
    def plausible(self) -> bool:
        return self.share[0] >= PLAUSIBLE

    @property
    def changed(self) -> bool:
        """Do coordinates that the encoder leaves at zero hold numbers, in most rows?"""
        return bool(self.rows.changed.mean() > 0.5)

    @property
    def mixed(self) -> bool:
        """Are there rows that are read beside rows of another kind?"""
        return bool(self.rows.read.any() and self.foreign[0] >= SOME and not self.rows.changed.all())

    def __str__(self) -> str:
        verdicts = pd.Series(self.rows.verdicts).value_counts()
        counts = ", ".join(f"{count} {kind}" for kind, count in verdicts.items())
        loop, control = np.median(self.rows.loop), np.median(self.rows.control)
        return (
            f"{self._said()}. {self.n} rows, sampled across the whole source: {counts}; {self.unit_share:.0%} of "
            f"length 1; recovered texts lead back with a median cosine of {loop:.2f} (to other rows: {control:.2f})."
        )

    def _said(self) -> str:
        read, other = (f"{own[0]:.0%} ({own[1]:.0%}–{own[2]:.0%})" for own in (self.share, self.foreign))
        rest = ""
        if self.mixed:
            rest = f"; {other} hold numbers where it never has any: another encoder's, or changed beyond reading"
        if not self.plausible:
            there = " and say something" if self.share[1] >= SOME or self.mixed else ""
            since = "; coordinates that it never uses hold numbers, as after a rotation, a projection or noise"
            rest = rest or since * self.changed
            return (
                f"These vectors do not look like those of {self.encoder}: {read} of the rows can be read{there}{rest}"
            )
        since = ", changed afterwards, as by noise: coordinates that it never uses hold numbers" * self.changed
        if self.mixed:
            return f"A mixed store: {read} of the rows can come from {self.encoder}{since}{rest}"
        whole = "" if self.share[0] >= 1 - SOME else "; the others are unlike what this checkpoint reads"
        return f"These vectors can come from {self.encoder}{since}: {read} of the rows can be read{whole}"


def check_dimension(dim: int, expected: int) -> None:
    """Raise `InputError` for vectors of a dimension that this checkpoint does not invert; says what they may be."""
    if dim == expected:
        return
    known = "; ".join(f"{size}: {name}" for size, name in KNOWN.items())
    hints = {
        expected + 1: "one is probably an id or an index: name the column of vectors with --column",
        expected // 8: "probably bits, eight in a byte; they are unpacked where they are whole numbers",
        1536: "OpenAI's text-embedding-3-small or ada-002 have as many; or shorter ones were padded with zeros",
        3072: "OpenAI's text-embedding-3-large has as many",
        **dict.fromkeys([768], "BERT-base, E5-base, BGE-base and many others have as many"),
    }
    hint = hints.get(dim, "no encoder here makes such vectors")
    if dim in KNOWN:
        hint = f"open a checkpoint for {KNOWN[dim]} with --checkpoint"
    elif dim not in hints and dim < expected and dim % 64 == 0:
        hint = f"probably cut to the first {dim} of {expected} or more (Matryoshka, truncate_dim)"
    found = f"the vectors have {dim} dimensions, this checkpoint inverts {expected}"
    raise InputError(f"{found}; {hint}. Known: {known}")


def check_origin(inverter: Inverter, vectors: np.ndarray, *, num_steps: int = STEPS, is_exact: bool = True) -> Origin:
    """Look at vectors [n, d], finite and not zero: a sample across the whole store.

    is_exact: False where zeros were not kept, as by one bit a coordinate. Raises `InputError` for another dimension.
    """
    check_dimension(vectors.shape[1], inverter.config.embedding_cond_dim)
    lengths, own = np.linalg.norm(vectors.astype(np.float64), axis=1), unit(vectors)
    others = Others(own.sum(axis=0), len(own), includes=True)
    rows = judged(inverter, own, ways_back(inverter, own, decoded(inverter, own, num_steps)), others, is_exact)
    return Origin(inverter.config.encoder_model, float((np.abs(lengths - 1) < 0.01).mean()), rows, others)


def judged(inverter: Inverter, own: np.ndarray, back: np.ndarray, others: Others, is_exact: bool = True) -> Rows:
    """Rows from unit vectors and their texts' vectors, both [n, d]."""
    never = unused(inverter) & is_exact
    loop = (back * own).sum(axis=1)
    return Rows(loop, others.control(back, loop), np.abs(own[:, never]).max(axis=1, initial=0) > UNUSED)


def unused(inverter: Inverter) -> np.ndarray:
    """Which coordinates the encoder leaves at zero, as far as the checkpoint knows, bool [d]."""
    if not inverter.config.standardize:
        return np.zeros(inverter.config.embedding_cond_dim, bool)
    std = inverter.model.embedding_std.float().cpu().numpy()
    return std < 0.2 * np.median(std)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; none may be zero."""
    return (vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
