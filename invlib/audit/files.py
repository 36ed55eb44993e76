"""Files of vectors: .npy, .npz, .parquet, .jsonl, .csv. None of them is ever held in memory as a whole."""

import csv
import json
import zipfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from invlib.audit.source import Source, is_number
from invlib.errors import InputError

VECTOR_NAMES = ("embedding", "embeddings", "vector", "vectors", "values")
LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)


class NpyFile(Source):
    """One array [n, d]; a memory map, so a chunk costs what it holds."""

    def look(self) -> None:
        self._array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        self.count = _counted(self._array.shape, self._array.dtype, self.name)

    def read(self, page: range) -> tuple[None, np.ndarray]:
        return None, np.array(self._array[page.start : page.stop])


class NpzFile(Source):
    """The one array [n, d] of an archive, or the one called embeddings or vectors; read as a stream, packed or not."""

    def look(self) -> None:
        with zipfile.ZipFile(self.path) as archive:
            members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            self._member = _one_of(members, f"{self.path}, its arrays") + ".npy"
            with archive.open(self._member) as file:
                self.count = _counted(*self._header(file), f"{self.path}, array {self._member}")

    def pages(self, size: int) -> Iterator[np.ndarray]:
        with zipfile.ZipFile(self.path) as archive, archive.open(self._member) as file:
            (self.count, dim), dtype = self._header(file)
            for rows in super().pages(size):
                yield np.frombuffer(file.read(len(rows) * dim * dtype.itemsize), dtype).reshape(len(rows), dim)

    def _header(self, file: Any) -> tuple[tuple[int, ...], np.dtype]:
        np.lib.format.read_magic(file)
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        if by_column:
            raise InputError(f"{self.name}: save it again with numpy.savez, in row order")
        return shape, dtype


class ParquetFile(Source):
    """A column of lists called embedding, vector, … (or the only one), else all columns of numbers; `id` names rows."""

    def look(self) -> None:
        with pq.ParquetFile(self.path) as file:
            self.count, self._columns = file.metadata.num_rows, vector_columns(file.schema_arrow, self.name)

    def pages(self, size: int) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:  # batches are of `size` but the last, across row groups too
            yield from file.iter_batches(batch_size=size, columns=self._columns)

    def read(self, page: pa.RecordBatch) -> tuple[list | None, np.ndarray]:
        return arrow_rows(page)


class JsonlFile(Source):
    """One vector a line: a list, or an object with `embedding` (or vector, values, …) and perhaps `id`."""

    def pages(self, size: int) -> Iterator[list[tuple[int, str]]]:
        return _pages(enumerate(filter(str.strip, _lines(self.path))), size)

    def read(self, page: list[tuple[int, str]]) -> tuple[tuple, tuple]:
        return tuple(zip(*(self._entry(*numbered) for numbered in page), strict=True))

    def _entry(self, row: int, line: str) -> tuple[Any, list | None]:
        try:
            found = json.loads(line)
        except ValueError:
            raise InputError(f"{self.name} row {row} is not JSON; expected a list of numbers a line") from None
        named = found if isinstance(found, dict) else {"vector": found}
        vector = next((named[name] for name in VECTOR_NAMES if name in named), "nothing")
        if not isinstance(vector, list | None):
            raise InputError(f"{self.name} row {row} has no list of numbers, nor one under {', '.join(VECTOR_NAMES)}")
        return named.get("id"), vector


class CsvFile(Source):
    """One vector a line, numbers separated by commas; a header line is allowed, and a column `id` names the rows.

    The header may be that of pandas: the columns' numbers, and nothing above the rows' names.
    """

    def look(self) -> None:
        first = next(csv.reader(_lines(self.path)), [])
        names = ["id", *first[1:]] if first and not first[0].strip() else first
        columns = [name for name in names if name != "id"]
        is_counted = len(columns) > 1 and columns == [str(number) for number in range(len(columns))]
        self._header = int(is_counted or not any(map(is_number, first)))  # how many lines it has
        self._id = names.index("id") if self._header and "id" in names else None

    def pages(self, size: int) -> Iterator[list[list[str]]]:
        return _pages(filter(None, islice(csv.reader(_lines(self.path)), self._header, None)), size)

    def read(self, page: list[list[str]]) -> tuple[list | None, list[list[str | None]]]:
        ids = None if self._id is None else [cells.pop(self._id) if self._id < len(cells) else None for cells in page]
        return ids, [[cell if cell.strip() else None for cell in cells] for cells in page]


FILES = {".npy": NpyFile, ".npz": NpzFile, ".parquet": ParquetFile, ".jsonl": JsonlFile, ".csv": CsvFile}


def vector_columns(schema: pa.Schema, where: str) -> list[str]:
    """What to ask an Arrow table for: its vectors, a column of lists or all columns of numbers, and `id`."""
    fields = [field for field in schema if field.name != "id"]
    lists = [field.name for field in fields if isinstance(field.type, LISTS)]
    numbers = [field.name for field in fields if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)]
    vectors = [_one_of(lists, f"{where}, its columns of lists")] if lists else numbers
    if not vectors:
        raise InputError(f"{where} has no column of numbers or lists of numbers; it has {', '.join(schema.names)}")
    return [name for name in schema.names if name in {"id", *vectors}]


def arrow_rows(table: pa.RecordBatch | pa.Table) -> tuple[list | None, np.ndarray]:
    """Ids and rows of what was asked for by `vector_columns`."""
    ids = table.column("id").to_pylist() if "id" in table.schema.names else None
    vectors = table.select([name for name in table.schema.names if name != "id"])
    if isinstance(vectors.schema.types[0], LISTS):
        return ids, vectors.column(0).to_numpy(zero_copy_only=False)
    return ids, vectors.to_pandas().to_numpy()


def _pages(rows: Iterable, size: int) -> Iterator[list]:
    rows = iter(rows)
    return iter(lambda: list(islice(rows, size)), [])


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, their ends kept. Raises `InputError` where it is not UTF-8."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            yield from file
        except UnicodeDecodeError:
            raise InputError(f"{path} is not UTF-8 text; save it again as UTF-8") from None


def _counted(shape: tuple[int, ...], dtype: np.dtype, where: str) -> int:
    if len(shape) != 2 or dtype.kind not in "fiu":
        found = f"{where} holds {dtype} of shape {list(shape)}"
        raise InputError(f"{found}; expected numbers of shape [vectors, dimensions]")
    return shape[0]


def _one_of(names: list[str], where: str) -> str:
    known = [name for name in names if name in VECTOR_NAMES]
    if len(names) == 1 or len(known) == 1:
        return (known or names)[0]
    raise InputError(f"{where}: {', '.join(names) or 'none'}; expected one, or one called {' or '.join(VECTOR_NAMES)}")
