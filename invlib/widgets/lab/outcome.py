"""Outcome: what came back of a run, word by word beside the original, and what it cost."""

import time
from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest

from rapidfuzz.distance import Levenshtein

from invlib import metrics
from invlib.widgets.lab.code import code
from invlib.widgets.lab.run import Run
from invlib.widgets.lab.settings import Settings


@dataclass(frozen=True)
class AlignedWord:
    """One place of an alignment. `kind`: hit, moved (the word stands elsewhere in the other text), miss or extra."""

    expected: str | None
    found: str | None
    kind: str


@dataclass(frozen=True)
class Outcome:
    """What came back. Where a run was stopped, what there was by then."""

    settings: Settings
    text: str
    cosine: float | None  # of the re-encoded text to the vector; None where it was not encoded
    scores: dict[str, float]  # of `metrics.PER_TEXT`; empty where a vector was the input
    pairs: list[AlignedWord]  # original and text, word by word
    changes: list[AlignedWord]  # the text before and this one; empty where they belong to other inputs
    model_calls: int
    encoder_queries: int
    seconds: float
    code: str | None  # repeats it; None for a run that was stopped
    note: str  # what is worth knowing about how it ended

    @classmethod
    def of(cls, run: Run, before: "Outcome | None") -> "Outcome":
        """What a run gave. before: the outcome before it."""
        settings, text, note = run.settings, run.text, _note(run)
        is_scored = settings.vector is None and metrics.words(settings.text)
        is_compared = before and before.text not in ("", text) and before.settings.is_same_input(settings)
        scores = {name: of(settings.text, text) for name, of in metrics.PER_TEXT.items()} if is_scored else {}
        pairs = aligned(settings.text, text) if is_scored else []
        changes = aligned(before.text, text) if is_compared else []
        costs = (run.model_calls, run.encoder_queries, time.perf_counter() - run.began)
        return cls(settings, text, run.cosine, scores, pairs, changes, *costs, None if note else code(run), note)


def _note(run: Run) -> str:
    """How it ended, where that was before its time."""
    if run.error or (run.found and not run.is_whole):
        return f"{run.error or 'the search was stopped'}; this is the best text by then"
    last = run.steps[-1]
    return "" if run.is_whole else f"stopped at step {last.index} of {last.num_steps}"


def aligned(expected: str, found: str) -> list[AlignedWord]:
    """The words of both texts beside each other, in the units of `invlib.metrics.words`.

    >>> [(p.expected, p.found, p.kind) for p in aligned("a cat sat", "a dog sat down")]
    [('a', 'a', 'hit'), ('cat', 'dog', 'miss'), ('sat', 'sat', 'hit'), (None, 'down', 'extra')]
    """
    a, b = metrics.words(expected), metrics.words(found)
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
