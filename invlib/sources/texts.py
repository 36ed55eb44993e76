"""Text files of vectors: lines of cells, or JSON; packed or not. `read_rows` gives what else stands in such files."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from invlib.sources.cells import Problem, is_vector
from invlib.sources.records import Rows, rows_of
from invlib.sources.source import cut
from invlib.sources.tables import GROUP, Table, is_number

DELIMITERS = ("\t", ";", ",", "|")


class CellFile(Table):
    """Lines of cells between commas, semicolons, tabs or blanks; a header line is allowed."""

    def prepare(self) -> None:
        lines = list(islice(filter(str.strip, text_lines(self.path)), 20))
        self._skip = int(len(lines) > 1 and _counts_what_follows(*lines[:2]))
        self._cut = _delimiter(lines[self._skip]) if lines else ","
        self._raw = False
        first = next(self._rows(), [])
        names = [name.strip() for name in first]
        self._header = int(_is_header(names))
        self._raw = self._cut == "\t" and (not self._header or any("\\N" in line for line in lines))  # as COPY writes
        if not self._header:
            names = [str(number) for number in range(len(first))]
            if len(first) > GROUP and not is_number(first[0]) and all(map(is_number, first[1:])):
                names[0] = "id"
        self._names = names

    def pages(self, size: int) -> Iterator[list[dict | Problem]]:
        return cut(map(self._named, islice(self._rows(), self._header, None)), size)

    def _named(self, row: list[str]) -> dict | Problem:
        if len(row) != len(self._names):
            return Problem(f"has {len(row)} cells, others {len(self._names)}")
        return dict(zip(self._names, row, strict=True))

    def _rows(self) -> Iterator[list[str]]:
        csv.field_size_limit(sys.maxsize)  # a whole document may stand in a cell
        lines = islice(text_lines(self.path), self._skip, None)
        if self._cut == " ":
            return filter(None, map(str.split, lines))
        quoting = csv.QUOTE_NONE if self._raw else csv.QUOTE_MINIMAL
        rows = csv.reader(lines, delimiter=self._cut, quoting=quoting, skipinitialspace=True)
        comma = self._cut == ";"  # where a comma may stand for the point
        return ([_pointed(cell) for cell in row] if comma else row for row in rows if row)


class JsonFile(Table):
    """JSON in any of the forms that exports and interfaces have: one document, or one on every line."""

    def prepare(self) -> None:
        lines = list(islice(filter(str.strip, text_lines(self.path)), 2))
        is_by_line = bool(lines) and _json(lines[0]) is not None
        self._document = _json(lines[0]) if len(lines) == 1 else None
        if not is_by_line:
            self._document = _json("".join(text_lines(self.path)))

    def pages(self, size: int) -> Iterator[list[dict | Problem]]:
        if self._document is not None:
            return cut(rows_of(self._document), size)
        rows = Rows()
        return cut((row for line in text_lines(self.path) if line.strip() for row in rows.of_line(line)), size)


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, their ends kept; unpacked where its name ends in .gz, .bz2 or .zst."""
    with pa.input_stream(str(path), compression="detect") as file:
        yield from io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _pointed(cell: str) -> str:
    return cell.replace(",", ".") if cell.count(",") == 1 and is_number(cell.replace(",", ".")) else cell


def _delimiter(line: str) -> str:
    """What separates the cells of a line: the first of the usual ones outside of quotes and brackets, else blanks."""
    outside, depth, quoted = [], 0, False
    for letter in line:
        quoted ^= letter == '"'
        depth += (letter in "[{") - (letter in "]}")
        if not (quoted or depth):
            outside.append(letter)
    found = next((mark for mark in DELIMITERS if mark in outside), None)
    is_blank = found is None and len(line.split()) > 1 and all(map(is_number, line.split()[1:]))
    return found or (" " if is_blank else ",")


def _counts_what_follows(first: str, second: str) -> bool:
    """Is it word2vec's first line: how many rows, and how many numbers each has?"""
    counts = first.split()
    return len(counts) == 2 and all(map(str.isdigit, counts)) and len(second.split()) - 1 == int(counts[1])


def _is_header(names: list[str]) -> bool:
    behind = [name for name in names if is_number(name)]
    if behind and behind == [str(number) for number in range(len(behind))] and len(behind) > 1:
        return len(behind) < len(names) or len(names) > 1  # the columns' numbers, as pandas writes them
    return bool(names) and not behind and not any(map(is_vector, names))
