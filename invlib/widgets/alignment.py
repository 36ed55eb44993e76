"""Alignment: two texts word by word, as few changes as possible between them."""

from collections import Counter
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from invlib.metrics import words


@dataclass(frozen=True)
class Pair:
    """One place of an alignment. `kind`: hit, moved (the word stands elsewhere in the other text), miss or extra."""

    expected: str | None
    found: str | None
    kind: str


def aligned(expected: str, found: str) -> list[Pair]:
    """The words of both texts beside each other, in the units of `invlib.metrics.words`.

    >>> [(p.expected, p.found, p.kind) for p in aligned("we had rain", "we rain today")]
    [('we', 'we', 'hit'), ('had', None, 'miss'), ('rain', 'rain', 'hit'), (None, 'today', 'extra')]
    """
    a, b = words(expected), words(found)
    rows: list[tuple[str | None, str | None]] = []
    for step in Levenshtein.opcodes(a, b):
        left, right = a[step.src_start : step.src_end], b[step.dest_start : step.dest_end]
        width = max(len(left), len(right))
        rows += zip(_padded(left, width), _padded(right, width), strict=True)
    elsewhere = Counter(y for x, y in rows if x != y) & Counter(x for x, y in rows if x != y)
    return [Pair(x, y, _kind(x, y, elsewhere)) for x, y in rows]


def _kind(expected: str | None, found: str | None, elsewhere: Counter) -> str:
    if expected == found:
        return "hit"
    if found in elsewhere or (found is None and expected in elsewhere):
        return "moved"
    return "extra" if expected is None else "miss"


def _padded(row: list[str], width: int) -> list[str | None]:
    return [*row, *[None] * (width - len(row))]
