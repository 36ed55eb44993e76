"""player(trajectory): step through an inversion with a play button and a slider."""

from html import escape

import ipywidgets

from invlib.trajectory import Trajectory

# Grey: still masked. Blue, bold and underlined: uncovered in this step (colour is never the only sign).
MASKED = "color:#767676"
UNCOVERED = "color:#0072B2;font-weight:bold;text-decoration:underline"
MILLISECONDS_PER_STEP = 700


class Player(ipywidgets.VBox):
    """All frames travel once and are linked in the browser: scrubbing asks no kernel.

    Where no widget can live (a static page), the steps stand below each other.
    """

    def __init__(self, trajectory: Trajectory):
        last = trajectory.num_steps
        lines = [step_html(trajectory, step) for step in range(last + 1)]
        play = ipywidgets.Play(max=last, interval=MILLISECONDS_PER_STEP)
        slider = ipywidgets.IntSlider(max=last, description="step")
        frames = ipywidgets.Stack([ipywidgets.HTML(line) for line in lines], selected_index=0)
        ipywidgets.jslink((play, "value"), (slider, "value"))
        ipywidgets.jslink((slider, "value"), (frames, "selected_index"))
        super().__init__([ipywidgets.HBox([play, slider]), frames])
        self._static_html = "".join(f"<div>{step}: {line}</div>" for step, line in enumerate(lines))
        self._text = trajectory.text

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = super()._repr_mimebundle_(include=include, exclude=exclude)
        data, *metadata = bundle if isinstance(bundle, tuple) else (bundle,)
        data = {**data, "text/html": self._static_html, "text/plain": self._text}
        return (data, *metadata) if metadata else data


def player(trajectory: Trajectory) -> Player:
    """A view of one inversion: play, pause, scrub."""
    return Player(trajectory)


def step_html(trajectory: Trajectory, step: int) -> str:
    """The tokens of one step as HTML, each with its position and, once visible, its probability as a tooltip."""
    spans = []
    for position, word in enumerate(trajectory.words(step)):
        if trajectory.masked[step, position]:
            style, title = MASKED, f"position {position}: masked"
        else:
            is_new = trajectory.uncovered_at[position] == step
            style = UNCOVERED if is_new else ""
            title = f"position {position}: p = {trajectory.confidence[step, position]:.2f}"
        spans.append(f'<span style="{style}" title="{title}">{escape(word)}</span>')
    return '<span style="font-family:monospace">' + " ".join(spans) + "</span>"
