"""Upload: a vector that somebody pastes or hands over as a file. What arrives is data and is never run."""

import io
import json
import tempfile
from pathlib import Path

import numpy as np

from invlib.errors import InputError, first_line
from invlib.sources import Problem, file_kind, is_vector, open_source, read_cell, rows_of

MAX_BYTES = 1_000_000  # far above one vector, far below what hurts


def read_vector(content: bytes | str, told: str = "the pasted vector") -> np.ndarray:
    """One vector [n] of whatever size and number type, from any kind of file or text that an audit reads.

    content: a file's bytes, or text that was pasted: numbers, JSON (an interface's answer too), base64, a database's
      print. told: what the content is called; of a file its name, which tells its kind.
    Raises `InputError` for anything else: several vectors, a pickle, a damaged or oversized file.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"{told} has {len(content):,} bytes; one vector needs less than {MAX_BYTES:,}")
    if isinstance(content, bytes) and content.startswith(b"\x93NUMPY"):
        return _one_row(_read_npy(content, told), told)
    try:
        text = content.decode("utf-8-sig").strip() if isinstance(content, bytes) else content.strip()
    except UnicodeDecodeError:
        if file_kind(Path(told)) is not None:
            return _one_row(_read_file(content, told), told)
        raise InputError(f"{told} is neither .npy nor text; give .npy, .json or comma-separated numbers") from None
    if not text:
        raise InputError("there is no vector; paste its numbers or choose a .npy, .json or .csv file")
    try:
        return _one_row(_read_json(text, told) if text[0] in "[{" else read_cell(text), told)
    except Problem:
        if isinstance(content, bytes) and file_kind(Path(told)) is not None:
            return _one_row(_read_file(content, told), told)
        return _one_row(_read_numbers(text, told), told)


def _read_npy(content: bytes, told: str) -> np.ndarray:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, OverflowError) as error:  # a header may claim any size
        what = f"is not a .npy file that can be read: cut off or damaged ({first_line(error)}); save it again"
        if "allow_pickle" in str(error):
            what = "holds Python objects, which could run code; save plain numbers with numpy.save"
        raise InputError(f"{told} {what}") from None


def _read_file(content: bytes, told: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(told).name
        path.write_bytes(content)
        try:
            return np.concatenate([chunk.vectors for chunk in open_source(path).chunks(2)])
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "")) from None


def _read_json(content: str, told: str) -> np.ndarray:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        try:
            if content[-1] == "]" and "," not in content or content[0] == "{":
                return read_cell(content)  # the print of numpy, or of PostgreSQL
            raise Problem
        except Problem:
            raise InputError(f"{told} is not valid JSON ({error}); give a list of numbers") from None
    rows = [[read_cell(cell) for cell in row.values() if is_vector(cell)] or [None] for row in rows_of(value)]
    if any(row[0] is None for row in rows) and len(rows) == 1:
        return np.array("nothing")  # refused below
    if len({len(row[0]) if row[0] is not None else 0 for row in rows}) > 1:
        raise InputError(f"{told} holds lists of unequal lengths; give one list of numbers")
    return np.array([row[0] for row in rows]) if rows[0][0] is not None else np.array("nothing")


def _read_numbers(content: str, told: str) -> np.ndarray:
    numbers = []
    for place, word in enumerate(content.replace(",", " ").replace(";", " ").split(), start=1):
        try:
            numbers.append(float(word))
        except ValueError:
            raise InputError(f"{told}: entry {place}, {word[:20]!r}, is not a number; separate by commas") from None
    return np.array(numbers)


def _one_row(numbers: np.ndarray, told: str) -> np.ndarray:
    if numbers.dtype.kind not in "fiu":
        raise InputError(f'{told} holds no list of numbers; give [0.1, …] or {{"embedding": [0.1, …]}}')
    numbers = numbers[0] if numbers.ndim == 2 and len(numbers) == 1 else numbers
    if numbers.ndim != 1 or not numbers.size:
        raise InputError(f"{told} has the shape {list(numbers.shape)}; the lab inverts one vector: give one row")
    return numbers
