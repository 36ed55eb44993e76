"""Picture and table: how a figure and a data frame stand on a page, in the light and in the dark, with their text."""

import base64
import io
import re
from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invlib.errors import InputError
from invlib.metrics import words
from invlib.plots.style import DARK

HEX = re.compile(r"#[0-9a-f]{6}")
NUMBER = re.compile(r"[-–+−]?[\d.,]+( ?%| ?\(.*\))?")
# A picture takes the theme of the place where it stands: its own media query asks the element around it.
PICTURE_STYLE = """<style>
.invlib-figure { margin: 0 0 1em } .invlib-figure div { overflow-x: auto }
.invlib-figure img { display: block; width: 100%; min-width: 560px; max-width: 760px }
[data-jp-theme-light="false"] .invlib-figure img, [data-theme="dark"] .invlib-figure img { color-scheme: dark }
[data-jp-theme-light="true"] .invlib-figure img, [data-theme="light"] .invlib-figure img { color-scheme: light }
</style>"""
TABLE_STYLE = """<style>
.invlib-table { overflow-x: auto } .invlib-table table { border-collapse: collapse; margin: 0 }
.invlib-table :is(th, td) { padding: 0.3em 0.8em; text-align: left; vertical-align: top; border: 0 }
.invlib-table tr { border-bottom: 1px solid #8886; background: none }
.invlib-table .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
</style>"""


@dataclass(frozen=True)
class Page:
    """What a cell shows: HTML, and plain text where there is none."""

    html: str
    text: str

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


@dataclass(frozen=True)
class Picture(Page):
    """A figure with its caption, and words for whoever cannot see it."""

    svg: str


class Marked(str):
    """Text whose recovered words are marked: it is HTML already."""


def picture(drawn: Axes | Figure | np.ndarray, caption: str, alt: str) -> Picture:
    """A drawn figure as an SVG in both themes. The figure is closed, so that no notebook shows it twice.

    caption: what it says; alt: what is to be seen. Raises `InputError` where one is missing.
    """
    if not caption.strip() or not alt.strip():
        raise InputError("a picture needs a caption and an alt text; say what it shows and what is to be seen")
    figure = drawn if isinstance(drawn, Figure) else np.ravel(drawn)[0].figure
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = themed(file.getvalue())
    data = base64.b64encode(svg.encode()).decode()
    image = f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
    html = f'<figure class="invlib-figure"><div>{image}</div><figcaption>{escape(caption)}</figcaption></figure>'
    return Picture(html + PICTURE_STYLE, f"{caption}\n{alt}", svg)


def themed(svg: str) -> str:
    """The same SVG with every colour of the style as a variable that the reader's theme sets."""
    body = re.sub(r' (width|height)="[\d.]+pt"', "", svg[svg.index("<svg ") :], count=2)
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    used = sorted({colour for colour in HEX.findall(body) if colour in DARK})
    light, dark = (" ".join(f"--{c[1:]}: {to};" for c, to in pairs) for pairs in (_same(used), _partners(used)))
    body = HEX.sub(lambda found: f"var(--{found[0][1:]})" if found[0] in DARK else found[0], body)
    theme = f"<style>svg {{ {light} }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda found: found[0] + theme, body, count=1)


def _same(colours: list[str]) -> list[tuple[str, str]]:
    return [(colour, colour) for colour in colours]


def _partners(colours: list[str]) -> list[tuple[str, str]]:
    return [(colour, DARK[colour]) for colour in colours]


def table(frame: pd.DataFrame, digits: int = 3) -> Page:
    """A data frame to be read: no counter beside the rows, numbers to the right and with separators.

    A named index is a column. Text that `marked` gives keeps its marks.
    """
    if any(frame.index.names):
        frame = frame.reset_index()
    elif not isinstance(frame.index, pd.RangeIndex) and frame.index.dtype == object:
        frame = frame.rename_axis("").reset_index()
    cells = [[_cell(value, digits) for value in row] for row in frame.itertuples(index=False, name=None)]
    right = [
        all(NUMBER.fullmatch(row[place]) or row[place] in ("", "–") for row in cells) for place in range(frame.shape[1])
    ]
    kinds = [' class="number"' if is_number else "" for is_number in right]
    heads = (" ".join(map(str, filter(None, name))) if isinstance(name, tuple) else str(name) for name in frame.columns)
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, heads, strict=True))
    lines = ["".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in cells]
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    html = f'<div class="invlib-table"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    return Page(html + TABLE_STYLE, frame.to_string(index=False, float_format=f"{{:.{digits}f}}".format))


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, Marked):
        return str(value)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:,.{digits}f}"
    return escape(str(value))


def marked(reference: str, text: str) -> Marked:
    """A recovered text, with every word that the reference has as well in bold; each of its words counts once."""
    left, shown = Counter(words(reference)), []
    for piece in text.split():
        own = Counter(words(piece))
        is_there = bool(own) and own <= left
        left -= own if is_there else Counter()
        shown.append(f"<b>{escape(piece)}</b>" if is_there else escape(piece))
    return Marked(" ".join(shown))
