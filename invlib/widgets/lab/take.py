"""Take: what is shown as a file: a page that plays it, moving pictures, what was seen at every step."""

import io
import re
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from invlib.errors import InputError
from invlib.trajectory import Trajectory
from invlib.widgets import page, picture, player

KINDS = ("html", "svg", "gif", "npz")


def taken(
    kind: str,
    lanes: Sequence[dict[str, Any]],
    trajectories: Sequence[Trajectory],
    sentence: str,
    vector: np.ndarray | None,
) -> tuple[str, bytes]:
    """The name and the bytes of a file that shows one run, or several side by side.

    kind: one of `KINDS`; several trajectories come as a .zip of .npz files. lanes: `label` and `frames` of each run,
    and for a page of several, what stands below it. sentence, vector [n]: what they invert, where both are known.
    """
    if kind not in KINDS:
        raise InputError(f"there is no file of the kind {kind!r}; choose one of {', '.join(KINDS)}")
    name = "inversion" if len(lanes) == 1 else "side-by-side"
    if kind == "npz":
        labels = [lane["label"] for lane in lanes]
        return (f"{name}.npz", _npz(*trajectories)) if len(lanes) == 1 else (f"{name}.zip", _zip(labels, trajectories))
    if kind == "html":
        return f"{name}.html", _page(lanes, picture.title(lanes, sentence)).encode()
    return f"{name}.{kind}", {"svg": picture.svg, "gif": picture.gif}[kind](lanes, sentence, vector)


def _page(lanes: Sequence[dict[str, Any]], title: str) -> str:
    if len(lanes) == 1:
        shown = player.static_html(lanes[0]["frames"])
    else:
        lines = [line for lane in lanes for line in (lane["label"], *player.lines(lane["frames"]), "")]
        shown = page.static_html("lanes", lanes, lines, (*player.PARTS, "lanes"), ("player", "lanes"))
    return page.whole(title, f'<p style="font: 16px system-ui, sans-serif">{escape(title)}</p>{shown}')


def _npz(trajectory: Trajectory) -> bytes:
    with TemporaryDirectory() as folder:
        trajectory.save(path := Path(folder) / "trajectory.npz")
        return path.read_bytes()


def _zip(labels: Sequence[str], trajectories: Sequence[Trajectory]) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as together:
        for number, (label, trajectory) in enumerate(zip(labels, trajectories, strict=True), 1):
            name = re.sub(r"\W+", "-", label)
            together.writestr(f"{number}-{name}.npz", _npz(trajectory))
    return file.getvalue()
