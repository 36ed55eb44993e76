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
from matplotlib.colors import to_rgb
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
METRIC_LABELS = {
    "token_f1": "token F1",
    "bleu": "BLEU / 100",
    "exact_match": "exact match",
    "edit_similarity": "edit similarity",
    "cosine": "cosine",
}


def use_style() -> None:
    """Apply the workbench's style; a notebook calls it once."""
    plt.style.use(STYLE)


# ── one inversion, or several ──


def plot_trajectory(trajectory: Trajectory, ax: Axes | None = None) -> Axes:
    """Token × step: grey while masked, then coloured by the confidence with which the token was written.

    A framed cell was uncovered in that step.
    """
    steps = range(trajectory.num_steps + 1)
    ax = ax or _wide_axes(len(trajectory), len(steps))
    words = np.array([trajectory.words(step) for step in steps], object)
    shown = np.where(trajectory.masked, "", words)
    _cells(ax, trajectory.confidence, shown, "probability when written", framed=trajectory.uncovered, vmin=0, vmax=1)
    ax.set(xlabel="position (token)", ylabel="step", yticks=steps)
    return ax


def plot_order(trajectories: dict[str, Trajectory], ax: Axes | None = None) -> Axes:
    """In which step each position became visible: one row per policy, early steps dark."""
    order = np.stack([trajectory.uncovered_at for trajectory in trajectories.values()])
    ax = ax or plt.subplots(figsize=(max(5, 0.55 * order.shape[1]), 0.45 * len(order) + 1))[1]
    _cells(ax, order, order.astype(str), "step")
    ax.set(xlabel="position (token)", yticks=range(len(order)), yticklabels=list(trajectories))
    return ax


def plot_confidence(trajectories: Sequence[Trajectory], ax: Axes | None = None) -> Axes:
    """Ribbons over the steps: with which probability the tokens of each step were written, in many inversions.

    The line is the median, the dark ribbon holds half of the tokens, the light one nine in ten. Steps in which nothing
    was written are left out.
    """
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    written = pd.DataFrame(
        [told for t in trajectories for told in zip(t.uncovered.nonzero()[0], t.confidence[t.uncovered], strict=True)],
        columns=["step", "probability"],
    )
    spread = written.groupby("step")["probability"].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
    for low, high, alpha, label in ((0.05, 0.95, 0.15, "nine in ten tokens"), (0.25, 0.75, 0.35, "half of the tokens")):
        ax.fill_between(spread.index, spread[low], spread[high], alpha=alpha, lw=0, color="C0", label=label)
    ax.plot(spread[0.5], "o-", color="C0", label="median")
    ax.set(xlabel="step", ylabel="probability when written", ylim=(0, 1.02))
    ax.xaxis.get_major_locator().set_params(integer=True)
    return _legend_at_right(ax)


# ── inside the model ──


def plot_modulation(modulation: Modulation, ax: Axes | None = None) -> Axes:
    """RMS of gate, scale and shift per sublayer, mean over the batch, with its spread (standard deviation)."""
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    sizes = {name: value.square().mean(dim=-1).sqrt().flatten(1) for name, value in parts(modulation).items()}
    places = [f"{layer}\n{kind}" for layer in range(modulation.scale.shape[1]) for kind in ("attn", "ff")]
    _beside(ax, _spread(sizes, places), "group", "place")
    ax.set(xlabel="layer and sublayer", ylabel="RMS over channels", ylim=(0, None))
    ax.legend(ncols=3)
    return ax


def plot_gain(gain: Float[Tensor, "batch layer sublayer"], ax: Axes | None = None) -> Axes:
    """Effective gain of each sublayer on the residual stream, mean over the batch and its spread; logarithmic.

    gain: of `probes.effective_gain`.
    """
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    sublayers = dict(zip(SUBLAYERS, gain.unbind(dim=2), strict=True))
    _beside(ax, _spread(sublayers, range(gain.shape[1])), "group", "place")
    ax.axhline(1, color=REFERENCE, lw=1, ls="--")
    ax.set(xlabel="layer", ylabel="RMS added / RMS of the stream", yscale="log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend()
    return ax


def plot_spectrum(components: dict[str, Components], ax: Axes | None = None) -> Axes:
    """Cumulative variance over the principal components; the participation ratio is in the legend and marked."""
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    for (name, found), dashes, marker in zip(components.items(), DASHES, MARKERS, strict=False):
        share, ratio = np.cumsum(found.variance) / found.variance.sum(), found.participation_ratio
        count = np.arange(1, len(share) + 1)
        (line,) = ax.plot(count, share, dashes, label=f"{name}: participation ratio {ratio:.0f}")
        ax.plot(ratio, np.interp(ratio, count, share), marker, color=line.get_color(), ms=7)
    ax.set(xlabel="principal components", ylabel="share of variance", xlim=(0, None), ylim=(0, 1.02))
    ax.legend(loc="lower right")
    return ax


def plot_plane(components: Components, kinds: Sequence[str], ax: Axes | None = None) -> Axes:
    """The first two principal components, one colour and one marker per kind of row."""
    ax = ax or plt.subplots(figsize=(7, 4))[1]
    shares = 100 * components.variance[:2] / components.variance.sum()
    kinds = np.asarray(kinds)
    for kind, marker in zip(dict.fromkeys(kinds), MARKERS, strict=False):
        ax.scatter(*components.scores[kinds == kind, :2].T, s=20, marker=marker, label=kind, alpha=0.8, lw=0)
    ax.set(xlabel=f"1st component ({shares[0]:.0f} % of variance)", ylabel=f"2nd component ({shares[1]:.0f} %)")
    return _legend_at_right(ax)


def plot_effects(effects: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What a change in one place does to the true tokens: the table of `probes.listening_effects`."""
    ax = ax or plt.subplots(figsize=(8, 3.6))[1]
    rows = effects.rename(columns={"rise": "value"}).assign(where=effects["where"].str.replace(" ", "\n"))
    _beside(ax, rows, "what", "where")
    ax.set(xlabel="layer", ylabel="rise of the cross-entropy\n(nats per token)")
    return _legend_at_right(ax)


def plot_token_gradients(gradients: Float[Tensor, "length embed"], words: list[str], ax: Axes | None = None) -> Axes:
    """Which tokens pull the vector the same way: cosines between their gradients; the length stands at the left.

    gradients: of `probes.token_gradients`.
    """
    ax = ax or plt.subplots(figsize=(2.6 + 0.5 * len(words), 1.2 + 0.42 * len(words)))[1]
    norms = gradients.norm(dim=1, keepdim=True)
    unit = gradients / norms.clamp_min(1e-12)
    cosines = (unit @ unit.T).numpy()
    shown = np.vectorize("{:.1f}".format)(cosines)
    _cells(ax, cosines, shown, "cosine of the gradients", cmap="RdBu_r", vmin=-1, vmax=1)
    _words_below(ax, words)
    ax.set_yticks(range(len(words)), [f"{word}  {norm:.2f}" for word, norm in zip(words, norms[:, 0], strict=True)])
    ax.set_ylabel("token, and length of its gradient")
    return ax


def plot_logit_lens(
    words: Sequence[Sequence[str]],
    probabilities: Float[np.ndarray, "depth length"],
    true_words: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Depth × position: the likeliest word if the model stopped there, coloured by its probability.

    A frame marks the true word. words: one list per depth; depth 0 is what the embedding tables alone say.
    """
    ax = ax or _wide_axes(len(true_words), len(words))
    shown = np.array(words)
    true = shown == np.array(true_words)
    _cells(ax, probabilities, shown, "probability of the word shown", framed=true, vmin=0, vmax=1)
    _words_below(ax, true_words)
    ax.set(xlabel="the true token at each position", ylabel="layers passed", yticks=range(len(words)))
    return ax


# ── what comes back, and what it costs ──


def plot_scores(scores: pd.DataFrame, metrics: Sequence[str] = tuple(METRIC_LABELS), ax: Axes | None = None) -> Axes:
    """Every metric with its 95 % interval, one colour and one marker per attacker.

    scores: the table of `studies.score_attackers`. BLEU is divided by 100 to share the axis.
    """
    ax = ax or plt.subplots(figsize=(8, 3.6))[1]
    rows = scores.set_index("metric").loc[list(metrics)]
    rows.loc[rows.index == "bleu", ["value", "low", "high"]] /= 100
    _beside(ax, rows.rename(index=METRIC_LABELS).reset_index(), "attacker", "metric")
    ax.set(ylabel="score, 95 % interval", ylim=(-0.05, 1))
    return _legend_at_right(ax)


def plot_curves(table: pd.DataFrame, x: str, by: str, ax: Axes | None = None) -> Axes:
    """`value` with its 95 % interval (`low`, `high`) over the numbers of column x, one line per value of column by."""
    ax = ax or plt.subplots(figsize=(6, 3.4))[1]
    for group, (name, rows) in enumerate(table.groupby(by, sort=False)):
        _interval(ax, group, rows[x], rows, label=name, ls=DASHES[group % len(DASHES)])
    ax.set(xlabel=x)
    ax.legend()
    return ax


def plot_reliability(curves: dict[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Share of right tokens over the confidence, with 95 % intervals; the area of a mark is its bin's share of tokens.

    curves: name → table of `calibration.reliability`. On the diagonal confidence is what it says.
    """
    ax = ax or plt.subplots(figsize=(4.8, 5.6))[1]
    ax.plot([0, 1], [0, 1], color=REFERENCE, lw=1, ls=":", label="calibrated")
    for group, (name, table) in enumerate(curves.items()):
        rows = table.rename(columns={"accuracy": "value"})
        _interval(ax, group, rows["confidence"], rows, label=name, ls="-", ms=0)
        areas = 400 * rows["share"]
        ax.scatter(rows["confidence"], rows["value"], s=areas, color=f"C{group}", marker=MARKERS[group])
    ax.set(xlabel="confidence", ylabel="share that is right, 95 % interval", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return ax


def plot_ablation_curve(ablations: pd.DataFrame, variant: str, ax: Axes | None = None) -> Axes:
    """A variant's token F1 over the sentences seen, the base's dashed in grey behind it: one of many small pictures."""
    ax = ax or plt.subplots(figsize=(2.4, 1.8))[1]
    for name, look in (("base", {"color": REFERENCE, "ls": "--"}), (variant, {"color": "C0", "marker": "o", "ms": 3})):
        rows = ablations[ablations["variant"] == name]
        ax.plot(rows["samples"] / 1000, rows["token_f1"], **look)
    ax.set_title(variant, fontsize=8)
    ax.tick_params(labelsize=7)
    return ax


def plot_ablation_scores(ablations: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Final token F1 of every variant with its 95 % interval, in the order they were run; the base's as a band.

    ablations: the table of ablations.csv; the last row of a variant is its final one.
    """
    bounds = {"token_f1": "value", "token_f1_low": "low", "token_f1_high": "high"}
    final = ablations.groupby("variant", sort=False).tail(1).rename(columns=bounds)
    ax = ax or plt.subplots(figsize=(7, 0.8 + 0.28 * len(final)))[1]
    _interval(ax, 0, final, range(len(final)))
    for base in final[final["variant"] == "base"].itertuples():
        ax.axvspan(base.low, base.high, color=REFERENCE, alpha=0.3, lw=0, zorder=0)
    ax.set_xlabel("token F1, 95 % interval over sentences (grey: base)")
    ax.set_yticks(range(len(final)), final["variant"])
    ax.invert_yaxis()
    return ax


def plot_frontier(utility: pd.DataFrame, leakage: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Leakage against utility, a line per defence through its strengths; 95 % intervals on both.

    utility, leakage: columns perturbation, strength, value, low, high; joined by the first two.
    """
    ax = ax or plt.subplots(figsize=(7, 4.2))[1]
    utility, leakage = (table.set_index(["perturbation", "strength"]) for table in (utility, leakage))
    for group, (name, y) in enumerate(leakage.groupby("perturbation", sort=False)):
        x = utility.loc[utility.index.intersection(y.index)].sort_values("value")
        _interval(ax, group, x, y.loc[x.index], label=name, ls="-")
    ax.set(xlabel="utility, 95 % interval", ylabel="leakage, 95 % interval")
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))  # with a margin below points at zero
    return _legend_at_right(ax)


def plot_sweep(table: pd.DataFrame, metric: str = "token_f1", ax: Axes | None = None) -> Axes:
    """One metric of a sweep against the cosine that each perturbation leaves, with 95 % intervals.

    table: of `studies.sweep`, with its reference. Dotted: what comes back from the clean vectors; the highest control.
    """
    inverted, clean, asked = table["attacker"] == "inverted", table["perturbation"] == "none", table["metric"] == metric
    cosines = table["metric"] == "vector_cosine"
    ax = ax or plt.subplots(figsize=(7, 4.2))[1]
    levels = table["value"][inverted & clean & asked].mean(), table["value"][~inverted & asked].max()
    for level, text in zip(levels, ("clean vectors", "best control"), strict=True):
        ax.axhline(level, ls=":", lw=1, color=REFERENCE)
        ax.annotate(text, (0.01, level), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points")
    plot_frontier(table[inverted & ~clean & cosines], table[inverted & ~clean & asked], ax)
    label = METRIC_LABELS.get(metric, metric.replace("_", " "))
    ax.set(xlabel="cosine of the attacker's vector to the clean one", ylabel=f"{label}, 95 % interval")
    return ax


def plot_cost(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Milliseconds a vector over length, steps, batch and candidates, each varied alone; dashed: what the model says.

    table: cost.csv. Both axes are logarithmic: a line of slope 1 is proportional.
    """
    ax = ax or plt.subplots(figsize=(6.5, 3.8))[1]
    for group, (axis, rows) in enumerate(table.groupby("axis", sort=False)):
        ax.plot(rows["value"], rows["ms"], MARKERS[group], color=f"C{group}", label=axis)
        ax.plot(rows["value"], rows["predicted"], "--", color=f"C{group}")
    ax.plot([], [], "--", color=REFERENCE, label="model")
    ax.set(xlabel="tokens, steps, vectors or drafts", ylabel="ms a vector")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    for along in (ax.xaxis, ax.yaxis):
        along.set_major_formatter("{x:g}")
    return _legend_at_right(ax)


# ── the strokes they share ──


def _interval(ax: Axes, group: int, x, y, *, ls: str = "none", **style) -> None:
    """The values of one group with their intervals, in the group's colour and marker; `ls` joins them by a line.

    x, y: numbers, or a table with the columns value, low, high, whose intervals are drawn.
    """
    (x, across), (y, up) = _bars(x), _bars(y)
    marker = MARKERS[group % len(MARKERS)]
    ax.errorbar(x, y, xerr=across, yerr=up, color=f"C{group}", marker=marker, ls=ls, **style)


def _bars(along) -> tuple:
    """Values, and the lengths of the bars below and above; rounding must not make one negative."""
    if not isinstance(along, pd.DataFrame):
        return along, None
    value, low, high = along[["value", "low", "high"]].to_numpy(float).T
    return value, np.maximum([value - low, high - value], 0)


def _beside(ax: Axes, rows: pd.DataFrame, group: str, place: str) -> None:
    """Groups side by side at each place (column `place`, named on the x axis in the order of the table)."""
    places, groups = list(dict.fromkeys(rows[place])), rows.groupby(group, sort=False)
    for number, (name, own) in enumerate(groups):
        offset = 0.15 * (number - (len(groups) - 1) / 2)
        _interval(ax, number, own[place].map(places.index) + offset, own, label=name)
    ax.set_xticks(range(len(places)), places)


def _spread(groups: dict[str, Float[Tensor, "batch place"]], places: Sequence) -> pd.DataFrame:
    """Rows for `_beside`: mean over the batch, and a standard deviation to both sides of it."""
    values = torch.stack(list(groups.values())).float().numpy()
    mean, deviation = values.mean(axis=1).ravel(), values.std(axis=1).ravel()
    rows = pd.MultiIndex.from_product([groups, places], names=["group", "place"]).to_frame(index=False)
    return rows.assign(value=mean, low=mean - deviation, high=mean + deviation)


def _cells(ax: Axes, values, words, label: str, framed=(), cmap: str = "viridis", **limits: float) -> None:
    """Cells coloured by value [row, column], a word in each, some framed, and the scale of the colours."""
    colors = mpl.colormaps[cmap].with_extremes(bad=MASKED)
    image = ax.imshow(values, aspect="auto", cmap=colors, **limits)
    for (row, column), word in np.ndenumerate(words):
        if word:
            color = _readable_on(image.cmap(image.norm(values[row, column])))
            ax.text(column, row, word, ha="center", va="center", fontsize=9, color=color)
    for row, column in np.argwhere(framed):
        ax.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, lw=1.6, ec=FRAME))
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label=label)


def _readable_on(color: Sequence[float]) -> str:
    """Black or white, whichever contrasts more (relative luminance, WCAG weights)."""
    red, green, blue = to_rgb(color)
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"


def _words_below(ax: Axes, words: Sequence[str]) -> None:
    ax.set_xticks(range(len(words)), words, rotation=45, ha="right", rotation_mode="anchor")


def _wide_axes(length: int, rows: int) -> Axes:
    return plt.subplots(figsize=(min(14, 2 + 0.64 * length), 1.2 + 0.33 * rows))[1]


def _legend_at_right(ax: Axes) -> Axes:
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax
