"""Source: where stored vectors are, as a stream of chunks. Files and databases look the same from here.

A source is read once from front to back; chunks that are not wanted (done before, or another process's) are passed over
without being parsed. Nothing but ids and vectors is read.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from invlib.errors import InputError


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
    """Stored vectors. A kind of store is a subclass that opens one and can `read` some of its rows.

    Where they only come from front to back, it also cuts them into `pages`.

    name: where they are. count: how many there are, None where only reading it all tells. state: of a file, its size
    and when it was written, by which a changed one is told.
    """

    name: str
    count: int | None = None
    state: str = ""

    def pages(self, size: int) -> Iterator[Any]:
        """What `read` takes for every `size` rows (the last page may be shorter), in order: the numbers of the rows."""
        rows = range(self.count)
        return (rows[start : start + size] for start in rows[::size])

    @abstractmethod
    def read(self, page: Any, start: int) -> tuple[Iterable | None, Iterable]:
        """Ids (None: the store has none) and rows of numbers of a page; `start` is the number of its first row.

        A row of None holds no vector. Numbers and lengths are checked in `chunks`.
        """

    def chunks(self, size: int, wanted: Callable[[int], bool] = lambda number: True) -> Iterator[Chunk]:
        """The wanted chunks of `size` rows each (the last may be shorter), in order.

        Raises `InputError`, with the row, for rows of unequal length and for text in place of numbers.
        """
        dim = None
        for number, page in enumerate(self.pages(size)):
            if not wanted(number):
                continue
            start = number * size
            ids, rows = self.read(page, start)
            rows = list(rows)
            if dim is None:
                dim = next((len(values) for values in rows if values is not None), None)
            with np.errstate(over="ignore"):  # what fp32 cannot hold is told as infinite, with its row
                vectors = _stacked(rows, 1 if dim is None else dim, self.name, start)
            names = enumerate([None] * len(rows) if ids is None else ids, start)
            yield Chunk(number, start, [str(row if name is None else name) for row, name in names], vectors)


def check_array(shape: tuple[int, ...], dtype: np.dtype, where: str) -> None:
    """Raise `InputError` for an array that is no table of real numbers."""
    if len(shape) != 2 or dtype.kind not in "fiu":
        raise InputError(
            f"{where} holds {dtype} of shape {list(shape)}; expected numbers of shape [vectors, dimensions]"
        )


def is_number(value: Any) -> bool:
    """Can the value, perhaps a text, be read as a number?"""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _stacked(rows: list, dim: int, where: str, start: int) -> np.ndarray:
    """Rows of numbers as float32 [n, dim]; a row or a number that is absent is NaN."""
    vectors = np.full((len(rows), dim), np.nan, np.float32)
    for row, values in enumerate(rows):
        if values is None:
            continue
        told = f"{where} row {start + row}"
        if len(values) != dim:
            raise InputError(f"{told} has {len(values)} numbers, those before it {dim}; every row needs as many")
        try:
            vectors[row] = values
        except (TypeError, ValueError):
            wrong = next(value for value in values if value is not None and not is_number(value))
            raise InputError(f"{told} holds {str(wrong)[:40]!r} in place of a number") from None
    return vectors
