"""Alignment: two texts word by word, as few changes as possible between them."""

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest

from rapidfuzz.distance import Levenshtein

from invlib.metrics import words


@dataclass(frozen=True)
class AlignedWord:
    """One place of an alignment. `kind`: hit, moved (the word stands elsewhere in the other text), miss or extra."""

    expected: str | None
    found: str | None
    kind: str


def aligned(expected: str, found: str) -> list[AlignedWord]:
    """The words of both texts beside each other, in the units of `invlib.metrics.words`.

    >>> [(p.expected, p.found, p.kind) for p in aligned("a cat sat", "a dog sat down")]
    [('a', 'a', 'hit'), ('cat', 'dog', 'miss'), ('sat', 'sat', 'hit'), (None, 'down', 'extra')]
    """
    a, b = words(expected), words(found)
    rows: list[tuple[str | None, str | None]] = []
    for step in Levenshtein.opcodes(a, b):
        rows += zip_longest(a[step.src_start : step.src_end], b[step.dest_start : step.dest_end])
    unequal = [(x, y) for x, y in rows if x != y]
    elsewhere = Counter(x for x, _ in unequal if x) & Counter(y for _, y in unequal if y)  # a gap is no word
    return [AlignedWord(x, y, _kind(x, y, elsewhere)) for x, y in rows]


def _kind(expected: str | None, found: str | None, elsewhere: Counter) -> str:
    if expected == found:
        return "hit"
    if (expected if found is None else found) in elsewhere:
        return "moved"
    return "extra" if expected is None else "miss"
