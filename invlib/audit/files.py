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

from invlib.audit.source import Source, check_array, is_number
from invlib.errors import InputError, first_line

VECTOR_NAMES = ("embedding", "embeddings", "vector", "vectors", "values")


class NpyFile(Source):
    """One array [n, d]; a memory map, so a chunk costs what it holds."""

    def __init__(self, path: Path):
        self.name = str(path)
        try:
            self._array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise _unreadable(path, error) from None
        check_array(self._array.shape, self._array.dtype, self.name)
        self.count = len(self._array)

    def read(self, page: range, start: int) -> tuple[None, np.ndarray]:
        return None, np.array(self._array[page.start : page.stop])


class NpzFile(Source):
    """The one array [n, d] of an archive, or the one called embeddings or vectors; read as a stream, packed or not."""

    def __init__(self, path: Path):
        self.name, self._path = str(path), path
        try:
            with zipfile.ZipFile(path) as archive:
                members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
                self._member = _one_of(members, f"{path}, its arrays") + ".npy"
                with archive.open(self._member) as file:
                    shape, dtype = self._header(file)
        except (zipfile.BadZipFile, OSError) as error:
            raise _unreadable(path, error) from None
        check_array(shape, dtype, f"{path}, array {self._member}")
        self.count = shape[0]

    def pages(self, size: int) -> Iterator[np.ndarray]:
        with zipfile.ZipFile(self._path) as archive, archive.open(self._member) as file:
            (self.count, dim), dtype = self._header(file)
            for rows in super().pages(size):
                raw = file.read(len(rows) * dim * dtype.itemsize)
                if len(raw) < len(rows) * dim * dtype.itemsize:
                    raise InputError(f"{self.name} ends in row {rows[0]}; it is truncated: fetch it again")
                yield np.frombuffer(raw, dtype).reshape(len(rows), dim)

    def read(self, page: np.ndarray, start: int) -> tuple[None, np.ndarray]:
        return None, page

    def _header(self, file: Any) -> tuple[tuple[int, ...], np.dtype]:
        is_first = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(file)
        if by_column or dtype.hasobject:
            raise InputError(f"{self.name}: save it again with numpy.savez, in row order and as numbers")
        return shape, dtype


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
            raise _unreadable(path, error) from None
        self._columns = vector_columns(schema, self.name)

    def pages(self, size: int) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self._path) as file:  # batches are of `size` but the last, across row groups too
            yield from file.iter_batches(batch_size=size, columns=self._columns)

    def read(self, page: pa.RecordBatch, start: int) -> tuple[list | None, np.ndarray]:
        return arrow_rows(page)


class JsonlFile(Source):
    """One vector a line: a list, or an object with `embedding` (or vector, values, …) and perhaps `id`."""

    def __init__(self, path: Path):
        self.name, self._path = str(path), path

    def pages(self, size: int) -> Iterator[list[str]]:
        return _pages((line for line in _lines(self._path) if line.strip()), size)

    def read(self, page: list[str], start: int) -> tuple[tuple, tuple]:
        return tuple(zip(*(self._entry(line, row) for row, line in enumerate(page, start)), strict=True))

    def _entry(self, line: str, row: int) -> tuple[Any, list | None]:
        try:
            found = json.loads(line)
        except ValueError:
            raise InputError(f"{self.name} row {row} is not JSON; expected a list of numbers a line") from None
        named = found if isinstance(found, dict) else {"vector": found}
        vector = next((named[name] for name in VECTOR_NAMES if name in named), "nothing")
        if not isinstance(vector, list | None):
            wanted = f"expected one, or an object with it under {', '.join(VECTOR_NAMES)}"
            raise InputError(f"{self.name} row {row} has no list of numbers; {wanted}")
        return named.get("id"), vector


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
        self._header = int(is_counted or not any(map(is_number, first)))  # how many lines it has
        self._id = names.index("id") if self._header and "id" in names else None

    def pages(self, size: int) -> Iterator[list[list[str]]]:
        lines = islice(csv.reader(_lines(self._path)), self._header, None)
        return _pages(filter(None, lines), size)

    def read(self, page: list[list[str]], start: int) -> tuple[list | None, list[list[str | None]]]:
        has_id = self._id is not None
        ids = [cells.pop(self._id) if self._id < len(cells) else None for cells in page] if has_id else None
        return ids, [[cell if cell.strip() else None for cell in cells] for cells in page]


FILES = {".npy": NpyFile, ".npz": NpzFile, ".parquet": ParquetFile, ".jsonl": JsonlFile, ".csv": CsvFile}


def vector_columns(schema: pa.Schema, where: str) -> list[str]:
    """What to ask an Arrow table for: its vectors, a column of lists or all columns of numbers, and `id`."""
    kinds = {field.name: field.type for field in schema if field.name != "id"}
    vectors = [name for name, kind in kinds.items() if _is_list(kind)]
    if vectors:
        vectors = [_one_of(vectors, f"{where}, its columns of lists")]
    else:
        vectors = [name for name, kind in kinds.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
    if not vectors:
        raise InputError(f"{where} has no column of numbers or lists of numbers; it has {', '.join(schema.names)}")
    return [name for name in schema.names if name in {"id", *vectors}]


def arrow_rows(table: pa.RecordBatch | pa.Table) -> tuple[list | None, np.ndarray]:
    """Ids and rows of what was asked for by `vector_columns`."""
    ids = table.column("id").to_pylist() if "id" in table.schema.names else None
    vectors = table.select([name for name in table.schema.names if name != "id"])
    if _is_list(vectors.schema.types[0]):
        return ids, vectors.column(0).to_numpy(zero_copy_only=False)
    return ids, vectors.to_pandas().to_numpy()


def _is_list(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType)


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


def _one_of(names: list[str], where: str) -> str:
    known = [name for name in names if name in VECTOR_NAMES]
    if len(names) == 1 or len(known) == 1:
        return (known or names)[0]
    raise InputError(f"{where}: {', '.join(names) or 'none'}; expected one, or one called {' or '.join(VECTOR_NAMES)}")


def _unreadable(path: Path, error: Exception) -> InputError:
    said = first_line(error).partition(". If you trust")[0]  # numpy's advice is to run the file's code
    return InputError(f"{path} cannot be read as {path.suffix}: {said}")
