"""Files of vectors: .npy, .npz, .parquet, .jsonl, .csv. None of them is ever held in memory as a whole."""

import csv
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from invlib.audit.source import Chunk, Source, Wanted, as_vectors, row_chunks
from invlib.errors import InputError

VECTOR_NAMES = ("embedding", "embeddings", "vector", "vectors", "values")


class NpyFile(Source):
    """One array [n, d]; a memory map, so a chunk costs what it holds."""

    def __init__(self, path: Path):
        self.name = str(path)
        try:
            self._array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(
                f"{path} cannot be read as .npy: {_first_line(error).partition('. If you trust')[0]}"
            ) from None
        as_vectors(self._array[:0], self.name)
        self.count = len(self._array)

    def chunks(self, size: int, wanted: Wanted = lambda number: True) -> Iterator[Chunk]:
        for number in range(-(-self.count // size)):
            if wanted(number):
                start = number * size
                with np.errstate(over="ignore"):  # what fp32 cannot hold is told as infinite, with its row
                    vectors = np.array(self._array[start : start + size], np.float32)
                yield Chunk(number, start, [str(row) for row in range(start, start + len(vectors))], vectors)


class NpzFile(Source):
    """The one array [n, d] of an archive, or the one called embeddings or vectors; read as a stream, packed or not."""

    def __init__(self, path: Path):
        self.name, self._path = str(path), path
        try:
            with zipfile.ZipFile(path) as archive:
                members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{path} cannot be read as .npz: {_first_line(error)}") from None
        self._member = _one_of(members, f"{path}, its arrays")
        with zipfile.ZipFile(path) as archive, archive.open(f"{self._member}.npy") as file:
            shape, _, dtype = self._header(file)
        as_vectors(np.empty((0, *shape[1:]), dtype), f"{path}, array {self._member!r}")
        self.count = shape[0]

    def chunks(self, size: int, wanted: Wanted = lambda number: True) -> Iterator[Chunk]:
        with zipfile.ZipFile(self._path) as archive, archive.open(f"{self._member}.npy") as file:
            (count, dim), _, dtype = self._header(file)
            for number in range(-(-count // size)):
                start = number * size
                rows = min(size, count - start)
                raw = file.read(rows * dim * dtype.itemsize)
                if len(raw) < rows * dim * dtype.itemsize:
                    raise InputError(f"{self.name} ends in row {start}; it is truncated: fetch it again")
                if wanted(number):
                    vectors = np.frombuffer(raw, dtype).reshape(rows, dim).astype(np.float32)
                    yield Chunk(number, start, [str(row) for row in range(start, start + rows)], vectors)

    def _header(self, file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(file)
        if by_column or dtype.hasobject:
            raise InputError(f"{self.name}: save it again with numpy.savez, in row order and as numbers")
        return shape, by_column, dtype


class ParquetFile(Source):
    """A column of lists called embedding, vector, … (or the only one of lists), else all columns of numbers.

    A column `id` names the rows.
    """

    def __init__(self, path: Path):
        self.name, self._path = str(path), path
        try:
            with pq.ParquetFile(path) as file:
                schema, self.count = file.schema_arrow, file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as .parquet: {_first_line(error)}") from None
        lists = [field.name for field in schema if _is_list(field.type)]
        numbers = [
            f.name for f in schema if f.name != "id" and (pa.types.is_floating(f.type) or pa.types.is_integer(f.type))
        ]
        if not lists and not numbers:
            raise InputError(f"{path} has no column of numbers or lists of numbers; it has {', '.join(schema.names)}")
        self._list = _one_of(lists, f"{path}, its columns of lists") if lists else None
        self._columns = [self._list] if lists else numbers
        self._id = ["id"] if "id" in schema.names else []

    def chunks(self, size: int, wanted: Wanted = lambda number: True) -> Iterator[Chunk]:
        with pq.ParquetFile(self._path) as file:
            batches = file.iter_batches(batch_size=size, columns=self._id + self._columns)
            for number, batch in enumerate(batches):  # all of `size` but the last, across row groups too
                if wanted(number):
                    start = number * size
                    ids = [str(row) for row in range(start, start + len(batch))]
                    if self._id:
                        ids = [str(name) for name in batch.column("id").to_pylist()]
                    yield Chunk(number, start, ids, self._vectors(batch, start))

    def _vectors(self, batch: pa.RecordBatch, start: int) -> np.ndarray:
        if self._list is None:
            columns = [batch.column(name).to_numpy() for name in self._columns]
            return as_vectors(np.stack(columns, axis=1), self.name)
        return list_column(batch.column(self._list), start, self.name)


class JsonlFile(Source):
    """One vector a line: a list, or an object with `embedding` (or vector, values, …) and perhaps `id`."""

    def __init__(self, path: Path):
        self.name, self._path = str(path), path

    def chunks(self, size: int, wanted: Wanted = lambda number: True) -> Iterator[Chunk]:
        lines = ((None, line) for line in _lines(self._path) if line.strip())
        for chunk in row_chunks(lines, size, wanted, self._parse):
            ids = [self._ids.pop(row, name) for row, name in enumerate(chunk.ids, chunk.start)]
            yield Chunk(chunk.number, chunk.start, ids, chunk.vectors)

    def _parse(self, line: str, row: int) -> list[float] | None:
        try:
            found = json.loads(line)
        except ValueError:
            raise InputError(f"{self.name} row {row} is not JSON; expected a list of numbers a line") from None
        if isinstance(found, dict):
            if "id" in found:
                self._ids[row] = str(found["id"])
            name = next((name for name in VECTOR_NAMES if name in found), "")
            if name and found[name] is None:
                return None
            found = found.get(name)
        return _numbers(found, self.name, row)

    @property
    def _ids(self) -> dict[int, str]:
        return self.__dict__.setdefault("_names", {})


class CsvFile(Source):
    """One vector a line, numbers separated by commas; a header line is allowed, and a column `id` names the rows.

    The header may be that of pandas: the columns' numbers, and nothing above the rows' names.
    """

    def __init__(self, path: Path):
        self.name, self._path = str(path), path
        first = next(csv.reader(_lines(path)), [])
        names = ["id", *first[1:]] if first and not first[0].strip() else first
        columns = [name for name in names if name != "id"]
        is_counted = len(columns) > 1 and columns == [str(number) for number in range(len(columns))]
        self._has_header = is_counted or not any(map(_is_number, first))
        self._id = names.index("id") if self._has_header and "id" in names else None

    def chunks(self, size: int, wanted: Wanted = lambda number: True) -> Iterator[Chunk]:
        lines = csv.reader(_lines(self._path))
        if self._has_header:
            next(lines)
        yield from row_chunks((self._split(cells) for cells in lines if cells), size, wanted, self._parse)

    def _split(self, cells: list[str]) -> tuple[str | None, list[str]]:
        if self._id is None or self._id >= len(cells):
            return None, cells
        return cells[self._id], cells[: self._id] + cells[self._id + 1 :]

    def _parse(self, cells: list[str], row: int) -> list[float]:
        for cell in cells:
            if cell.strip() and not _is_number(cell):
                raise InputError(f"{self.name} row {row} holds {cell[:40]!r} in place of a number; remove that column")
        return [float(cell) if cell.strip() else np.nan for cell in cells]


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, their ends kept. Raises `InputError` where it is not UTF-8."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            yield from file
        except UnicodeDecodeError:
            raise InputError(f"{path} is not UTF-8 text; save it again as UTF-8") from None


FILES = {".npy": NpyFile, ".npz": NpzFile, ".parquet": ParquetFile, ".jsonl": JsonlFile, ".csv": CsvFile}


def list_column(column: pa.Array, start: int, where: str) -> np.ndarray:
    """A column of lists as float32 [n, d]; an absent list becomes a row of NaN.

    Raises `InputError`, with the row, for lists of unequal length.
    """
    if not len(column):
        return np.zeros((0, 0), np.float32)
    lengths = np.asarray(column.value_lengths().fill_null(-1) if not _is_fixed(column.type) else [])
    if _is_fixed(column.type):
        lengths = np.where(np.asarray(column.is_null()), -1, column.type.list_size)
    present = lengths >= 0
    dim = lengths[present][0] if present.any() else 1
    wrong = np.flatnonzero(present & (lengths != dim))
    if wrong.size:
        row = wrong[0]
        raise InputError(f"{where} row {start + row} has {lengths[row]} numbers, others {dim}; every row needs as many")
    vectors = np.full((len(column), dim), np.nan, np.float32)
    values = column.flatten().to_numpy(zero_copy_only=False)  # leaves absent lists out
    if values.dtype.kind not in "fiu":
        raise InputError(f"{where} holds lists of {column.type.value_type}; expected numbers")
    vectors[present] = values.reshape(-1, dim)
    return vectors


def _numbers(found: Any, where: str, row: int) -> list[float]:
    if not isinstance(found, list):
        raise InputError(
            f"{where} row {row} has no list of numbers; expected one, or an object with it under "
            f"{', '.join(VECTOR_NAMES)}"
        )
    for value in found:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{where} row {row} holds {str(value)[:40]!r} in place of a number")
    return [np.nan if value is None else float(value) for value in found]


def _one_of(names: list[str], where: str) -> str:
    known = [name for name in names if name in VECTOR_NAMES]
    if len(names) == 1 or len(known) == 1:
        return (known or names)[0]
    raise InputError(f"{where}: {', '.join(names) or 'none'}; expected one, or one called {' or '.join(VECTOR_NAMES)}")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_fixed(kind)


def _is_fixed(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
