"""player(trajectory): step through an inversion token by token, in a notebook or on a page without a kernel."""

import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from invlib.errors import InputError
from invlib.trajectory import Trajectory

SCRIPT = Path(__file__).with_name("player.js")
STYLE = Path(__file__).with_name("player.css")
EXPORT = "export default { render };\n"  # the script's last line


class Player(anywidget.AnyWidget):
    """All frames travel once, so scrubbing asks no kernel. The output also carries a page that needs none."""

    _esm = SCRIPT
    _css = STYLE
    frames = traitlets.Dict().tag(sync=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": static_html(self.frames), "text/plain": self.frames["text"]}, metadata


def player(trajectory: Any) -> Player:
    """A view of one inversion: play, pause, step, scrub; hover or focus a token to see what else was considered.

    trajectory: one entry of `Inversion.trajectories`. Raises `InputError` for anything else.
    """
    if not isinstance(trajectory, Trajectory):
        raise InputError(
            f"the player shows one Trajectory, got {type(trajectory).__name__}; "
            "pass result.trajectories[0] of result = inverter.invert(vectors)"
        )
    return Player(frames=frames(trajectory))


def frames(trajectory: Trajectory) -> dict[str, Any]:
    """Every step at once, as small as JSON stays readable. Probabilities are whole thousandths.

    tokens[step][position]: index into `pieces`; -1 while masked
    confidence[step][position]: probability of the shown token when written; -1 where there is none
    top[step][position]: [piece, probability, piece, probability, …]; empty where the model was not asked
    pinned: positions that were given rather than uncovered
    """
    asked = trajectory.top_ids >= 0
    used = np.unique(np.concatenate([trajectory.tokens[~trajectory.masked], trajectory.top_ids[asked]])).tolist()
    place = {token: index for index, token in enumerate(used)} | {-1: -1}
    shown = np.where(trajectory.masked, -1, trajectory.tokens).tolist()
    return {
        "pieces": [trajectory.pieces[token] for token in used],
        "tokens": [[place[token] for token in step] for step in shown],
        "confidence": _thousandths(np.where(trajectory.masked, np.nan, trajectory.confidence)),
        "top": [
            [
                [n for token, p in zip(ids, probs, strict=True) if token >= 0 for n in (place[token], p)]
                for ids, probs in zip(*step, strict=True)
            ]
            for step in zip(trajectory.top_ids.tolist(), _thousandths(trajectory.top_probs), strict=True)
        ],
        "pinned": np.flatnonzero(trajectory.pinned).tolist(),
        "text": trajectory.text,
    }


def static_html(frames: dict[str, Any]) -> str:
    """The same player for a page without a kernel; where scripts do not run, its steps below each other."""
    steps = "\n".join(f"{step:3d}  {_line(frames, step)}" for step in range(len(frames["tokens"])))
    # `<` as \u003c: no token can end the script or open a comment in it.
    told = json.dumps({"style": STYLE.read_text(encoding="utf-8"), "frames": frames}, separators=(",", ":"))
    told = told.replace("<", "\\u003c")
    # By content, not at random: a notebook that is executed again keeps its output byte by byte.
    name = hashlib.sha256(told.encode()).hexdigest()[:12]
    return (
        f'<div data-invlib-player="{name}"><pre>{escape(steps)}</pre></div>\n'
        f'<script type="module">\n{SCRIPT.read_text(encoding="utf-8")}\nmount("{name}", {told});\n</script>'
    )


def _line(frames: dict[str, Any], step: int) -> str:
    return " ".join("[MASK]" if piece < 0 else frames["pieces"][piece] for piece in frames["tokens"][step])


def _thousandths(probabilities: np.ndarray) -> list:
    """Nested lists of whole thousandths; -1 for NaN."""
    return np.rint(np.nan_to_num(1000.0 * probabilities.astype(float), nan=-1)).astype(int).tolist()
