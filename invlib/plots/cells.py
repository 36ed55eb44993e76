"""Cells: a word in each, coloured by a value; rows are steps, policies or depths, columns are positions."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from invlib.plots.style import FRAME, MASKED, WIDTH
from invlib.trajectory import Trajectory

ON_LIGHT, ON_DARK = "#010101", "#fefefe"  # words on a cell, whose colour is the same in every theme
NARROW = 9  # columns; with more of them, words are turned


def plot_trajectory(trajectory: Trajectory, ax: Axes | None = None) -> Axes:
    """Token × step: grey while masked, then coloured by the confidence with which the token was written.

    A framed cell was uncovered in that step.
    """
    steps = range(trajectory.num_steps + 1)
    words = np.where(trajectory.masked, "", np.array([trajectory.words(step) for step in steps], object))
    labels = {"xlabel": "position (token)", "ylabel": "step", "yticks": steps}
    return _cells(ax, trajectory.confidence, words, "probability when written", framed=trajectory.uncovered, **labels)


def plot_order(trajectories: dict[str, Trajectory], ax: Axes | None = None) -> Axes:
    """In which step each position became visible: one row per policy, early steps dark."""
    order = np.stack([trajectory.uncovered_at for trajectory in trajectories.values()])
    names = [name.replace("_", " ") for name in trajectories]
    labels = {"xlabel": "position (token)", "yticks": range(len(order)), "yticklabels": names}
    return _cells(ax, order, order.astype(str), "step", limits=(None, None), **labels)


def plot_token_gradients(gradients: Float[Tensor, "length embed"], words: list[str], ax: Axes | None = None) -> Axes:
    """Which tokens pull the vector the same way: cosines of `probes.token_gradients`; their lengths at the left."""
    norms = gradients.norm(dim=1, keepdim=True)
    unit = gradients / norms.clamp_min(1e-12)
    cosines = (unit @ unit.T).numpy()
    shown = np.vectorize("{:.1f}".format)(np.round(cosines, 1) + 0.0)
    lengths = [f"{word}  {norm:.2f}" for word, norm in zip(words, norms[:, 0], strict=True)]
    labels = {"ylabel": "token, and length of its gradient", "yticks": range(len(words)), "yticklabels": lengths}
    return _cells(ax, cosines, shown, "cosine of the gradients", below=words, limits=(-1, 1), **labels)


def plot_logit_lens(words: list[list[str]], probabilities: np.ndarray, true: list[str], ax: Axes | None = None) -> Axes:
    """Depth × position: the likeliest word if the model stopped there, coloured by its probability.

    A frame marks the true word. words, probabilities: one row per depth; depth 0 is the embedding tables alone.
    """
    shown, label = np.array(words), "probability of the word shown"
    labels = {"xlabel": "the true token at each position", "ylabel": "layers passed", "yticks": range(len(words))}
    return _cells(ax, probabilities, shown, label, framed=shown == np.array(true), below=true, **labels)


def _cells(ax, values, words, label: str, *, framed=(), below: Sequence[str] = (), limits=(0, 1), **labels) -> Axes:
    """Cells coloured by value [row, column], a word in each, some framed, and the scale of the colours."""
    rows, columns = values.shape
    turned = columns > NARROW and max(map(len, words.ravel())) > 4
    ax = ax or plt.subplots(figsize=(WIDTH, 1.3 + rows * (0.55 if turned else 0.27)))[1]
    colors = "RdBu_r" if limits[0] == -1 else "viridis"
    image = ax.imshow(values, aspect="auto", cmap=colors, vmin=limits[0], vmax=limits[1])
    ax.set_facecolor(MASKED)  # seen through cells without a value; in the image itself it would stay light in the dark
    for row, column in np.argwhere(words != ""):
        luminance = np.dot(image.to_rgba(values[row, column])[:3], (0.2126, 0.7152, 0.0722))  # weights of WCAG
        color = ON_LIGHT if luminance > 0.45 else ON_DARK  # whichever contrasts more
        style = {"ha": "center", "va": "center", "rotation": 45 * turned, "color": color}
        ax.text(column, row, words[row, column], fontsize=7.5, **style)
    for row, column in np.argwhere(framed):
        ax.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, lw=1.6, ec=FRAME))
    if below:
        ax.set_xticks(range(columns), below, rotation=45, ha="right", rotation_mode="anchor")
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label=label)
    ax.set(**labels)
    return ax
