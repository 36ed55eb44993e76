"""Take: what is shown as a file: a page that plays it, moving pictures, what was seen at every step."""

import io
import re
import zipfile
from collections.abc import Sequence
from html import escape
from typing import Any

from invlib.errors import InputError
from invlib.trajectory import Trajectory
from invlib.widgets import page, picture, player


def taken(kind: str, lanes: Sequence[dict[str, Any]], trajectories: Sequence[Trajectory], **of: Any) -> bytes:
    """A file that shows one run, or several side by side.

    kind: html, svg, gif, npz, or zip of one npz for each. lanes: `label` and `frames` of each run, and, for a page of
    several, what stands below it. of: the `sentence` and the `vector` [n] that they invert, for pictures.
    """
    if kind == "npz":
        return trajectories[0].packed()
    if kind == "zip":
        with zipfile.ZipFile(file := io.BytesIO(), "w") as together:
            for number, (lane, own) in enumerate(zip(lanes, trajectories, strict=True), 1):
                together.writestr(f"{number}-{re.sub(r'[^0-9a-z]+', '-', lane['label'])}.npz", own.packed())
        return file.getvalue()
    if kind not in ("html", "svg", "gif"):
        raise InputError(f"there is no file of the kind {kind!r}; choose html, svg, gif or npz")
    return _page(lanes, of["sentence"]) if kind == "html" else getattr(picture, kind)(lanes, **of)


def _page(lanes: Sequence[dict[str, Any]], sentence: str) -> bytes:
    lines = [line for lane in lanes for line in (lane["label"], *player.lines(lane["frames"]))]
    several, title = (*player.PARTS, "lanes"), picture.title(lanes, sentence)
    shown = player.static_html(lanes[0]["frames"])
    if len(lanes) > 1:
        shown = page.static_html("lanes", lanes, lines, several, ("player", "lanes"))
    return page.whole(title, f'<p style="font: 16px system-ui, sans-serif">{escape(title)}</p>{shown}').encode()
