"""Outcome: what came back of a run, and what it cost."""

import time
from dataclasses import dataclass

from invlib import metrics
from invlib.widgets.lab.alignment import AlignedWord, aligned
from invlib.widgets.lab.code import code
from invlib.widgets.lab.run import Run
from invlib.widgets.lab.settings import Settings


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
        return cls(
            settings=settings,
            text=text,
            cosine=run.cosine,
            scores={name: of(settings.text, text) for name, of in metrics.PER_TEXT.items()} if is_scored else {},
            pairs=aligned(settings.text, text) if is_scored else [],
            changes=aligned(before.text, text) if is_compared else [],
            model_calls=run.model_calls,
            encoder_queries=run.encoder_queries,
            seconds=time.perf_counter() - run.began,
            code=None if note else code(run),
            note=note,
        )


def _note(run: Run) -> str:
    """How it ended, where that was before its time."""
    if run.error or (run.found and not run.is_whole):
        return f"{run.error or 'the search was stopped'}; this is the best text by then"
    if run.is_whole:
        return ""
    return f"stopped at step {run.steps[-1].index} of {run.steps[-1].num_steps}"
