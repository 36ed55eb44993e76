"""Picture: the frames of a player as a moving picture that needs no script: animated SVG, GIF."""

import io
from dataclasses import dataclass
from html import escape
from typing import Any

from invlib.widgets import page
from invlib.widgets.player import GONE, MASKED

WIDTH, MARGIN, GAP, HEIGHT, TOP = 860, 28, 8, 38, 66  # user units; HEIGHT of a tile, TOP of the first one
GLYPH = 9.1  # width of one letter of the tiles
LEAD, STEP, HOLD = 1.2, 0.7, 4.0  # seconds: before the first step, of each step, after the last
SCALE = 2  # pixels of the GIF per user unit

STYLE = """
svg {{ font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; {light} }}
@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}
text {{ fill: var(--ink) }} .quiet {{ fill: var(--quiet); font-size: 13px }}
.panel {{ fill: var(--panel); stroke: var(--line) }} .track {{ fill: var(--masked) }} .bar {{ fill: var(--confidence) }}
.tile {{ fill: var(--tile); stroke: var(--line) }} .masked {{ fill: var(--masked) }}
.draft {{ fill: var(--tile); stroke: var(--quiet); stroke-dasharray: 4 3 }}
.new {{ fill: var(--tile); stroke: var(--uncovered); stroke-width: 2 }}
.word {{ font: 15px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; text-anchor: middle }}
.frame {{ opacity: 0; animation-duration: {seconds:.1f}s; animation-iteration-count: infinite;
animation-timing-function: step-end }} .last {{ opacity: 1 }}
@media (prefers-reduced-motion: reduce) {{ .frame {{ animation: none !important }} }}
"""


@dataclass(frozen=True)
class Tile:
    """One token of one step, where it stands. state: masked, new (in this step), draft (it may still change), tile."""

    x: float
    y: float
    width: float
    word: str
    state: str
    probability: float | None


def svg(frames: dict[str, Any]) -> bytes:
    """An animated SVG in the colours of the reader's theme; it runs no script and loads nothing.

    Without animation (asked for by the reader's system, or on paper) it shows the last step.
    """
    rows, last = tiles(frames), len(frames["tokens"]) - 1
    seconds, height = LEAD + STEP * max(last - 1, 0) + HOLD, _height(rows)
    starts = [0.0, *(100 * (LEAD + STEP * step) / seconds for step in range(last)), 100.0]
    moves = [
        f"@keyframes f{step} {{ 0% {{ opacity: {int(step == 0)} }} {starts[step]:.2f}% {{ opacity: 1 }} "
        f"{starts[step + 1]:.2f}%, 100% {{ opacity: {int(step == last)} }} }}"
        for step in range(last + 1)
    ]
    style = STYLE.format(light=page.colours(is_dark=False), dark=page.colours(is_dark=True), seconds=seconds)
    groups = [
        f'<g class="frame{" last" * (step == last)}" style="animation-name: f{step}">'
        f'<text class="quiet" x="{MARGIN}" y="40">{escape(_caption(frames, step))}</text>'
        f"{''.join(map(_tile, row))}</g>"
        for step, row in enumerate(rows)
    ]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img">\n<title>{escape(f"From a vector alone, in {last} steps: ")}{escape(frames["text"])}</title>',
        f"<style>{style}{''.join(moves)}</style>",
        f'<rect class="panel" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="12"/>',
        *groups,
        "</svg>\n",
    ]
    return "\n".join(lines).encode()


def gif(frames: dict[str, Any]) -> bytes:
    """The same as an animated GIF, light, for where an SVG is not shown. It needs Pillow."""
    from PIL import Image, ImageDraw  # only here: a page without pictures does without

    rows, fonts = tiles(frames), _fonts()
    size = (WIDTH * SCALE, int(_height(rows) * SCALE))
    colour = page.colour_by_name(is_dark=False)
    pictures = []
    for step, row in enumerate(rows):
        picture = Image.new("RGB", size, colour["panel"])
        pen = ImageDraw.Draw(picture)
        pen.text((MARGIN * SCALE, 26 * SCALE), _caption(frames, step), fill=colour["quiet"], font=fonts["text"])
        for tile in row:
            _draw(pen, tile, colour, fonts["word"])
        pictures.append(picture.quantize(64))
    waits = [LEAD, *(STEP for _ in rows[2:]), HOLD] if len(rows) > 1 else [HOLD]
    file, times = io.BytesIO(), [int(1000 * seconds) for seconds in waits]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0)
    return file.getvalue()


def tiles(frames: dict[str, Any]) -> list[list[Tile]]:
    """The tiles of every step. A column is as wide as its widest word, so that only an edit moves what stands."""
    words = [*frames["pieces"], "", "[MASK]"]  # -1 is the last one, -2 the one before
    shown = frames["tokens"]
    widths = [GLYPH * max(len(words[piece]) for piece in column) + 20 for column in zip(*shown, strict=True)]
    rows = []
    for step, row in enumerate(shown):
        places, x, y = [], MARGIN, TOP
        for position, piece in enumerate(row):
            if piece == GONE:
                continue
            if x > MARGIN and x + widths[position] > WIDTH - MARGIN:
                x, y = MARGIN, y + HEIGHT + GAP
            p = frames["confidence"][step][position]
            state = _state(frames, step, position)
            places.append(Tile(x, y, widths[position], words[piece], state, None if p < 0 else p / 1000))
            x += widths[position] + GAP
        rows.append(places)
    return rows


def _state(frames: dict[str, Any], step: int, position: int) -> str:
    piece = frames["tokens"][step][position]
    if piece == MASKED:
        return "masked"
    if step and frames["tokens"][step - 1][position] != piece:
        return "new"
    return "draft" if step < frames["open"] else "tile"


def _height(rows: list[list[Tile]]) -> float:
    return max(tile.y for row in rows for tile in row) + HEIGHT + MARGIN


def _caption(frames: dict[str, Any], step: int) -> str:
    cosine = frames["cosines"].get(str(step))
    told = "" if cosine is None else f" · cosine {cosine:.3f}"
    return f"From the vector alone · step {step} of {len(frames['tokens']) - 1}{told}"


def _tile(tile: Tile) -> str:
    box = f'x="{tile.x:.1f}" y="{tile.y}" width="{tile.width:.1f}" height="{HEIGHT}" rx="6"'
    word = f'<text class="word" x="{tile.x + tile.width / 2:.1f}" y="{tile.y + 23}">{escape(tile.word)}</text>'
    drawn = f'<rect class="{tile.state}" {box}/>{word}'
    if tile.probability is not None:
        bar = f'x="{tile.x + 8:.1f}" y="{tile.y + HEIGHT - 7}" height="3" rx="1.5"'
        whole = tile.width - 16
        drawn += f'<rect class="track" {bar} width="{whole:.1f}"/>'
        drawn += f'<rect class="bar" {bar} width="{tile.probability * whole:.1f}"/>'
    return drawn


def _draw(pen: Any, tile: Tile, colour: dict[str, str], font: Any) -> None:
    left, top, right, bottom = (SCALE * v for v in (tile.x, tile.y, tile.x + tile.width, tile.y + HEIGHT))
    line, fill = {"masked": ("masked", "masked"), "new": ("uncovered", "tile"), "draft": ("quiet", "tile")}.get(
        tile.state, ("line", "tile")
    )
    pen.rounded_rectangle(
        (left, top, right, bottom), 6 * SCALE, colour[fill], colour[line], 2 * SCALE if tile.state == "new" else SCALE
    )
    ink = colour["quiet" if tile.state in ("masked", "draft") else "ink"]
    pen.text(((left + right) / 2, top + 17 * SCALE), tile.word, fill=ink, font=font, anchor="mm")
    if tile.probability is not None:
        left, right, top = left + 8 * SCALE, right - 8 * SCALE, bottom - 7 * SCALE
        for name, share in (("masked", 1.0), ("confidence", tile.probability)):
            pen.rectangle((left, top, left + share * (right - left), top + 3 * SCALE), colour[name])


def _fonts() -> dict[str, Any]:
    """DejaVu, which comes with matplotlib and knows more letters than Pillow's own."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    folder = f"{get_data_path()}/fonts/ttf"
    sizes = {"word": ("DejaVuSansMono", 15), "text": ("DejaVuSans", 13)}
    return {use: ImageFont.truetype(f"{folder}/{name}.ttf", size * SCALE) for use, (name, size) in sizes.items()}
