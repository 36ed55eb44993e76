"""plot_*(data, ax=None) -> Axes. Nothing is shown or saved here.

A group (an attacker, a perturbation, a part of the modulation) has one colour and one marker, by its place in the
table; `_interval` gives it both. The other colours have a name below and one meaning each.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from invlib.model import Modulation
from invlib.probes import SUBLAYERS, Components, parts
from invlib.trajectory import Trajectory

STYLE = Path(__file__).with_name("invlib.mplstyle")  # also the cycle of the groups' colours
MASKED = "#dddddd"  # a cell without a word
FRAME = "#d55e00"  # around a cell: written in this step, or the true word
REFERENCE = "#888888"  # what the data are held against: a diagonal, a control, the base of the ablations
MARKERS = "osD^vPX*<>hp"
DASHES = ("-", "--", "-.", ":")
AT_RIGHT = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # of a legend: beside the axes
METRICS = ("token_f1", "bleu", "exact_match", "edit_similarity", "cosine")


def use_style() -> None:
    """Apply the workbench's style; a notebook calls it once."""
    plt.style.use(STYLE)


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
    labels = {"xlabel": "position (token)", "yticks": range(len(order)), "yticklabels": list(trajectories)}
    return _cells(ax, order, order.astype(str), "step", limits=(None, None), **labels)


def plot_confidence(trajectories: Sequence[Trajectory], ax: Axes | None = None) -> Axes:
    """Ribbons over the steps: with which probability the tokens of each step were written, in many inversions.

    The line is the median, the dark ribbon holds half of the tokens, the light one nine in ten. Steps in which nothing
    was written are left out.
    """
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    written = [pd.Series(t.confidence[t.uncovered], index=t.uncovered.nonzero()[0]) for t in trajectories]
    spread = pd.concat(written).groupby(level=0).quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
    for low, high, alpha, label in ((0.05, 0.95, 0.15, "nine in ten tokens"), (0.25, 0.75, 0.35, "half of the tokens")):
        ax.fill_between(spread.index, spread[low], spread[high], alpha=alpha, lw=0, color="C0", label=label)
    ax.plot(spread[0.5], "o-", color="C0", label="median")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return _finish(ax, AT_RIGHT, xlabel="step", ylabel="probability when written", ylim=(0, 1.02))


def plot_modulation(modulation: Modulation, ax: Axes | None = None) -> Axes:
    """RMS of gate, scale and shift per sublayer, mean over the batch, with its spread (standard deviation)."""
    sizes = {name: value.square().mean(dim=-1).sqrt().flatten(1) for name, value in parts(modulation).items()}
    places = [f"{layer}\n{kind}" for layer in range(modulation.scale.shape[1]) for kind in ("attn", "ff")]
    ax = plot_intervals(_spread(sizes, places), "place", "group", ax)
    return _finish(ax, {"ncols": 3}, xlabel="layer and sublayer", ylabel="RMS over channels", ylim=(0, None))


def plot_gain(gain: Float[Tensor, "batch layer sublayer"], ax: Axes | None = None) -> Axes:
    """Effective gain of each sublayer (`probes.effective_gain`), mean over the batch and its spread; logarithmic."""
    sublayers = dict(zip(SUBLAYERS, gain.unbind(dim=2), strict=True))
    ax = plot_intervals(_spread(sublayers, [str(layer) for layer in range(gain.shape[1])]), "place", "group", ax)
    ax.axhline(1, color=REFERENCE, lw=1, ls="--")
    return _finish(ax, {}, xlabel="layer", ylabel="RMS added / RMS of the stream", yscale="log")


def plot_spectrum(components: dict[str, Components], ax: Axes | None = None) -> Axes:
    """Cumulative variance over the principal components; the participation ratio is in the legend and marked."""
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    for (name, found), dashes, marker in zip(components.items(), DASHES, MARKERS, strict=False):
        share, ratio = np.cumsum(found.variance) / found.variance.sum(), found.participation_ratio
        count = np.arange(1, len(share) + 1)
        (line,) = ax.plot(count, share, dashes, label=f"{name}: participation ratio {ratio:.0f}")
        ax.plot(ratio, np.interp(ratio, count, share), marker, color=line.get_color(), ms=7)
    labels = {"xlabel": "principal components", "ylabel": "share of variance"}
    return _finish(ax, {"loc": "lower right"}, **labels, xlim=(0, None), ylim=(0, 1.02))


def plot_plane(components: Components, kinds: Sequence[str], ax: Axes | None = None) -> Axes:
    """The first two principal components, one colour and one marker per kind of row."""
    ax = ax or plt.subplots(figsize=(7, 4))[1]
    first, second = 100 * components.variance[:2] / components.variance.sum()
    rows = pd.DataFrame(components.scores[:, :2]).groupby(np.asarray(kinds), sort=False)
    for (kind, scores), marker in zip(rows, MARKERS, strict=False):
        ax.scatter(scores[0], scores[1], s=20, marker=marker, label=kind, alpha=0.8, lw=0)
    xlabel, ylabel = f"1st component ({first:.0f} % of variance)", f"2nd component ({second:.0f} %)"
    return _finish(ax, AT_RIGHT, xlabel=xlabel, ylabel=ylabel)


def plot_token_gradients(gradients: Float[Tensor, "length embed"], words: list[str], ax: Axes | None = None) -> Axes:
    """Which tokens pull the vector the same way: cosines of `probes.token_gradients`; their lengths at the left."""
    norms = gradients.norm(dim=1, keepdim=True)
    unit = gradients / norms.clamp_min(1e-12)
    cosines = (unit @ unit.T).numpy()
    shown = np.vectorize("{:.1f}".format)(cosines)
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


def plot_intervals(table: pd.DataFrame, x: str, by: str, ax: Axes | None = None) -> Axes:
    """`value` with its interval (`low`, `high`) over column x, one colour and one marker per value of column by.

    Over numbers a line joins the values of a group; over names the groups stand side by side.
    """
    ax = ax or plt.subplots(figsize=(8, 3.6))[1]
    groups, names = table.groupby(by, sort=False), list(dict.fromkeys(table[x]))
    named = not pd.api.types.is_numeric_dtype(table[x])
    for group, (name, rows) in enumerate(groups):
        beside = 0.15 * (group - (len(groups) - 1) / 2)
        along = rows[x].map(names.index) + beside if named else rows[x]
        _interval(ax, group, along, rows, label=name, ls="none" if named else DASHES[group % len(DASHES)])
    if named:
        ax.set_xticks(range(len(names)), names)
    return _finish(ax, {}, xlabel=x)


def plot_scores(scores: pd.DataFrame, metrics: Sequence[str] = METRICS, ax: Axes | None = None) -> Axes:
    """Every metric of `studies.score.score_attackers` by attacker; BLEU is divided by 100 to share the axis."""
    rows = scores.set_index("metric").loc[list(metrics)]
    rows.loc[rows.index == "bleu", ["value", "low", "high"]] /= 100
    ax = plot_intervals(rows.rename(index=_shown).reset_index(), "metric", "attacker", ax)
    return _finish(ax, AT_RIGHT, xlabel=None, ylabel="score, 95 % interval", ylim=(-0.05, 1))


def plot_reliability(curves: dict[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Share of right tokens over the confidence, with 95 % intervals; the area of a mark is its bin's share of tokens.

    curves: name → table of `calibration.reliability`. On the diagonal confidence is what it says.
    """
    ax = ax or plt.subplots(figsize=(4.8, 5.6))[1]
    ax.plot([0, 1], [0, 1], color=REFERENCE, lw=1, ls=":", label="calibrated")
    for group, (name, table) in enumerate(curves.items()):
        rows = table.rename(columns={"accuracy": "value"})
        _interval(ax, group, rows["confidence"], rows, label=name, ms=0)
        areas = 400 * rows["share"]
        ax.scatter(rows["confidence"], rows["value"], s=areas, color=f"C{group}", marker=MARKERS[group])
    labels = {"xlabel": "confidence", "ylabel": "share that is right, 95 % interval"}
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14)}
    return _finish(ax, below, **labels, xlim=(0, 1), ylim=(0, 1), aspect="equal")


def plot_frontier(utility: pd.DataFrame, leakage: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Leakage against utility, a line per defence through its strengths; 95 % intervals on both.

    utility, leakage: columns perturbation, strength, value, low, high; joined by the first two.
    """
    ax = ax or plt.subplots(figsize=(7, 4.2))[1]
    utility, leakage = (table.set_index(["perturbation", "strength"]) for table in (utility, leakage))
    for group, (name, y) in enumerate(leakage.groupby("perturbation", sort=False)):
        x = utility.loc[utility.index.intersection(y.index)].sort_values("value")
        _interval(ax, group, x["value"], y.loc[x.index], xerr=_bars(x), label=name)
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))  # with a margin below points at zero
    return _finish(ax, AT_RIGHT, xlabel="utility, 95 % interval", ylabel="leakage, 95 % interval")


def plot_sweep(table: pd.DataFrame, metric: str = "token_f1", ax: Axes | None = None) -> Axes:
    """One metric of a sweep against the cosine that each perturbation leaves, with 95 % intervals.

    table: of `studies.sweep`, with its reference. Dotted: what comes back from the clean vectors; the highest control.
    """
    ax = ax or plt.subplots(figsize=(7, 4.2))[1]
    inverted, clean, asked = table["attacker"] == "inverted", table["perturbation"] == "none", table["metric"] == metric
    levels = table["value"][inverted & clean & asked].mean(), table["value"][~inverted & asked].max()
    for level, text in zip(levels, ("clean vectors", "best control"), strict=True):
        ax.axhline(level, ls=":", lw=1, color=REFERENCE)
        ax.annotate(text, (0.01, level), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points")
    cosines = table["metric"] == "vector_cosine"
    plot_frontier(table[inverted & ~clean & cosines], table[inverted & ~clean & asked], ax)
    ax.set(xlabel="cosine of the attacker's vector to the clean one", ylabel=f"{_shown(metric)}, 95 % interval")
    return ax


def _interval(ax: Axes, group: int, x: pd.Series, rows: pd.DataFrame, **style) -> None:
    """The values of one group over x with their intervals, in the group's colour and marker."""
    marker = MARKERS[group % len(MARKERS)]
    ax.errorbar(x, rows["value"].to_numpy(), yerr=_bars(rows), color=f"C{group}", marker=marker, **style)


def _bars(rows: pd.DataFrame) -> np.ndarray:
    """Lengths of the bars below and above each value; rounding must not make one negative."""
    return np.maximum([rows["value"] - rows["low"], rows["high"] - rows["value"]], 0)


def _spread(groups: dict[str, Float[Tensor, "batch place"]], places: Sequence[str]) -> pd.DataFrame:
    """Mean over the batch, and a standard deviation to both sides of it, as a table with the columns group, place."""
    values = torch.stack(list(groups.values())).float().numpy()
    mean, deviation = values.mean(axis=1).ravel(), values.std(axis=1).ravel()
    rows = pd.MultiIndex.from_product([groups, places], names=["group", "place"]).to_frame(index=False)
    return rows.assign(value=mean, low=mean - deviation, high=mean + deviation)


def _cells(ax, values, words, label: str, *, framed=(), below=(), limits=(0, 1), **labels) -> Axes:
    """Cells coloured by value [row, column], a word in each, some framed, and the scale of the colours."""
    rows, columns = values.shape
    ax = ax or plt.subplots(figsize=(min(14, 2 + 0.64 * columns), 1.2 + 0.35 * rows))[1]
    colors = mpl.colormaps["RdBu_r" if limits[0] == -1 else "viridis"].with_extremes(bad=MASKED)
    image = ax.imshow(values, aspect="auto", cmap=colors, vmin=limits[0], vmax=limits[1])
    for row, column in np.argwhere(words != ""):
        luminance = np.dot(image.to_rgba(values[row, column])[:3], (0.2126, 0.7152, 0.0722))  # weights of WCAG
        color = "black" if luminance > 0.45 else "white"  # whichever contrasts more
        ax.text(column, row, words[row, column], ha="center", va="center", fontsize=9, color=color)
    for row, column in np.argwhere(framed):
        ax.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, lw=1.6, ec=FRAME))
    if below:
        ax.set_xticks(range(columns), below, rotation=45, ha="right", rotation_mode="anchor")
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label=label)
    return _finish(ax, **labels)


def _shown(metric: str) -> str:
    return {"token_f1": "token F1", "bleu": "BLEU / 100"}.get(metric, metric.replace("_", " "))


def _finish(ax: Axes, legend: dict | None = None, **labels) -> Axes:
    ax.set(**labels)
    if legend is not None:
        ax.legend(**legend)
    return ax
