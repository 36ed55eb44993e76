"""Cells: what a store writes where a vector should be, as numbers. Lists, text, bytes, bits, and what is absent."""

import base64
import binascii
import io
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from invlib.errors import InputError

BYTES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "int8": "i1"}  # tried in this order
TEXT = 32  # characters; shorter text without a bracket is no vector
_SPARSE = re.compile(r"\{(.*)\}/(\d+)", re.S)  # of pgvector: {1:0.5,3:2}/5
_BITS = re.compile(r"[01]{32,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")


class Problem(ValueError):
    """Why a cell holds no vector, for a person."""


def read_cell(cell: Any) -> np.ndarray | None:
    """The vector of one cell, [d] of its own number type; None where it is absent.

    A cell is a list (perhaps in a list of one), an array, text ("[0.1, …]", numpy's print, Postgres arrays, pgvector's
    sparse and bit forms, base64 of float32), bytes, or an object with one of these. Raises `Problem` for anything else.
    """
    if isinstance(cell, Problem):
        raise cell
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, dict):
        cell = _only_vector(cell)
    elif isinstance(cell, str):
        cell = _from_text(cell.strip())
    if isinstance(cell, bytes | bytearray | memoryview):
        cell = _from_bytes(bytes(cell))
    array = _from_numbers(cell)
    return array if array is None or array.size else None


def is_vector(cell: Any) -> bool:
    """Does a cell hold a vector: two numbers or more?"""
    if isinstance(cell, str) and not (cell[:1] in ("[", "{") or len(cell) >= TEXT):
        return False
    if isinstance(cell, list) and len(cell) > 1 and isinstance(cell[0], list | str):
        return False  # several vectors, or words
    if cell is None or isinstance(cell, bool | int | float):
        return False
    try:
        found = read_cell(cell)
    except Problem:
        return False
    return found is not None and len(found) > 1


def stacked(cells: Sequence[Any] | np.ndarray) -> np.ndarray:
    """The vectors of many cells, float [n, d]. Raises `InputError`, with the row, for an absent or unequal one."""
    rows = []
    for row, cell in enumerate(cells):
        try:
            found = read_cell(cell)
        except Problem as problem:
            raise InputError(f"vector {row} {problem}") from None
        if found is None or (rows and len(found) != len(rows[0])):
            told = "is absent" if found is None else f"has {len(found)} numbers, vector 0 has {len(rows[0])}"
            raise InputError(f"vector {row} {told}; remove the row")
        rows.append(found)
    return np.stack(rows) if rows else np.zeros((0, 0))


def _only_vector(cell: dict) -> Any:
    known = [value for value in cell.values() if is_vector(value)]
    if len(known) != 1:
        raise Problem(f"holds {len(known)} vectors, under {', '.join(map(str, cell)) or 'no name'}")
    return known[0]


def _from_numbers(cell: Any) -> np.ndarray | None:
    if isinstance(cell, list | tuple) and cell and isinstance(cell[0], dict):
        cell = [value for one in cell for value in one.values()]  # as DuckDB wrote arrays: [{"array": 0.1}, …]
    try:
        array = np.asarray(cell)
        if array.dtype.kind not in "fiub":  # decimals, absent numbers, numbers as text
            array = np.array([_numbers(one) for one in cell], np.float64)
    except (ValueError, TypeError):
        raise Problem(_wrong(cell)) from None
    while array.ndim > 1 and len(array) == 1:  # a list of one vector
        array = array[0]
    if array.ndim != 1:
        shape = " × ".join(map(str, array.shape))
        raise Problem(f"holds {shape} numbers, as one vector a token: average those of each text, without padding")
    return array


def _numbers(one: Any) -> Any:
    if isinstance(one, list | tuple | np.ndarray):
        return [_numbers(each) for each in one]
    try:
        return math.nan if one is None else float(one)
    except OverflowError:
        return math.inf


def _wrong(cell: Any) -> str:
    if not isinstance(cell, list | tuple | np.ndarray):
        return f"holds {str(cell)[:40]!r} in place of numbers"
    for one in cell:
        try:
            _numbers(one)
        except (TypeError, ValueError):
            return f"holds {str(one)[:40]!r} in place of a number"
    return "holds lists of unequal lengths"


def _from_text(text: str) -> Any:
    if not text or text in ("NULL", "null", "None", "nan", "NaN", "\\N", "[]", "{}"):
        return []
    if "..." in text:
        raise Problem("holds numbers that numpy left out of its print (...): they are not in this file")
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    if sparse := _SPARSE.fullmatch(text):
        return _from_sparse(sparse)
    if _BITS.fullmatch(text):
        return np.frombuffer(text.encode(), np.uint8) == ord("1")
    if _BASE64.fullmatch(text):
        return _from_base64(text)
    try:
        return json.loads(text) if text[0] == "[" and "," in text else _separated(text)
    except ValueError:
        try:
            return _separated(text)
        except ValueError:
            raise Problem(f"holds {text[:40]!r} in place of numbers") from None


def _from_base64(text: str) -> np.ndarray:
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        content = b""
    if content and len(content) % 4 == 0:
        found = np.frombuffer(content, "<f4")
        if _is_sensible(found):
            return found
    raise Problem(f"holds {text[:40]!r} in place of numbers")


def _is_sensible(found: np.ndarray) -> bool:
    """Bytes read as another type are far out, or not finite."""
    with np.errstate(all="ignore"):
        return bool(1e-4 < np.linalg.norm(found.astype(np.float64)) < 1e3)


def _separated(text: str) -> list[float]:
    """Numbers between commas, semicolons or blanks, perhaps in brackets or braces."""
    return [float(word) for word in re.sub(r"^(np\.)?(array|tensor)\(|[\[\](){},;]", " ", text).split()]


def _from_sparse(found: re.Match) -> np.ndarray:
    size = int(found[2])
    vector = np.zeros(size if size <= 1 << 16 else 0)
    for pair in filter(None, found[1].split(",")):
        place, _, value = pair.partition(":")
        try:
            vector[int(place) - 1] = float(value)
        except (ValueError, IndexError):
            raise Problem(f"holds {pair[:40]!r} in place of a number") from None
    return vector


def _from_bytes(content: bytes) -> np.ndarray:
    """Numbers of the first type in BYTES that gives finite ones of a sensible length."""
    if content.startswith(b"\x93NUMPY"):
        try:
            return np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError):
            raise Problem("holds a damaged array") from None
    if content.startswith(b"\x80") and content.endswith(b"."):
        raise Problem("holds a pickle, which could run code; write plain numbers")
    for kind in BYTES.values():
        if len(content) % np.dtype(kind).itemsize == 0:
            found = np.frombuffer(content, kind)
            if kind == "i1" or _is_sensible(found):
                return found
    raise Problem("holds bytes that are no numbers")
