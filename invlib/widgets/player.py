"""player(trajectory): step through an inversion token by token, in a notebook or on a page without a kernel."""

from typing import Any

import numpy as np
import traitlets

from invlib.errors import InputError
from invlib.trajectory import Trajectory
from invlib.widgets import page


class Player(page.Pane):
    """All frames travel once, so scrubbing asks no kernel."""

    _esm = page.script("player")
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


def frames(trajectory: Trajectory) -> dict[str, Any]:
    """Every step at once, as small as JSON stays readable. Probabilities are whole thousandths.

    tokens[step][position]: index into `pieces`; -1 while masked
    confidence[step][position]: probability of the shown token when written; -1 where there is none
    top[step][position]: [piece, probability, piece, probability, …]; empty where the model was not asked
    pinned: positions that were given rather than uncovered
    """
    asked = trajectory.top_ids >= 0
    used = np.unique(np.concatenate([trajectory.tokens[~trajectory.masked], trajectory.top_ids[asked]]))
    confidence = np.where(trajectory.masked, np.nan, trajectory.confidence)
    ranked = np.stack([np.searchsorted(used, trajectory.top_ids), _thousandths(trajectory.top_probs)], axis=-1)
    return {
        "pieces": [trajectory.pieces[token] for token in used.tolist()],
        "tokens": np.where(trajectory.masked, -1, np.searchsorted(used, trajectory.tokens)).tolist(),
        "confidence": _thousandths(confidence).tolist(),
        "top": [
            [alternatives[known].ravel().tolist() for alternatives, known in zip(*step, strict=True)]
            for step in zip(ranked, asked, strict=True)
        ],
        "pinned": np.flatnonzero(trajectory.pinned).tolist(),
        "text": trajectory.text,
    }


def static_html(frames: dict[str, Any]) -> str:
    """The player for a page without a kernel; where scripts do not run, its steps below each other."""
    words = [*frames["pieces"], "[MASK]"]  # -1 is the last one
    lines = (f"{step:3d}  {' '.join(words[piece] for piece in row)}" for step, row in enumerate(frames["tokens"]))
    return page.static_html("player", frames, lines)


def _thousandths(probabilities: np.ndarray) -> np.ndarray:
    """Whole thousandths; -1 for NaN."""
    return np.rint(np.nan_to_num(1000.0 * probabilities.astype(float), nan=-1)).astype(int)
