"""Lines: values with their intervals over numbers or names, each group in the colour of what it means.

Few lines carry their names at their ends; many groups have a panel each, with all the others in grey behind.
"""

from collections.abc import Mapping, Sequence
from math import ceil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from invlib.model import Modulation
from invlib.plots.style import BLUE, LINE, MARKS, REFERENCE, WIDTH, colours
from invlib.probes import SUBLAYERS, Components, parts
from invlib.trajectory import Trajectory

DASHES = ("-", "--", "-.", ":")
METRICS = ("token_f1", "bleu", "exact_match", "edit_similarity", "cosine")
FEW = 4  # lines that can carry their names
GAP = 11  # points between two names
ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, "borderaxespad": 0.2, "handletextpad": 0.3}


def plot_confidence(trajectories: Sequence[Trajectory], ax: Axes | None = None) -> Axes:
    """Ribbons over the steps: with which probability the tokens of each step were written, in many inversions.

    The line is the median, the dark ribbon holds half of the tokens, the light one nine in ten. Steps in which nothing
    was written are left out.
    """
    ax = ax or plt.subplots()[1]
    written = [pd.Series(t.confidence[t.uncovered], index=t.uncovered.nonzero()[0]) for t in trajectories]
    spread = pd.concat(written).groupby(level=0).quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
    for low, high, alpha in ((0.05, 0.95, 0.15), (0.25, 0.75, 0.35)):
        ax.fill_between(spread.index, spread[low], spread[high], alpha=alpha, lw=0, color=BLUE)
    ax.plot(spread[0.5], "o-", color=BLUE)
    last = spread.iloc[-1]
    ends = {"median": last[0.5], "half of the tokens": last[0.25], "nine in ten tokens": last[0.05]}
    _name_ends(ax, [(float(spread.index[-1]), float(value), name, BLUE) for name, value in ends.items()])
    ax.xaxis.get_major_locator().set_params(integer=True)
    return _set(ax, xlabel="step", ylabel="probability when written", ylim=(0, 1.02))


def plot_modulation(modulation: Modulation) -> Figure:
    """RMS of gate, scale and shift over the layers, a panel each; mean over the batch, with its standard deviation."""
    sizes = {name: value.square().mean(dim=-1).sqrt() for name, value in parts(modulation).items()}
    fig, axes = plt.subplots(1, len(sizes), figsize=(WIDTH, 2.4), squeeze=False)
    for ax, (name, size) in zip(axes.flat, sizes.items(), strict=True):
        sublayers = dict(zip(SUBLAYERS, size.unbind(dim=2), strict=True))
        plot_intervals(_spread(sublayers), "layer", "group", ax)
        for own in (ax.get_legend(), *ax.texts):  # one legend serves all panels
            own.remove()
        ax.xaxis.get_major_locator().set_params(integer=True)
        _set(ax, title=name, ylim=(0, None), xlabel="layer")
    axes[0, 0].set_ylabel("RMS over channels\n(bars: standard deviation)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return fig


def plot_gain(gain: Float[Tensor, "batch layer sublayer"], ax: Axes | None = None) -> Axes:
    """Effective gain of each sublayer (`probes.effective_gain`), mean over the batch and its spread; logarithmic."""
    spread = _spread(dict(zip(SUBLAYERS, gain.unbind(dim=2), strict=True)))
    ax = plot_intervals(spread, "layer", "group", ax, levels={"as much as there was": 1.0})
    ax.xaxis.get_major_locator().set_params(integer=True)
    ylabel = "RMS added / RMS of the stream\n(bars: standard deviation; log scale)"
    return _set(ax, xlabel="layer", ylabel=ylabel, yscale="log")


def plot_spectrum(components: dict[str, Components], ax: Axes | None = None) -> Axes:
    """Cumulative variance over the principal components; the participation ratio is named and marked on each."""
    ax, shown = ax or plt.subplots()[1], colours(components)
    slowest_first = sorted(components, key=lambda name: -components[name].participation_ratio)
    for place, name in enumerate(slowest_first):
        found = components[name]
        share, ratio = np.cumsum(found.variance) / found.variance.sum(), found.participation_ratio
        count = np.arange(1, len(share) + 1)
        at = ratio, np.interp(ratio, count, share)
        ax.plot(count, share, color=shown[name], label=name)
        ax.plot(*at, MARKS[shown[name]], color=shown[name], ms=7)
        if place == 0:
            lowest = at
        # All names stand right of the lowest line: beside their own marks they would run over a line or the axis.
        told = f"{name}: {ratio:.0f}"
        ax.annotate(told, lowest, (9, -10 - 14 * place), textcoords="offset points", color=shown[name])
    labels = {"xlabel": "principal components", "ylabel": "share of variance"}
    return _set(ax, **labels, xlim=(0, None), ylim=(0, 1.02))


def plot_plane(components: Components, kinds: Sequence[str]) -> Figure:
    """The first two principal components: a panel per kind of row, the other rows in grey behind it."""
    first, second = 100 * components.variance[:2] / components.variance.sum()
    scores, kinds = components.scores, np.asarray(kinds)
    fig, axes = _grid_of(len(set(kinds)), columns=3, height=1.6)
    for ax, kind in zip(axes.flat, dict.fromkeys(kinds), strict=False):
        for own, colour in ((kinds != kind, LINE), (kinds == kind, BLUE)):
            ax.scatter(scores[own, 0], scores[own, 1], s=9, color=colour, lw=0, label=kind if colour == BLUE else None)
        ax.set_title(kind.replace("_", " "))
    fig.supxlabel(f"1st component ({first:.0f} % of variance)")
    fig.supylabel(f"2nd component ({second:.0f} %)")
    return fig


def plot_intervals(
    table: pd.DataFrame, x: str, by: str, ax: Axes | None = None, *, levels: Mapping[str, float] = {}
) -> Axes:
    """`value` with its interval (`low`, `high`) over column x, one colour and one marker per value of column by.

    Over numbers a line joins the values of a group, and few groups carry their names at the ends of their lines; over
    names the groups stand side by side. levels: name → value, drawn across.
    """
    ax = ax or plt.subplots()[1]
    groups, names, shown = table.groupby(by, sort=False), list(dict.fromkeys(table[x])), colours(table[by])
    named, ends = not pd.api.types.is_numeric_dtype(table[x]), []
    for place, (name, rows) in enumerate(groups):
        beside = 0.15 * (place - (len(groups) - 1) / 2)
        along = rows[x].map(names.index) + beside if named else rows[x]
        _interval(ax, shown[str(name)], along, rows, label=name, ls="none" if named else DASHES[place % len(DASHES)])
        ends.append((float(along.iloc[-1]), float(rows["value"].iloc[-1]), str(name), shown[str(name)]))
    if named:
        ax.set_xticks(range(len(names)), names)
    _levels(ax, levels)
    if has_ends := not named and 1 < len(groups) <= FEW:
        _name_ends(ax, ends)
    told = [own for own in ax.lines if own.get_label() in levels] if has_ends and levels else None
    ax.legend(handles=told, **ABOVE).set_visible(bool(levels) or (len(groups) > 1 and not has_ends))
    return _set(ax, xlabel=x)


def plot_panels(
    table: pd.DataFrame, x: str, by: str, *, line: str | None = None, columns: int = 4, levels: Mapping = {}, **labels
) -> Figure:
    """Small multiples: a panel per value of column by, all other panels' lines in grey behind it.

    table: x, value, low, high, and for intervals along x also x_low, x_high. line: a column whose values are lines of
    their own inside a panel, in the colours of what they mean. levels: name → value, two at most, across every panel.
    """
    table = table.assign(_order=pd.factorize(table[by])[0]).sort_values(["_order", x], kind="stable")
    groups, shown = list(table.groupby(by, sort=False)), colours(table[line] if line else ["inverted"])
    fig, axes = _grid_of(len(groups), columns)
    keys = [by, line] if line else [by]
    for ax, (name, own) in zip(axes.flat, groups, strict=False):
        for other, rows in table.groupby(keys, sort=False):
            if other[0] != name:
                ax.plot(rows[x], rows["value"], ".-", color=LINE, lw=0.8, ms=3, zorder=0)
        for kind, rows in own.groupby(line or by, sort=False):
            xerr = _bars(rows, x, f"{x}_") if f"{x}_low" in rows else None
            told = {"label": kind if line else None, "xerr": xerr}
            _interval(ax, shown[str(kind) if line else "inverted"], rows[x], rows, **told)
        _levels(ax, levels)
        ax.set_title(_shown(str(name)))
    if line or levels:
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    fig.supxlabel(labels.pop("xlabel", x))
    fig.supylabel(labels.pop("ylabel", "value, 95 % interval"))
    for ax in axes.flat[: len(groups)]:
        _set(ax, **labels)
    return fig


def plot_scores(scores: pd.DataFrame, metrics: Sequence[str] = METRICS, ax: Axes | None = None) -> Axes:
    """Every metric of `studies.score.score_attackers` by attacker; BLEU is divided by 100 to share the axis."""
    rows = scores.set_index("metric").loc[list(metrics)]
    rows.loc[rows.index == "bleu", ["value", "low", "high"]] /= 100
    ax = plot_intervals(rows.rename(index=_shown).reset_index(), "metric", "attacker", ax)
    return _set(ax, xlabel=None, ylabel="score, 95 % interval", ylim=(0, 1))


def plot_reliability(curves: dict[str, pd.DataFrame]) -> Figure:
    """Share of right tokens over the confidence, with 95 % intervals; the area of a mark is its bin's share of tokens.

    curves: name → table of `calibration.reliability`, a panel each. On the diagonal confidence is what it says.
    """
    fig, axes = plt.subplots(1, len(curves), figsize=(WIDTH, 2.9), sharey=True, squeeze=False)
    for ax, (name, table) in zip(axes.flat, curves.items(), strict=True):
        ax.plot([0, 1], [0, 1], color=REFERENCE, lw=1, ls=":", label="calibrated")
        rows = table.rename(columns={"accuracy": "value"})
        _interval(ax, BLUE, rows["confidence"], rows, ms=0)
        ax.scatter(rows["confidence"], rows["value"], s=200 * rows["share"], color=BLUE)
        _set(ax, title=name, xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes[0, 0].annotate("calibrated", (0.6, 0.6), (-4, 4), textcoords="offset points", ha="right", color=REFERENCE)
    axes[0, 0].set_ylabel("share that is right, 95 % interval")
    fig.supxlabel("confidence")
    return fig


def plot_sweep(table: pd.DataFrame, metric: str = "token_f1") -> Figure:
    """One metric of a sweep against the cosine that each perturbation leaves, a panel each, with 95 % intervals.

    table: of `studies.sweep`, with its reference. Dotted: what comes back from the clean vectors; the highest control.
    """
    inverted, clean, asked = table["attacker"] == "inverted", table["perturbation"] == "none", table["metric"] == metric
    levels = {
        "clean": table["value"][inverted & clean & asked].mean(),
        "control": table["value"][~inverted & asked].max(),
    }
    keys = ["perturbation", "strength"]
    cosines = table[inverted & ~clean & (table["metric"] == "vector_cosine")].set_index(keys)["value"].rename("cosine")
    rows = table[inverted & ~clean & asked].join(cosines, on=keys)
    labels = {"xlabel": "cosine of the attacker's vector to the clean one", "ylim": (0, None)}
    return plot_panels(
        rows, "cosine", "perturbation", levels=levels, ylabel=f"{_shown(metric)}, 95 % interval", **labels
    )


def _interval(ax: Axes, colour: str, x: pd.Series, rows: pd.DataFrame, **style) -> None:
    """The values of one group over x with their intervals, in its colour and the marker of that colour."""
    ax.errorbar(
        x, rows["value"].to_numpy(), yerr=_bars(rows), color=colour, marker=MARKS[colour], clip_on=False, **style
    )


def _bars(rows: pd.DataFrame, value: str = "value", prefix: str = "") -> np.ndarray:
    """Lengths of the bars below and above each value; rounding must not make one negative."""
    return np.maximum([rows[value] - rows[f"{prefix}low"], rows[f"{prefix}high"] - rows[value]], 0)


def _spread(groups: dict[str, Float[Tensor, "batch layer"]]) -> pd.DataFrame:
    """Mean over the batch, and a standard deviation to both sides of it, as a table with the columns group, layer."""
    values = torch.stack(list(groups.values())).float().numpy()
    mean, deviation = values.mean(axis=1).ravel(), values.std(axis=1).ravel()
    layers = pd.MultiIndex.from_product([groups, range(values.shape[2])], names=["group", "layer"])
    return layers.to_frame(index=False).assign(value=mean, low=mean - deviation, high=mean + deviation)


def _grid_of(count: int, columns: int, height: float = 1.35) -> tuple[Figure, np.ndarray]:
    """That many axes of common scales, and nothing in the places that are left over."""
    rows = ceil(count / columns)
    size = (WIDTH, max(height * rows + 0.5, 2.6))  # a label beside one row needs as much
    fig, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for place, ax in enumerate(axes.flat):
        ax.set_visible(place < count)
        ax.tick_params(labelbottom=count - columns <= place < count)  # the row below may be empty
    return fig, axes


def _name_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """The name of each line behind its end (x, y, name, colour), moved apart where two would touch."""
    ax.autoscale_view()
    height, (low, high) = ax.get_window_extent().height * 72 / ax.figure.dpi, ax.get_ylim()
    lowest = -np.inf
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        at = (y - low) / (high - low) * height
        lowest = max(at, lowest + GAP)
        ax.annotate(name, (x, y), (7, lowest - at), textcoords="offset points", va="center", color=colour)


def _levels(ax: Axes, levels: Mapping[str, float]) -> None:
    """Lines across, two at most, whose names the legend tells: on the line they would run over the data."""
    for (name, height), dash in zip(levels.items(), (":", "--"), strict=False):
        ax.axhline(height, ls=dash, lw=1, color=REFERENCE, label=name)


def _shown(metric: str) -> str:
    names = {"token_f1": "token F1", "bleu": "BLEU / 100", "leaked all": "share of all secrets that leaked"}
    return names.get(metric, metric.replace("_", " "))


def _set(ax: Axes, **labels) -> Axes:
    ax.set(**labels)
    return ax
