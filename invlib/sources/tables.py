"""Tables: stores with named columns. Which of them holds the vectors is found by what stands in it, and said."""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from invlib.errors import InputError
from invlib.sources.cells import Problem, is_vector, read_cell
from invlib.sources.source import PEEK, Page, Source

VECTOR_NAMES = ("embedding", "embeddings", "vector", "vectors", "emb", "values", "dense_vector", "text_embedding")
ID_NAMES = ("custom_id", "id", "_id", "ids", "pk", "key", "uuid", "doc_id", "index", "", "__index_level_0__")
COMMON = (384, 512, 768, 1024, 1536, 3072)  # dimensions of encoders; one column more is a number of the row
GROUP = 8  # columns of numbers from which on one name says that they belong together


class Table(Source):
    """Rows with named fields. A page is a list of them; a `Problem` stands for a row that could not be parsed."""

    def prepare(self) -> None:
        """Find out what `pages` needs to know."""

    def rows(self) -> Iterator[dict]:
        """All rows, whatever stands in them."""
        self.prepare()
        for page in self.pages(PEEK):
            names = self.names(page)
            yield from (
                dict(zip(names, row, strict=True)) for row in zip(*(self.cells(page, n) for n in names), strict=True)
            )

    def look(self) -> None:
        self.prepare()
        names: dict[str, None] = {}
        for page in self.pages(PEEK):
            names |= dict.fromkeys(self.names(page))
            if self._choose(page, list(names)):
                return
        column = "column of vectors" if self.column is None else f"vectors in a column {self.column!r}"
        why = next(filter(None, (self._why_not(page) for page in self.pages(PEEK))), "")
        raise InputError(
            f"{self.name} has no {column}; it has {', '.join(name[:40] for name in list(names)[:20]) or 'no row'}{why}"
        )

    def _why_not(self, page: Any) -> str:
        """What is wrong with the first list, or the first row, that holds no vector."""
        cells = [(name, cell) for name in self.names(page) for cell in self.cells(page, name)[:1]]
        cells += [("row 0", row) for row in page[:1] if isinstance(row, Problem)] if isinstance(page, list) else []
        for name, cell in cells:
            if isinstance(cell, list | Problem) or str(cell).startswith("["):
                try:
                    read_cell(cell)
                except Problem as problem:
                    return f"; {name} {problem}"
        return ""

    def names(self, page: Any) -> list[str]:
        """The names of the fields, in order."""
        return list(dict.fromkeys(name for row in page if isinstance(row, dict) for name in row))

    def cells(self, page: Any, name: str) -> Sequence[Any]:
        """What stands under a name, one cell a row."""
        return [row if isinstance(row, Problem) else row.get(name) for row in page]

    def read(self, page: Any) -> Page:
        columns = [self.cells(page, name) for name in self._chosen]
        cells = columns[0] if len(columns) == 1 else [_joined(row) for row in zip(*columns, strict=True)]
        ids = None if self._id is None else [_named(cell) for cell in self.cells(page, self._id)]
        beside = {name: self.cells(page, name) for name in self.names(page) if name not in (*self._chosen, self._id)}
        beside = {name: own for name, own in beside.items() if not any(map(is_vector, own[:GROUP]))}
        said = [{name: own[row] for name, own in beside.items() if own[row] is not None} for row in range(len(cells))]
        return Page(cells, ids, said)

    def _choose(self, page: Any, names: Sequence[str]) -> bool:
        """Find the column of vectors, or the columns of their numbers, and that of the ids, among the first rows."""
        asked = names if self.column is None else [name for name in names if _is_called(name, self.column)]
        widths = {name: width for name in asked if (width := self._width(page, name))}
        free = [name for name in names if name not in widths]
        self._id = next((name for known in ID_NAMES for name in free if name.lower() == known), None)
        if self._id is None and widths and free[:1] == ["0"] and _are_counted(self.cells(page, "0")):
            self._id = "0"  # the first column of a file without a header
        self._chosen = sorted(widths, key=lambda name: self._rank(name, widths[name]))[-1:]
        if widths:
            others = ", ".join(name for name in widths if name not in self._chosen)
            self.note = f"vectors: column {self._chosen[0]!r}" + f", not {others} (--column chooses)" * bool(others)
        elif self.column is None:
            self._chosen = self._numeric(page, [name for name in free if name != self._id])
            self.note = f"vectors: {len(self._chosen)} columns of numbers"
        return bool(self._chosen)

    def _width(self, page: Any, name: str) -> int:
        """How many numbers the first vector of a column has; 0 where it holds none."""
        found = next((cell for cell in self.cells(page, name) if is_vector(cell)), None)
        return 0 if found is None else len(read_cell(found))

    def _rank(self, name: str, width: int) -> tuple:
        known = [VECTOR_NAMES.index(part) for part in name.lower().split(".") if part in VECTOR_NAMES]
        return width == self.wanted_dim, "minilm" in name.lower(), -min(known, default=len(VECTOR_NAMES)), width

    def _numeric(self, page: Any, names: Sequence[str]) -> list[str]:
        """The columns of numbers: those of one name with a number behind it, or all where there are no such."""
        numeric = [name for name in names if _are_numbers(self.cells(page, name))]
        numeric = numeric if len(numeric) > 1 else []  # a label, not a vector
        stem, count = Counter(re.sub(r"\d+$", "", name) for name in numeric).most_common(1)[0] if numeric else ("", 0)
        if count >= GROUP:
            numeric = [name for name in numeric if re.fullmatch(re.escape(stem) + r"\d+", name)]
        if len(numeric) - 1 in (self.wanted_dim, *COMMON) and _are_counted(self.cells(page, numeric[0])):
            self._id, *numeric = numeric
        return numeric


class ArrowTable(Table):
    """Record batches: a page is one of them. Columns are found by place, for a name may stand there twice."""

    def names(self, page: pa.RecordBatch) -> list[str]:
        names = page.schema.names
        return [name if name not in names[:at] else f"{name}.{at}" for at, name in enumerate(names)]

    def cells(self, page: pa.RecordBatch, name: str) -> Sequence[Any]:
        column = page.column(self.names(page).index(name))
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        if pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type):
            return list(column.to_numpy(zero_copy_only=False))
        return column.to_pylist()


class ParquetFile(ArrowTable):
    """A parquet file, row group by row group."""

    def prepare(self) -> None:
        with pq.ParquetFile(self.path) as file:
            self.count = file.metadata.num_rows

    def pages(self, size: int) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:  # batches are of `size` but the last, across row groups too
            yield from file.iter_batches(batch_size=size)


class ArrowFile(ArrowTable):
    """Arrow's own file or stream, which Feather is as well."""

    def pages(self, size: int) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(self.path)) as file:
            try:
                reader = pa.ipc.open_file(file)
                batches = map(reader.get_batch, range(reader.num_record_batches))
            except pa.ArrowInvalid:
                file.seek(0)
                batches = pa.ipc.open_stream(file)
            for batch in batches:
                yield from (batch.slice(start, size) for start in range(0, len(batch), size))


class Named(Table):
    """A database file with several tables: the wanted one, or the only one that holds vectors."""

    def look(self) -> None:
        names, found, where = sorted(self.tables()), [], self.name
        if self.collection is not None and self.collection not in names:
            raise InputError(f"{where}, its tables: {', '.join(names)}; there is no {self.collection!r}")
        for name in names if self.collection is None else [self.collection]:
            self.table, self.name = name, f"{where}, table {name!r}"
            try:
                super().look()
                found.append(name)
            except InputError:
                continue
        if len(found) != 1:
            told = f"with vectors: {', '.join(found)}; choose one with --collection" if found else "none holds vectors"
            raise InputError(f"{where}, its tables: {', '.join(names) or 'none'}; {told}")
        self.table, self.name = found[0], f"{where}, table {found[0]!r}"
        super().look()

    def tables(self) -> list[str]:
        """The names of all tables."""
        raise NotImplementedError


class SqliteTable(Named):
    """A table of a SQLite file, with vectors as bytes or text; opened so that nothing can be written."""

    def pages(self, size: int) -> Iterator[list[dict]]:
        with closing(self._connected()) as connection:
            cursor = connection.execute(f'SELECT * FROM "{self.table}"')
            names = [column[0] for column in cursor.description]
            while rows := cursor.fetchmany(size):
                yield [dict(zip(names, row, strict=True)) for row in rows]

    def tables(self) -> list[str]:
        with closing(self._connected()) as connection:
            found = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        inner = [f"{name}_" for name, sql in found if "using vec0" in (sql or "").lower()]  # how sqlite-vec keeps it
        return [name for name, _ in found if not name.startswith(("sqlite_", *inner))]

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(f"file:{quote(str(self.path.absolute()))}?mode=ro&immutable=1", uri=True)
        if connection.execute("SELECT count(*) FROM sqlite_master WHERE sql LIKE '%using vec0%'").fetchone()[0]:
            import sqlite_vec

            connection.enable_load_extension(True)
            sqlite_vec.load(connection)
        return connection


class DuckdbTable(Named, ArrowTable):
    """A table of a DuckDB file, opened read-only."""

    def pages(self, size: int) -> Iterator[pa.RecordBatch]:
        with self._connected() as connection:
            yield from connection.sql(f'SELECT * FROM "{self.table}"').to_arrow_reader(size)

    def tables(self) -> list[str]:
        with self._connected() as connection:
            return [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]

    def _connected(self) -> Any:
        import duckdb

        return duckdb.connect(str(self.path), read_only=True)


def is_number(value: Any) -> bool:
    """Can the value, perhaps a text, be read as a number?"""
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_called(name: str, asked: str) -> bool:
    return asked.lower() in (name.lower(), name.lower().rpartition(".")[2])


def _named(cell: Any) -> Any:
    return None if isinstance(cell, Problem) else cell


def _joined(row: Sequence[Any]) -> Any:
    """A vector from the cells of a row: empty ones are absent numbers."""
    problem = next((cell for cell in row if isinstance(cell, Problem)), None)
    return problem or [None if isinstance(cell, str) and not cell.strip() else cell for cell in row]


def _are_numbers(cells: Sequence[Any]) -> bool:
    known = [cell for cell in cells if not (cell is None or cell == "" or isinstance(cell, Problem))]
    numbers = sum(map(is_number, known))
    return bool(known) and not isinstance(known[0], bool) and is_number(known[0]) and 2 * numbers >= len(known)


def _are_counted(cells: Sequence[Any]) -> bool:
    """Whole numbers that rise, as those of rows do."""
    numbers = np.array([float(cell) for cell in cells if is_number(cell)])
    return bool(len(numbers) and (numbers % 1 == 0).all() and (np.diff(numbers) > 0).all())
