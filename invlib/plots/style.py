"""Style: the colours and what each means, in the light and in the dark; the width of a figure."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt

STYLE = Path(__file__).with_name("invlib.mplstyle")
WIDTH = 7.17  # inches: 688 px on a page
PANEL, INK, QUIET, LINE = "#ffffff", "#1f2328", "#59626c", "#d5dade"
MASKED = "#e8eaed"  # a cell without a word
REFERENCE = "#7c858e"  # what the data are held against: a diagonal, a control, the other groups of a panel
BLUE, ORANGE, GREEN, PINK, GOLD = "#0072b2", "#d55e00", "#00795a", "#a84a80", "#8a6d00"
FRAME = ORANGE  # around a cell: written in this step, or the true word
DARK = {
    PANEL: "#15181c",
    INK: "#e6e8eb",
    QUIET: "#a0a9b3",
    LINE: "#394048",
    MASKED: "#2a2f36",
    REFERENCE: "#8b949e",
    BLUE: "#56b4e9",
    ORANGE: "#f0953f",
    GREEN: "#2fc79b",
    PINK: "#e29bc4",
    GOLD: "#f0e442",
}
# Who reads, or what is read, has one colour in every notebook.
MEANINGS = {
    **dict.fromkeys(("inverted", "naive", "not told", "conditional", "attention", "embedding itself"), BLUE),
    **dict.fromkeys(("adapted", "attackers who know the defence", "feed-forward", "modulation"), ORANGE),
    **dict.fromkeys(("told", "noise-aware", "nearest sentence", "known pairs"), GREEN),
    **dict.fromkeys(("shuffled embeddings", "shuffled", "by chance"), PINK),
    **dict.fromkeys(("unconditional prior", "null", "base"), REFERENCE),
}
MARKERS = "osD^vPX*<>hp"
MARKS = dict(zip((BLUE, ORANGE, GREEN, PINK, REFERENCE, GOLD), MARKERS, strict=False))


def use_style() -> None:
    """Apply the workbench's style; a notebook calls it once."""
    plt.style.use(STYLE)


def colours(names: Iterable[str]) -> dict[str, str]:
    """The colour of each name: by what it means, else the first that no other has; blue where it stands alone."""
    names = list(dict.fromkeys(map(str, names)))
    found = {name: MEANINGS[name] for name in names if name in MEANINGS}
    free = [colour for colour in MARKS if colour not in found.values()] or [BLUE]
    unknown = [name for name in names if name not in found]
    return found | {name: free[place % len(free)] for place, name in enumerate(unknown)}
