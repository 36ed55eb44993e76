"""player(trajectory): step through an inversion token by token, in a notebook or on a page without a kernel."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets

from invlib.errors import InputError
from invlib.trajectory import Trajectory
from invlib.widgets import page

PARTS = ("icons", "frames", "timeline", "tokens", "heat", "player")  # of the script
MASKED, GONE = -1, -2  # in the frames
ABSENT = -1  # in a trajectory: no token stands here; a search took it away, or has not put it here yet


class Player(page.Pane):
    """All frames travel once, so scrubbing asks no kernel."""

    _esm = page.script(*PARTS)
    _css = page.style("player")
    frames = traitlets.Dict().tag(sync=True)

    def static(self) -> tuple[str, str]:
        return static_html(self.frames), self.frames["text"]


def player(trajectory: Any) -> Player:
    """A view of one inversion: play, pause, step, scrub; hover or focus a token to see what else was considered.

    trajectory: one entry of `Inversion.trajectories`, of `inverter.invert(vectors)`. Raises `InputError` for all else.
    """
    if not isinstance(trajectory, Trajectory):
        raise InputError(f"player shows one Trajectory, got {type(trajectory).__name__}; pass result.trajectories[0]")
    return Player(frames=frames(trajectory))


def frames(
    trajectory: Trajectory, *, open_until: int | None = None, asked: Mapping[int, tuple[float, int]] | None = None
) -> dict[str, Any]:
    """Every step at once, as small as JSON stays readable. Probabilities are whole thousandths.

    tokens[step][position]: index into `pieces`; -1 while masked, -2 where there is none
    confidence[step][position]: probability of the shown token when written; -1 where there is none
    top[step][position]: [piece, probability, piece, probability, …]; empty where the model was not asked
    pinned: positions that were given rather than uncovered
    open: the step from which on nothing visible may change. open_until: it, where more is known than is seen here.
    asked: step → cosine of its text, encoded again, to the vector; how many texts were encoded by then
    """
    ranks, present = trajectory.top_ids >= 0, trajectory.tokens != ABSENT
    used = np.unique(np.concatenate([trajectory.tokens[present & ~trajectory.masked], trajectory.top_ids[ranks]]))
    tokens = np.where(trajectory.masked, MASKED, np.searchsorted(used, trajectory.tokens))
    confidence = np.where(trajectory.masked | ~present, np.nan, trajectory.confidence)
    ranked = np.stack([np.searchsorted(used, trajectory.top_ids), _thousandths(trajectory.top_probs)], axis=-1)
    return {
        "pieces": [trajectory.pieces[token] for token in used.tolist()],
        "tokens": np.where(present, tokens, GONE).tolist(),
        "confidence": _thousandths(confidence).tolist(),
        "top": [
            [alternatives[known].ravel().tolist() for alternatives, known in zip(*step, strict=True)]
            for step in zip(ranked, ranks, strict=True)
        ],
        "pinned": np.flatnonzero(trajectory.pinned).tolist(),
        "open": _last_change(trajectory) if open_until is None else open_until,
        "asked": {str(step): (round(cosine, 4), queries) for step, (cosine, queries) in (asked or {}).items()},
        "text": trajectory.text,
    }


def static_html(frames: dict[str, Any]) -> str:
    """The player for a page without a kernel; where scripts do not run, its steps below each other."""
    return page.static_html("player", frames, lines(frames), PARTS)


def lines(frames: dict[str, Any]) -> list[str]:
    """Every step in words."""
    piece_of, rows = words(frames), enumerate(frames["tokens"])
    return [f"{step:3d}  {' '.join(piece_of[piece] for piece in row if piece != GONE)}" for step, row in rows]


def words(frames: dict[str, Any]) -> list[str]:
    """What stands for each piece of the frames."""
    return [*frames["pieces"], "", "[MASK]"]  # -1 is the last one, -2 the one before


def _last_change(trajectory: Trajectory) -> int:
    """The last step in which something visible was changed, masked again or put in; 0 where nothing ever was."""
    before, after = trajectory.tokens[:-1], trajectory.tokens[1:]
    changed = (before != after) & (before != trajectory.mask_token_id)
    return int(np.flatnonzero(changed.any(axis=1)).max(initial=-1)) + 1


def _thousandths(probabilities: np.ndarray) -> np.ndarray:
    """Whole thousandths; -1 for NaN."""
    return np.rint(np.nan_to_num(1000.0 * probabilities.astype(float), nan=-1)).astype(int)
