"""Vectors and texts from outside: numbers of the right shape, with a direction; texts with something to see."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlib.errors import SURROGATES, InputError, shown

LONGEST_TEXT = 2**20  # characters
BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols without a shape


def check_vectors(vectors: Any, embed_dim: int, taker: str = "this checkpoint inverts") -> np.ndarray:
    """Vectors as float32 [n, embed_dim] of unit length, or an `InputError` that names the offending row."""
    array = as_array(vectors)
    if array.size == 0:
        raise InputError("there is no vector to invert; give at least one")
    if array.dtype.kind not in "fiu":
        raise InputError(f"vectors must be real numbers, got dtype {array.dtype}")
    array = np.atleast_2d(array)
    if array.ndim != 2 or array.shape[1] != embed_dim:
        raise InputError(
            f"got vectors of shape {np.shape(vectors)}; {taker} {embed_dim}-dimensional vectors, "
            f"[{embed_dim}] or [n, {embed_dim}]"
        )
    return directions(array, "vector", "it has no direction to invert")


def answers(vectors: Any, count: int, embed_dim: int) -> np.ndarray:
    """What an encoder gave for `count` texts, as `check_vectors`. Raises `InputError` for another number of rows."""
    array = as_array(vectors)
    if array.shape != (count, embed_dim) or array.dtype.kind not in "fiu":
        found = f"{array.dtype} of shape {array.shape}"
        raise InputError(f"the encoder gave {found} for {count} texts of {embed_dim} dimensions; it must give one each")
    return directions(array, "the encoder's vector", "it must give a direction")


def directions(array: Any, what: str = "row", problem: str = "it has no direction") -> np.ndarray:
    """Rows [n, d] of any real type scaled to length 1, float32. Raises `InputError` for a row without a direction."""
    array = as_array(array)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "fiu":
        raise InputError(f"expected numbers of shape [n, d], got {array.dtype} of shape {list(array.shape)}")
    array = array.astype(np.float64)
    largest = np.abs(array).max(axis=1, keepdims=True, initial=0)
    for wrong, told in (
        (~np.isfinite(largest), "has NaN or infinite entries; remove it or repair its source"),
        (largest == 0, f"is all zeros; {problem}"),
    ):
        if wrong.any():
            raise InputError(f"{what} {int(wrong.argmax())} {told}")
    # By a power of two, which rounds nothing: the squares of very large and very small numbers are no numbers.
    array = np.ldexp(array, -np.frexp(largest)[1])
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


def as_array(vectors: Any) -> np.ndarray:
    """An array of whatever was given; masked ones, whose numbers are not all meant, are refused."""
    if any(isinstance(own, np.ma.MaskedArray) for own in (vectors, *(vectors if isinstance(vectors, list) else ()))):
        raise InputError("a masked array hides some of its numbers; fill them, or leave those rows out")
    try:
        if isinstance(vectors, Tensor):
            vectors = vectors.detach().to("cpu", torch.float32 if vectors.dtype == torch.bfloat16 else None).numpy()
        return np.asarray(vectors)
    except Exception:  # rows of unequal lengths; tensors that are sparse, quantised or without numbers
        raise InputError("the vectors are no rectangular array of numbers; give one row for each") from None


def check_texts(texts: Sequence) -> list[str]:
    """The texts as a list, or an `InputError` that names the row that cannot be encoded."""
    if isinstance(texts, str):
        raise InputError(f"expected a list of texts, got one string; write [{texts[:40]!r}]")
    if not isinstance(texts, Iterable):
        raise InputError(f"expected a list of texts, got {shown(texts)}")
    texts = list(texts)
    if not texts:
        raise InputError("there is no text to encode; give at least one")
    for row, text in enumerate(texts):
        if (problem := problem_of(text)) is not None:
            raise InputError(f"text {row} {problem}")
    return texts


def problem_of(text: Any) -> str | None:
    """Why a text cannot be encoded; None where it can."""
    if not isinstance(text, str) or not any(_is_visible(character) for character in text):
        return f"is {shown(text)}; every text needs at least one visible character"
    if len(text) > LONGEST_TEXT:
        return f"has {len(text):,} characters; at most {LONGEST_TEXT:,} are read"
    if SURROGATES.search(text):
        return "holds half a character (a lone surrogate); decode it as UTF-8 first"
    return None


def _is_visible(character: str) -> bool:
    """Neither a control or format character, nor a mark without a letter, nor a blank."""
    return unicodedata.category(character)[0] not in "CMZ" and character not in BLANK
