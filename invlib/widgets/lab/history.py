"""History: trajectories cut off at a step and continued by another one, for a person who goes back and runs on."""

from dataclasses import replace

import numpy as np

from invlib.trajectory import Trajectory

ROWS = ("tokens", "confidence", "top_ids", "top_probs")  # one per step


def until(trajectory: Trajectory, step: int) -> Trajectory:
    """The trajectory up to and with `step`."""
    return replace(trajectory, **{name: getattr(trajectory, name)[: step + 1] for name in ROWS})


def joined(before: Trajectory, after: Trajectory) -> tuple[Trajectory, int]:
    """One trajectory of two, and the step in which the second begins.

    A token that was only handed over keeps the probability with which it was once written.
    """
    skipped = int((after.tokens[0] == before.tokens[-1]).all())
    handed = np.minimum.accumulate(after.tokens == before.tokens[-1])
    after = replace(after, confidence=np.where(handed, before.confidence[-1], after.confidence))
    rows = {name: np.concatenate([getattr(before, name), getattr(after, name)[skipped:]]) for name in ROWS}
    return replace(after, **rows, pieces=before.pieces | after.pieces), len(before.tokens) - skipped


def rewritten(draft: Trajectory, tokens: tuple[int, ...], pieces: list[str], text: str) -> Trajectory:
    """The draft, and what a search made of its last step as one more; only the draft where the length is another."""
    if len(tokens) != len(draft) or text == draft.text:
        return draft
    last = {name: getattr(draft, name)[-1:] for name in ROWS}
    change = replace(
        draft,
        tokens=np.array([tokens], draft.tokens.dtype),
        confidence=np.full_like(last["confidence"], np.nan),
        top_ids=np.full_like(last["top_ids"], -1),
        top_probs=np.zeros_like(last["top_probs"]),
        pieces=dict(zip(tokens, pieces, strict=True)),
        text=text,
    )
    return joined(draft, change)[0]
