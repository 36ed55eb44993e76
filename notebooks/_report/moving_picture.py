"""Draw one real inversion as an animated SVG: the picture at the top of the README and of the report.

python notebooks/_report/moving_picture.py                     the picture that is committed
python notebooks/_report/moving_picture.py "Any other text."   the same of another sentence

Without animation (asked for by the reader's system, or on paper) it shows the end. It runs no script and loads nothing.
"""

import argparse
from dataclasses import dataclass
from html import escape
from pathlib import Path

import invlib
import numpy as np
from invlib.trajectory import Trajectory
from invlib.widgets.page import colours

PICTURE = Path(__file__).with_name("inversion.svg")
SENTENCE = "Meet me at the station at nine."
STEPS = 8
WIDTH, MARGIN, LABEL, GAP, TILE_HEIGHT = 860, 28, 112, 8, 38
GLYPH = 9.1  # width of one letter of the tiles, in user units
LEAD, STEP, HOLD = 2.4, 0.8, 4.5  # seconds: before the first step, of each step, after the last

STYLE = """
svg { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; %(light)s }
@media (prefers-color-scheme: dark) { svg { %(dark)s } }
text { fill: var(--ink) } .quiet { fill: var(--quiet); font-size: 13px }
.panel { fill: var(--panel); stroke: var(--line) } .up { fill: var(--confidence) } .down { fill: var(--uncovered) }
.tile { fill: none; stroke: var(--line) } .hidden, .track { fill: var(--masked) }
.ring { fill: none; stroke: var(--uncovered); stroke-width: 2 }
.word { font: 15px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; text-anchor: middle }
.mask, .ring, .while { opacity: 0 } .mask .word { fill: var(--quiet) }
.now { animation-duration: %(seconds)gs; animation-iteration-count: infinite; animation-timing-function: step-end }
@media (prefers-reduced-motion: reduce) { .now { animation: none } }
"""


@dataclass(frozen=True)
class Clock:
    """When each step begins, as a share of the whole in percent."""

    num_steps: int

    @property
    def seconds(self) -> float:
        return LEAD + STEP * (self.num_steps - 1) + HOLD

    def percent(self, step: int) -> float:
        """The begin of a step; step 0 is the beginning, the one after the last the end."""
        if step > self.num_steps:
            return 100.0
        return 100 * (LEAD + STEP * (step - 1)) / self.seconds if step else 0.0

    def keyframes(self) -> str:
        """`from-k`: shown from step k on; `until-k`: shown before it; `in-k`: shown in it alone."""
        rules = []
        for step in range(self.num_steps + 1):
            begin, end = self.percent(step), self.percent(step + 1)
            rules += [
                f"@keyframes from-{step} {{ 0% {{ opacity: {int(step == 0)} }} {begin:.2f}%, 100% {{ opacity: 1 }} }}",
                f"@keyframes until-{step} {{ 0% {{ opacity: 1 }} {begin:.2f}%, 100% {{ opacity: 0 }} }}",
                f"@keyframes in-{step} {{ 0% {{ opacity: {int(step == 0)} }} {begin:.2f}% {{ opacity: 1 }} "
                f"{end:.2f}%, 100% {{ opacity: {int(step == self.num_steps)} }} }}",
            ]
        return "\n".join(rules)


def moving_picture(trajectory: Trajectory, sentence: str, vector: np.ndarray, cosine: float) -> str:
    """The SVG: sentence, vector [embed_dim], tiles that are uncovered step by step, and the text in the end."""
    clock = Clock(trajectory.num_steps)
    tiles, bottom = _tiles(trajectory, top=158)
    counter = [
        f'<text class="quiet while now" style="animation-name: in-{step}{"; opacity: 1" * (step == clock.num_steps)}" '
        f'x="{WIDTH - MARGIN}" y="142" text-anchor="end">step {step} of {clock.num_steps}</text>'
        for step in range(clock.num_steps + 1)
    ]
    lines = [
        f'<text x="{MARGIN}" y="38" class="quiet">a sentence</text>',
        f'<text x="{MARGIN + LABEL}" y="38">{escape(sentence)}</text>',
        f'<text x="{MARGIN}" y="84" class="quiet">its embedding</text>',
        _strip(vector, x=MARGIN + LABEL, y=58, width=WIDTH - 2 * MARGIN - LABEL, height=38),
        f'<text x="{MARGIN}" y="142" class="quiet">from these {len(vector)} numbers alone:</text>',
        *counter,
        *tiles,
        f'<g class="now" style="animation-name: from-{clock.num_steps}">'
        f'<text x="{MARGIN}" y="{bottom + 34}" class="quiet">recovered</text>'
        f'<text x="{MARGIN + LABEL}" y="{bottom + 34}">{escape(trajectory.text)}</text>'
        f'<text x="{WIDTH - MARGIN}" y="{bottom + 34}" class="quiet" text-anchor="end">cosine {cosine:.3f}</text></g>',
    ]
    height = bottom + 56
    style = STYLE % {"seconds": clock.seconds, "light": colours(is_dark=False), "dark": colours(is_dark=True)}
    said = f"From the embedding of “{sentence}” the model recovers “{trajectory.text}” in {clock.num_steps} steps."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img">\n<title>{escape(said)}</title>\n<style>{style}{clock.keyframes()}\n</style>\n'
        f'<rect class="panel" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="12"/>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )


def _strip(vector: np.ndarray, *, x: float, y: float, width: float, height: float) -> str:
    """One bar per entry, upwards or downwards from the middle; two paths, so that the file stays small."""
    step, middle = width / len(vector), y + height / 2
    sizes = height / 2 * np.clip(vector / np.quantile(np.abs(vector), 0.98), -1, 1)
    bars = {"up": [], "down": []}
    for index, size in enumerate(sizes):
        bars["up" if size > 0 else "down"].append(
            f"M{x + index * step:.1f} {middle:.1f}v{-size:.1f}h{0.7 * step:.1f}v{size:.1f}z"
        )
    return "".join(f'<path class="{name}" d="{"".join(paths)}"/>' for name, paths in bars.items())


def _tiles(trajectory: Trajectory, top: float) -> tuple[list[str], float]:
    """Every position: masked until its step, ringed in it, then the word and its probability; and where they end."""
    drawn, x, y = [], MARGIN, top
    final, steps = trajectory.words(trajectory.num_steps), trajectory.uncovered_at
    for position, word in enumerate(final):
        width = GLYPH * max(len(word), len("[MASK]")) + 20
        if x + width > WIDTH - MARGIN:
            x, y = MARGIN, y + TILE_HEIGHT + 12
        step, probability = steps[position], float(trajectory.confidence[-1, position])
        box = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{TILE_HEIGHT}" rx="6"'
        label = f'class="word" x="{x + width / 2:.1f}" y="{y + 22}"'
        bar = f'x="{x + 10:.1f}" y="{y + TILE_HEIGHT - 8}" height="3" rx="1.5"'
        drawn.append(
            f'<g class="mask now" style="animation-name: until-{step}">'
            f'<rect class="hidden" {box}/><text {label}>[MASK]</text></g>'
            f'<g class="now" style="animation-name: from-{step}">'
            f'<rect class="tile" {box}/><text {label}>{escape(word)}</text>'
            f'<rect class="track" {bar} width="{width - 20:.1f}"/>'
            f'<rect class="up" {bar} width="{probability * (width - 20):.1f}"/></g>'
            f'<rect class="ring now" style="animation-name: in-{step}" {box}/>'
        )
        x += width + GAP
    return drawn, y + TILE_HEIGHT


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw one real inversion as an animated SVG.")
    parser.add_argument("sentence", nargs="?", default=SENTENCE, help=f"default: {SENTENCE}")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the .svg to write")
    args = parser.parse_args()
    inverter = invlib.Inverter.load("minilm")
    vectors = inverter.encoder.encode([args.sentence])
    result = inverter.invert(vectors, num_steps=STEPS, verify=True)
    picture = moving_picture(result.trajectories[0], args.sentence, vectors[0], float(result.cosines[0]))
    args.out.write_text(picture, encoding="utf-8")
    print(f"{args.out.name}  {len(picture.encode()) / 1e3:.0f} kB  {result.texts[0]}")


if __name__ == "__main__":
    main()
