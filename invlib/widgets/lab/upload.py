"""Upload: a vector that somebody pastes or hands over as a file. What arrives is data and is never run."""

import io
import json

import numpy as np

from invlib.errors import InputError, first_line

MAX_BYTES = 1_000_000  # far above one vector, far below what hurts


def read_vector(content: bytes | str, told: str = "the pasted vector") -> np.ndarray:
    """One vector [n] of whatever size and number type, from .npy, JSON, or numbers between commas or blanks.

    content: a file's bytes, or text that was pasted. JSON may be a list, a list of one list, or an object with such
      a list under "embedding" or "vector". told: what the content is called.
    Raises `InputError` for anything else: several vectors, a pickle, a damaged or oversized file.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"{told} has {len(content):,} bytes; one vector needs less than {MAX_BYTES:,}")
    if isinstance(content, bytes) and content.startswith(b"\x93NUMPY"):
        return _one_row(_read_npy(content, told), told)
    try:
        text = content.decode("utf-8-sig").strip() if isinstance(content, bytes) else content.strip()
    except UnicodeDecodeError:
        raise InputError(f"{told} is neither .npy nor text; give .npy, .json or comma-separated numbers") from None
    if not text:
        raise InputError("there is no vector; paste its numbers or choose a .npy, .json or .csv file")
    return _one_row(_read_json(text, told) if text[0] in "[{" else _read_numbers(text, told), told)


def _read_npy(content: bytes, told: str) -> np.ndarray:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, OverflowError) as error:  # a header may claim any size
        what = f"is not a .npy file that can be read: cut off or damaged ({first_line(error)}); save it again"
        if "allow_pickle" in str(error):
            what = "holds Python objects, which could run code; save plain numbers with numpy.save"
        raise InputError(f"{told} {what}") from None


def _read_json(content: str, told: str) -> np.ndarray:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{told} is not valid JSON ({error}); give a list of numbers") from None
    try:
        return np.asarray(value.get("embedding", value.get("vector")) if isinstance(value, dict) else value)
    except ValueError:
        raise InputError(f"{told} holds lists of unequal lengths; give one list of numbers") from None


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
