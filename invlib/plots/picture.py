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
LONG = 24  # characters of a sentence
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
.invlib-table .text { min-width: 12em }
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
    light = " ".join(f"--{colour[1:]}: {colour};" for colour in used)
    dark = " ".join(f"--{colour[1:]}: {DARK[colour]};" for colour in used)
    body = HEX.sub(lambda found: f"var(--{found[0][1:]})" if found[0] in DARK else found[0], body)
    theme = f"<style>svg {{ {light} }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda found: found[0] + theme, body, count=1)


def table(frame: pd.DataFrame, digits: int = 3, *, recovered: str = "", of: str = "") -> Page:
    """A data frame to be read: no counter beside the rows, numbers to the right and with separators.

    An index with names, or of names, is a column. Whole numbers stand without decimals where most of a column's numbers
    above 1 are whole, as strengths and counts are. recovered: columns of texts, with a bar between them, in which the
    words of column `of` are bold.
    """
    if any(frame.index.names) or not pd.api.types.is_numeric_dtype(frame.index):
        frame = frame.rename_axis([name or "" for name in frame.index.names]).reset_index()
    shown = frame.apply(lambda column: _cells(column, digits)).astype(object)
    text = shown.to_string(index=False)
    right = [shown[name].map(lambda cell: bool(NUMBER.fullmatch(cell)) or cell in ("", "–")).all() for name in shown]
    texts = [*filter(None, recovered.split("|"))]
    shown = shown.apply(lambda column: column if column.name in texts else column.map(escape))
    for name in texts:
        shown[name] = [marked(*pair) for pair in zip(frame[of], frame[name], strict=True)]
    names = [" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]
    long = [shown[name].map(len).max() > LONG for name in shown]  # too narrow a column of sentences makes high rows
    kinds = [' class="number"' if r else ' class="text"' if wide else "" for r, wide in zip(right, long, strict=True)]
    head = "".join(f"<th{kind}>{escape(name.replace('_', ' '))}</th>" for kind, name in zip(kinds, names, strict=True))
    lines = [
        "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in shown.to_numpy()
    ]
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    html = f'<div class="invlib-table"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    return Page(html + TABLE_STYLE, text)


def _cells(column: pd.Series, digits: int) -> pd.Series:
    whole = {value: value.is_integer() for value in column if isinstance(value, float)}  # numpy's are floats, too
    large = [is_whole for value, is_whole in whole.items() if abs(value) > 1]
    plain = {value for value, is_whole in whole.items() if is_whole and 2 * sum(large) > len(large)}
    return column.map(lambda value: _cell(value, 0 if isinstance(value, float) and value in plain else digits))


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:,.{digits}f}"
    return str(value).replace("_", " ") if str(value).isidentifier() else str(value)


def marked(reference: str, text: str) -> str:
    """A recovered text as HTML: bold is every word that the reference has too; each of its words counts once."""
    left, shown = Counter(words(reference)), []
    for piece in text.split():
        own = Counter(words(piece))
        is_there = bool(own) and own <= left
        left -= own if is_there else Counter()
        shown.append(f"<b>{escape(piece)}</b>" if is_there else escape(piece))
    return " ".join(shown)
