"""Source: where stored vectors are, as a stream of chunks. Files and databases look the same from here.

A source is read once from front to back; chunks that are not wanted (done before, or another process's) are passed over
without being parsed. Nothing but ids and vectors is read.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invlib.errors import InputError, first_line


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


class Source:
    """Stored vectors. A kind of store is a subclass that can `look` into one and `read` a page of its rows.

    Where rows only come from front to back, it also cuts them into `pages`.
    """

    count: int | None = None  # None where only reading it all tells
    state: str = ""  # of a file, its size and when it was written, by which a changed one is told

    def __init__(self, path: Path, collection: str | None = None):
        self.path, self.collection, self.name = path, collection, str(path)
        with _told(f"{path} cannot be read as {path.suffix}" if path.is_file() else f"{path} cannot be read"):
            self.look()

    def look(self) -> None:
        """Open the store once, for its `count` where it tells, and for what its rows are read with."""

    def pages(self, size: int) -> Iterator[Any]:
        """What `read` takes for every `size` rows (the last page may be shorter), in order: the numbers of the rows."""
        return (range(self.count)[start : start + size] for start in range(0, self.count, size))

    def read(self, page: Any) -> tuple[Iterable | None, Iterable]:
        """Ids (None: the store has none) and rows of numbers of a page; a row or a number may be None: absent."""
        return None, page

    def chunks(self, size: int, wanted: Callable[[int], bool] = lambda number: True) -> Iterator[Chunk]:
        """The wanted chunks of `size` rows each (the last may be shorter), in order.

        Raises `InputError`, with the row, for rows of unequal length and for text in place of numbers.
        """
        dim = None
        for number, page in enumerate(self.pages(size)):
            if wanted(number):
                with _told(f"{self.name} cannot be read"):
                    ids, rows = self.read(page)
                rows, start = list(rows), number * size
                dim = next((len(values) for values in rows if values is not None), None) if dim is None else dim
                names = enumerate([None] * len(rows) if ids is None else ids, start)
                vectors = _stacked(rows, 1 if dim is None else dim, self.name, start)
                yield Chunk(number, start, [str(row if name is None else name) for row, name in names], vectors)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever a library raises, in one line; databases in Rust raise classes of their own, and bare ones."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"reading this store needs {error.name}; run: pip install {error.name}") from None
    except Exception as error:
        said = first_line(error).partition(". If you trust")[0]  # numpy's advice is to run the file's code
        hint = "is it damaged, or of another version?"
        if "locked" in said:
            hint = "another program holds it: close that first"
        raise InputError(f"{what} ({said}); {hint}") from None


def is_number(value: Any) -> bool:
    """Can the value, perhaps a text, be read as a number?"""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


@np.errstate(over="ignore")  # what fp32 cannot hold is told as infinite, with its row
def _stacked(rows: list, dim: int, where: str, start: int) -> np.ndarray:
    """Rows of numbers as float32 [n, dim]; a row or a number that is absent is NaN."""
    vectors = np.full((len(rows), dim), np.nan, np.float32)
    for row, values in enumerate(rows):
        place = f"{where} row {start + row}"
        if values is not None and len(values) != dim:
            raise InputError(f"{place} has {len(values)} numbers, those before it {dim}; every row needs as many")
        try:
            vectors[row] = np.nan if values is None else values
        except (TypeError, ValueError):
            wrong = next(value for value in values if value is not None and not is_number(value))
            raise InputError(f"{place} holds {str(wrong)[:40]!r} in place of a number") from None
    return vectors
