"""Alignment: the words of two texts beside each other; every mark is true of the word that carries it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from rapidfuzz.distance import LCSseq

from invlib import metrics

HIT, MOVED, MISS, EXTRA = "hit", "moved", "miss", "extra"


@dataclass(frozen=True)
class AlignedPair:
    """A place of both texts: a word of each, or None where only the other one has a word.

    expected_kind: hit (stands here in the other text, too), moved (stands elsewhere in it) or miss (not in it).
    found_kind: the same of the other text's word; one that is not in the first text is extra.
    """

    expected: str | None
    found: str | None
    expected_kind: str | None
    found_kind: str | None


def aligned(expected: str, found: str) -> list[AlignedPair]:
    """Both texts in the units of `invlib.metrics.words`, along a longest common subsequence.

    What is left is matched one to one, from the left: as often as a word is left in both texts, it has moved.
    """
    rows = list(_rows(metrics.words(expected), metrics.words(found)))
    left, right = (Counter(row[side] for row in rows if row[0] != row[1]) for side in (0, 1))
    moved = left & right
    moved.pop(None, None)  # a gap is no word
    sides = zip(_kinds(rows, 0, moved.copy(), MISS), _kinds(rows, 1, moved.copy(), EXTRA), strict=True)
    return [AlignedPair(*row, *kinds) for row, kinds in zip(rows, sides, strict=True)]


def _rows(a: list[str], b: list[str]) -> Iterator[tuple[str | None, str | None]]:
    """What both have in the same order, as pairs; between these, what is left of each beside each other."""
    i = j = 0
    for step in LCSseq.opcodes(a, b):
        if step.tag == "equal":
            yield from zip_longest(a[i : step.src_start], b[j : step.dest_start])
            yield from zip(a[step.src_start : step.src_end], b[step.dest_start : step.dest_end], strict=True)
            i, j = step.src_end, step.dest_end
    yield from zip_longest(a[i:], b[j:])


def _kinds(rows: list, side: int, moved: Counter, alone: str) -> Iterator[str | None]:
    for row in rows:
        word = row[side]
        if word is None:
            yield None
        elif row[0] == row[1]:
            yield HIT
        else:
            yield MOVED if moved[word] else alone
            moved[word] -= moved[word] > 0
