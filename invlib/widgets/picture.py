"""Picture: runs of one vector as a moving picture that needs no script: animated SVG, GIF.

`scenes` says what stands where at every step; two painters draw it. Without animation (asked for by the reader's
system, or on paper) an SVG shows the last step.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from invlib.widgets import page
from invlib.widgets.player import GONE, MASKED, words

WIDTH, MARGIN, LABEL, GAP, HEIGHT = 860, 28, 112, 8, 38  # user units; HEIGHT of a tile, LABEL before a sentence
GLYPH = 9.1  # width of one letter of the tiles
LEAD, STEP, HOLD = 1.6, 0.7, 4.0  # seconds: before the first step, of each step, after the last
SCALE = 2  # pixels of the GIF per user unit
# How boxes look: colours of the theme within and around, width of the line around, radius.
LOOKS = {
    "panel": ("panel", "line", 1, 12),
    "masked": ("masked", "masked", 1, 6),
    "draft": ("tile", "quiet", 1, 6),
    "new": ("tile", "uncovered", 2, 6),
    "tile": ("tile", "line", 1, 6),
    "track": ("masked", "masked", 0, 1),
    "bar": ("confidence", "confidence", 0, 1),
    "minus": ("uncovered", "uncovered", 0, 0),
}
UNSURE = ("masked", "draft", "quiet")  # whose text is in the quiet colour
STYLE = """
svg {{ font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; {light} }}
@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}
text {{ fill: var(--ink); dominant-baseline: central }} rect.draft {{ stroke-dasharray: 4 3 }}
text.quiet, text.masked, text.draft {{ fill: var(--quiet) }} .quiet {{ font-size: 13px }}
text:not(.text, .quiet) {{ font: 15px ui-monospace, Menlo, "DejaVu Sans Mono", monospace; text-anchor: middle }}
.frame {{ opacity: 0; animation-duration: {seconds:.1f}s; animation-iteration-count: infinite;
animation-timing-function: step-end }} .last {{ opacity: 1 }}
@media (prefers-reduced-motion: reduce) {{ .frame {{ animation: none !important }} }}
"""


@dataclass(frozen=True)
class Shape:
    """A box with a look of `LOOKS`, perhaps with a word in it; or a line of text or quiet text, which has no width."""

    x: float
    y: float
    look: str
    text: str = ""
    width: float = 0.0
    height: float = 0.0

    @property
    def middle(self) -> tuple[float, float]:
        """Where the text is: in a tile above its bar, else it begins here."""
        return self.x + self.width / 2, self.y + 17 * (self.width > 0)

    @property
    def svg(self) -> str:
        (x, y), drawn = self.middle, ""
        if self.width:
            place = f'x="{self.x:.1f}" y="{self.y:.1f}" width="{self.width:.1f}" height="{self.height:.1f}"'
            drawn = f'<rect class="{self.look}" {place} rx="{LOOKS[self.look][3]}"/>'
        return drawn + f'<text class="{self.look}" x="{x:.1f}" y="{y:.1f}">{escape(self.text)}</text>' * bool(self.text)

    def draw(self, pen: Any, colour: dict[str, str], fonts: dict[str, Any]) -> None:
        """On a picture of Pillow's."""
        if self.width:
            fill, line, width, radius = LOOKS[self.look]
            corners = [SCALE * v for v in (self.x, self.y, self.x + self.width, self.y + self.height)]
            pen.rounded_rectangle(corners, radius * SCALE, colour[fill], colour[line], width * SCALE)
        kind, ink = "word" if self.width else self.look, colour["quiet" if self.look in UNSURE else "ink"]
        if self.text:
            pen.text([SCALE * v for v in self.middle], self.text, ink, fonts[kind], "mm" if self.width else "lm")


def svg(lanes: Sequence[dict[str, Any]], sentence: str = "", vector: np.ndarray | None = None) -> bytes:
    """An animated SVG in the colours of the reader's theme; it runs no script and loads nothing.

    lanes: the runs, each with its `label` and its `frames` (`player.frames`). sentence, vector [n]: what they invert.
    """
    still, rows, height = scenes(lanes, sentence, vector)
    last = len(rows) - 1
    seconds = sum(_waits(last))
    starts = [0.0, *(100 * (LEAD + STEP * step) / seconds for step in range(last)), 100.0]
    moves = "".join(
        f"@keyframes f{step} {{ 0% {{ opacity: {int(step == 0)} }} {starts[step]:.2f}% {{ opacity: 1 }} "
        f"{starts[step + 1]:.2f}%, 100% {{ opacity: {int(step == last)} }} }}\n"
        for step in range(last + 1)
    )
    style = STYLE.format(light=page.colours(is_dark=False), dark=page.colours(is_dark=True), seconds=seconds)
    looks = "".join(
        f"rect.{name} {{ fill: var(--{fill}); stroke: var(--{line}); stroke-width: {width} }}\n"
        for name, (fill, line, width, _) in LOOKS.items()
    )
    groups = (
        f'<g class="frame{" last" * (step == last)}" style="animation-name: f{step}">'
        f"{''.join(shape.svg for shape in row)}</g>"
        for step, row in enumerate(rows)
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img">\n<title>{escape(title(lanes, sentence))}</title>',
        f"<style>{style}{looks}{moves}</style>",
        *(shape.svg for shape in still),
        *groups,
        "</svg>\n",
    ]
    return "\n".join(lines).encode()


def gif(lanes: Sequence[dict[str, Any]], sentence: str = "", vector: np.ndarray | None = None) -> bytes:
    """The same as an animated GIF, light, for where an SVG is not shown. It needs Pillow."""
    from PIL import Image, ImageDraw  # only here: a page without pictures does without

    (still, rows, height), fonts, colour = scenes(lanes, sentence, vector), _fonts(), page.colour_by_name(is_dark=False)
    pictures = []
    for row in rows:
        picture = Image.new("RGB", (WIDTH * SCALE, int(height * SCALE)), colour["panel"])
        pen = ImageDraw.Draw(picture)
        for shape in (*still, *row):
            shape.draw(pen, colour, fonts)
        pictures.append(picture.quantize(64))
    file, times = io.BytesIO(), [int(1000 * seconds) for seconds in _waits(len(rows) - 1)]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0)
    return file.getvalue()


def title(lanes: Sequence[dict[str, Any]], sentence: str) -> str:
    """What a picture shows, in words."""
    texts = [(f"{lane['label']}: " if lane["label"] else "") + f"“{lane['frames']['text']}”" for lane in lanes]
    return f"From the embedding{f' of “{sentence}”' if sentence else ''} the model writes {'; '.join(texts)}"


def scenes(
    lanes: Sequence[dict[str, Any]], sentence: str, vector: np.ndarray | None
) -> tuple[list[Shape], list[list[Shape]], float]:
    """What always stands there, what stands there at every step of the longest lane, and the height of it all."""
    still, y = [*_heading(sentence, vector)], 66.0 * bool(sentence) + 50.0 * (vector is not None)
    rows: list[list[Shape]] = [[] for _ in range(max(len(lane["frames"]["tokens"]) for lane in lanes))]
    for lane in lanes:
        frames, top = lane["frames"], y
        for step, row in enumerate(rows):
            at = min(step, len(frames["tokens"]) - 1)
            caption = Shape(MARGIN, top + 34, "quiet", _caption(lane["label"], frames, at))
            row += [caption, *_tiles(frames, at, top + 56)]
        y = max(shape.y for row in rows for shape in row if shape.height == HEIGHT) + HEIGHT
    height = y + MARGIN
    return [Shape(0.5, 0.5, "panel", "", WIDTH - 1, height - 1), *still], rows, height


def _heading(sentence: str, vector: np.ndarray | None) -> Iterator[Shape]:
    """The sentence, and its vector as bars."""
    if sentence:
        most = int((WIDTH - 2 * MARGIN - LABEL) / GLYPH)
        shown = sentence if len(sentence) <= most else sentence[: most - 1] + "…"
        yield from (Shape(MARGIN, 36, "quiet", "a sentence"), Shape(MARGIN + LABEL, 36, "text", shown))
    if vector is None:
        return
    y, width = (86.0 if sentence else 36.0), (WIDTH - 2 * MARGIN - LABEL) / len(vector)
    yield Shape(MARGIN, y, "quiet", "its embedding")
    sizes = 19 * np.clip(vector / np.quantile(np.abs(vector), 0.98), -1, 1)
    for index, size in enumerate(sizes.tolist()):
        x, look = MARGIN + LABEL + index * width, "bar" if size > 0 else "minus"
        yield Shape(x, y - max(size, 0), look, "", 0.7 * width, abs(size))


def _caption(label: str, frames: dict[str, Any], step: int) -> str:
    cosine, queries = frames["asked"].get(str(step), (None, 0))
    told = [label or "From the vector alone", f"step {step} of {len(frames['tokens']) - 1}"]
    if step and not any(frames["top"][step]):  # the model was not asked in this step
        told[0] = f"{label}: search" if label else "Searching closer"
    if cosine is not None:
        told += [f"{queries:,} {'query' if queries == 1 else 'queries'} to the encoder", f"cosine {cosine:.3f}"]
    return " · ".join(told)


def _tiles(frames: dict[str, Any], step: int, top: float) -> Iterator[Shape]:
    """The tiles of a step. A column is as wide as its widest word, so that only an edit moves what stands."""
    piece_of, x, y = words(frames), MARGIN, top
    for position, column in enumerate(zip(*frames["tokens"], strict=True)):
        piece, width = column[step], GLYPH * max(len(piece_of[piece]) for piece in column) + 20
        if piece == GONE:
            continue
        if x > MARGIN and x + width > WIDTH - MARGIN:
            x, y = MARGIN, y + HEIGHT + GAP
        p, bar = frames["confidence"][step][position] / 1000, (x + 8, y + HEIGHT - 7)
        yield Shape(x, y, _look(frames, step, position), piece_of[piece], width, HEIGHT)
        if p >= 0:
            yield from (Shape(*bar, "track", "", width - 16, 3), Shape(*bar, "bar", "", p * (width - 16), 3))
        x += width + GAP


def _look(frames: dict[str, Any], step: int, position: int) -> str:
    """masked, new (in this step), draft (it may still change) or tile."""
    piece = frames["tokens"][step][position]
    if piece == MASKED:
        return "masked"
    if step and frames["tokens"][step - 1][position] != piece:
        return "new"
    return "draft" if step < frames["open"] else "tile"


def _waits(last: int) -> list[float]:
    """Seconds of every step, up to the last one."""
    return [LEAD, *[STEP] * (last - 1), HOLD] if last else [HOLD]


def _fonts() -> dict[str, Any]:
    """DejaVu, which comes with matplotlib and knows more letters than Pillow's own."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    folder = f"{get_data_path()}/fonts/ttf"
    sizes = {"word": ("DejaVuSansMono", 15), "text": ("DejaVuSans", 14), "quiet": ("DejaVuSans", 13)}
    return {use: ImageFont.truetype(f"{folder}/{name}.ttf", size * SCALE) for use, (name, size) in sizes.items()}
