"""Source: where stored vectors are, as a stream of chunks. Files, databases and servers look the same from here.

A source is only ever read, from front to back; chunks that are not wanted (done before, or another process's) are
passed over, unparsed where the store allows it. A row without a usable vector is told why; the rest goes on.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from invlib.door.files import PASSED_ON
from invlib.errors import InputError, first_line
from invlib.sources.cells import Problem, read_cell

PEEK = 256  # rows looked at in one go, until a vector is among them
EXTREME = 1e18  # of an entry or its inverse: beyond it float32 cannot hold the square


@dataclass(frozen=True)
class Page:
    """Rows as a store gives them; ids and metadata may be absent as a whole."""

    cells: Sequence[Any] | np.ndarray  # one a row, for `read_cell`; or numbers [n, d]
    ids: Sequence[Any] | None = None
    metadata: Sequence[dict] | None = None  # what stands beside a vector: documents, labels, dates


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a source."""

    number: int  # 0, 1, …
    start: int  # row of its first vector
    ids: list[str]  # what the store calls them; the row number where it has no name
    vectors: np.ndarray  # float32 [n, d]; NaN where there is a problem
    problems: list[str | None]  # why a row cannot be used
    lengths: np.ndarray  # how many numbers each row has, [n]; 0: absent or unreadable
    metadata: Sequence[dict] = field(repr=False, default=())

    def finite(self) -> np.ndarray:
        """Which rows can be inverted, bool [n]."""
        return np.array([problem is None for problem in self.problems], bool)


class Source:
    """Stored vectors. A kind of store is a subclass that can `look` into one and `read` a page of its rows.

    Where rows only come from front to back, it also cuts them into `pages`; what stands for a page has a length.
    """

    count: int | None = None  # None where only reading it all tells
    note: str = ""  # what was chosen among several, for a person
    dim: int | None = None  # how many numbers a row should have: what was asked for, else that of the first rows

    def __init__(
        self, path: str | Path, collection: str | None = None, column: str | None = None, dim: int | None = None
    ):
        """collection, column: which one, where there are several. dim: what is looked for, where it helps to choose."""
        self.path, self.collection, self.column, self.wanted_dim = path, collection, column, dim
        self.name = re.sub(r"(://[^:/@]*):[^@/]*@", r"\1@", str(path))  # a password is in no report

    def opened(self) -> "Source":
        """The source, looked into; raises `InputError` for one that holds no vectors, or cannot be read."""
        with told(f"{self.name} cannot be read"):
            self.look()
            self.dim = self._first_dim()
        return self

    @property
    def evidence(self) -> str | Path:
        """The file or folder whose bytes must stay as they are."""
        return self.path

    def look(self) -> None:
        """Open the store once, for its `count` where it tells, and for what its rows are read with."""

    def pages(self, size: int) -> Iterator[Any]:
        """What `read` takes for every `size` rows (the last of a part may be shorter), in order: rows by number."""
        return (range(self.count)[start : start + size] for start in range(0, self.count, size))

    def read(self, page: Any) -> Page:
        """The rows of a page."""
        raise NotImplementedError

    def chunks(self, size: int, wanted: Callable[[int], bool] = lambda number: True) -> Iterator[Chunk]:
        """The wanted chunks of up to `size` rows, in order. Raises `InputError` where the store cannot be read on."""
        start, pages = 0, enumerate(self.pages(size))
        while True:
            with told(f"{self.name} cannot be read"):
                number, page = next(pages, (None, None))
                read = self.read(page) if number is not None and wanted(number) else None
            if number is None:
                return
            if read is not None:
                yield self._chunk(number, start, read)
            start += len(page)

    def _first_dim(self) -> int | None:
        """That of most rows among the first that have any; the wanted one where some have it."""
        for page in self.pages(PEEK):
            lengths = [len(vector) for vector in map(_readable, self.read(page).cells) if vector is not None]
            if lengths:
                return self.wanted_dim if self.wanted_dim in lengths else max(set(lengths), key=lengths.count)
        return None

    def _chunk(self, number: int, start: int, page: Page) -> Chunk:
        rows = range(start, start + len(page.cells))
        ids = rows if page.ids is None else page.ids
        names = [str(row if name is None else name) for row, name in zip(rows, ids, strict=True)]
        vectors, problems, lengths = _stacked(page.cells, self.dim or 1)
        return Chunk(number, start, names, vectors, problems, lengths, page.metadata or ())


@contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever a library raises, in one line, with what a person who holds a store can do about it."""
    try:
        yield
    except PASSED_ON:
        raise
    except ImportError as error:
        name = (error.name or "the library").partition(".")[0]
        raise InputError(f"reading this store needs {name}; run: pip install {name}") from None
    except UnicodeDecodeError:
        raise InputError(f"{what}: it is not UTF-8 text; save it again as UTF-8") from None
    except BaseException as error:  # databases in Rust panic, which is no Exception
        said = first_line(error).partition(". If you trust")[0]  # numpy's advice is to run the file's code
        hint = "is it damaged, or of another version?"
        if "locked" in said:
            hint = "another program holds it: close that first"
        raise InputError(f"{what} ({said}); {hint}") from None


def cut(rows: Any, size: int) -> Iterator[list]:
    """Rows in lists of `size`, the last one shorter."""
    rows = iter(rows)
    return iter(lambda: list(islice(rows, size)), [])


def _readable(cell: Any) -> np.ndarray | None:
    try:
        return read_cell(cell)
    except Problem:
        return None


@np.errstate(over="ignore")
def _stacked(cells: Sequence[Any] | np.ndarray, dim: int) -> tuple[np.ndarray, list[str | None], np.ndarray]:
    """Vectors float32 [n, dim], problems [n], lengths [n]."""
    vectors = np.full((len(cells), dim), np.nan, np.float32)
    problems, lengths, rows = [None] * len(cells), np.zeros(len(cells), int), np.arange(len(cells))
    if isinstance(cells, np.ndarray) and cells.shape[1:] == (dim,):  # a million plain rows are no work
        plain = cells.astype(np.float32)
        top = np.abs(plain).max(axis=1)
        usual = (top > 1 / EXTREME) & (top < EXTREME)
        vectors[usual], lengths[usual], rows = plain[usual], dim, rows[~usual]
    for row in rows:
        try:
            found = read_cell(cells[row])
        except Problem as problem:
            problems[row] = str(problem)
            continue
        lengths[row] = 0 if found is None else len(found)
        if found is None:
            problems[row] = "no vector"
        elif len(found) != dim:
            problems[row] = f"has {len(found)} numbers, others {dim}"
        else:
            vectors[row], problems[row] = _scaled(found)
    return vectors, problems, lengths


def _scaled(found: np.ndarray) -> tuple[np.ndarray, str | None]:
    """A vector that float32 can hold, or why there is none; only its direction counts."""
    top = np.abs(found.astype(np.float64)).max()
    if not np.isfinite(top):
        return np.full(len(found), np.nan), "NaN or infinite entries"
    if top == 0:
        return np.full(len(found), np.nan), "all zeros"
    if not 1 / EXTREME < top < EXTREME:
        return np.ldexp(found.astype(np.float64), -int(np.frexp(top)[1])), None
    return found, None
