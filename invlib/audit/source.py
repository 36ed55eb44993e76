"""Source: where stored vectors are, as a stream of chunks. Files and databases look the same from here.

A source is read once from front to back; chunks that are not wanted (done before, or another process's) are passed over
without being parsed where the format allows it. Nothing but ids and vectors is read.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from invlib.errors import InputError

Wanted = Callable[[int], bool]


@dataclass(frozen=True)
class Chunk:
    """Consecutive vectors of a source."""

    number: int  # 0, 1, …; chunk k begins at row k · size
    start: int  # row of its first vector
    ids: list[str]  # what the store calls them; the row number where it has no name
    vectors: np.ndarray  # float32 [n, d]; NaN rows are still in it

    def finite(self) -> np.ndarray:
        """Which rows can be inverted, bool [n]: all entries finite, and not all of them 0."""
        return np.isfinite(self.vectors).all(axis=1) & self.vectors.any(axis=1)


class Source(ABC):
    """Stored vectors. `name` says where they are; `count` how many there are, None where only reading it all tells."""

    name: str
    count: int | None = None
    state: str = ""  # of a file: its size and when it was written, by which a changed one is told

    @abstractmethod
    def chunks(self, size: int, wanted: Wanted = lambda number: True) -> Iterator[Chunk]:
        """The wanted chunks of `size` rows each (the last may be shorter), in order.

        Raises `InputError`, with the row, for rows of unequal length and for text in place of numbers.
        """


def as_vectors(values: Any, where: str) -> np.ndarray:
    """Numbers as float32 [n, d], or an `InputError` that says `where` they are wrong."""
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(
            f"{where} holds {array.dtype} of shape {list(array.shape)}; expected numbers of shape [vectors, dimensions]"
        )
    return array.astype(np.float32)


def row_chunks(
    rows: Iterator[tuple[str | None, Any]],
    size: int,
    wanted: Wanted,
    parse: Callable[[Any, int], Sequence[float] | None],
) -> Iterator[Chunk]:
    """Chunks of rows that come one by one, as (id, unparsed); rows of unwanted chunks are not parsed.

    A row parsed to None holds no vector: NaN, so that it is counted as broken.
    """
    ids: list[str] = []
    parsed: list[Sequence[float] | None] = []
    dim, row = None, -1
    for row, (name, raw) in enumerate(rows):
        if wanted(row // size):
            values = parse(raw, row)
            if dim is None and values is not None:
                dim = len(values)
            if values is not None and len(values) != dim:
                raise InputError(f"row {row} has {len(values)} numbers, those before it {dim}; every row needs as many")
            ids.append(str(row) if name is None else name)
            parsed.append(values)
        if parsed and (row + 1) % size == 0:
            yield _chunk(row // size, size, ids, parsed, dim)
            ids, parsed = [], []
    if parsed:
        yield _chunk(row // size, size, ids, parsed, dim)


def _chunk(number: int, size: int, ids: list[str], parsed: list[Sequence[float] | None], dim: int | None) -> Chunk:
    absent = [float("nan")] * (dim or 1)
    rows = [absent if values is None else values for values in parsed]
    return Chunk(number, number * size, ids, np.array(rows, np.float32))
