"""plot_*(data, ax=None) -> Axes. Colours come from `invlib.mplstyle`; nothing is shown or saved here."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from invlib.model import Modulation
from invlib.trajectory import Trajectory

STYLE = Path(__file__).with_name("invlib.mplstyle")
MASKED_GREY = "#dddddd"
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


def plot_trajectory(trajectory: Trajectory, ax: Axes | None = None) -> Axes:
    """Token × step: grey while masked, then coloured by the confidence with which the token was written.

    A framed cell was uncovered in that step.
    """
    ax = ax or _wide_axes(len(trajectory), trajectory.num_steps)
    colors = mpl.colormaps["viridis"].with_extremes(bad=MASKED_GREY)
    image = ax.imshow(np.ma.masked_invalid(trajectory.confidence), vmin=0, vmax=1, aspect="auto", cmap=colors)
    for step in range(trajectory.num_steps + 1):
        words = trajectory.words(step)
        for position, word in enumerate(words):
            if not trajectory.masked[step, position]:
                color = _readable_on(image.cmap(image.norm(trajectory.confidence[step, position])))
                ax.text(position, step, word, ha="center", va="center", fontsize=9.5, color=color)
            if trajectory.uncovered[step, position]:
                frame = plt.Rectangle((position - 0.5, step - 0.5), 1, 1, fill=False, lw=1.6, ec="#D55E00")
                ax.add_patch(frame)
    ax.set(xlabel="position (token)", ylabel="step", yticks=range(trajectory.num_steps + 1))
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="probability when written", shrink=0.9)
    return ax


def plot_modulation(modulation: Modulation, ax: Axes | None = None) -> Axes:
    """RMS of gate, scale and shift per sublayer, mean over the batch, with its spread (standard deviation)."""
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    layers = modulation.scale.shape[1]
    labels = [f"{layer}\n{kind}" for layer in range(layers) for kind in ("attn", "ff")]
    parts = {"gate": modulation.gate, "scale": modulation.scale, "shift": modulation.shift}
    for offset, (name, value) in zip((-0.2, 0, 0.2), parts.items(), strict=True):
        if value is not None:
            rms = value.float().square().mean(dim=-1).sqrt().flatten(1)
            ax.errorbar(
                np.arange(2 * layers) + offset,
                rms.mean(dim=0).numpy(),
                yerr=rms.std(dim=0).numpy() if len(rms) > 1 else None,
                fmt={"gate": "o", "scale": "s", "shift": "^"}[name],
                capsize=3,
                label=name,
            )
    ax.set(xlabel="layer and sublayer", ylabel="RMS over channels", xticks=range(2 * layers), ylim=(0, None))
    ax.set_xticklabels(labels)
    ax.legend(ncols=3)
    return ax


def plot_scores(scores: pd.DataFrame, metrics: Sequence[str] = tuple(METRIC_LABELS), ax: Axes | None = None) -> Axes:
    """Every metric with its 95 % interval, one colour and one marker per attacker.

    scores: the table of `studies.score_attackers`. BLEU is divided by 100 to share the axis.
    """
    ax = ax or plt.subplots(figsize=(8, 3.6))[1]
    attackers = scores["attacker"].unique()
    for place, attacker in enumerate(attackers):
        rows = scores[scores["attacker"] == attacker].set_index("metric").loc[list(metrics)]
        scale = np.where(rows.index == "bleu", 100, 1)
        value, low, high = (rows[name].to_numpy() / scale for name in ("value", "low", "high"))
        ax.errorbar(
            np.arange(len(rows)) + 0.16 * (place - (len(attackers) - 1) / 2),
            value,
            yerr=np.maximum([value - low, high - value], 0),
            fmt="osD^v"[place],
            capsize=3,
            label=attacker,
        )
    ax.set(ylabel="score, 95 % interval", xticks=range(len(metrics)), ylim=(-0.05, 1))
    ax.set_xticklabels([METRIC_LABELS.get(name, name) for name in metrics])
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_order(trajectories: dict[str, Trajectory], ax: Axes | None = None) -> Axes:
    """In which step each position became visible: one row per policy, early steps dark."""
    length = len(next(iter(trajectories.values())))
    ax = ax or plt.subplots(figsize=(max(5, 0.55 * length), 0.45 * len(trajectories) + 1))[1]
    order = np.stack([trajectory.uncovered_at for trajectory in trajectories.values()])
    image = ax.imshow(order, aspect="auto")
    for (row, position), step in np.ndenumerate(order):
        color = _readable_on(image.cmap(image.norm(step)))
        ax.text(position, row, step, ha="center", va="center", fontsize=8, color=color)
    ax.set(xlabel="position (token)", yticks=range(len(order)), yticklabels=list(trajectories))
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="step")
    return ax


def _wide_axes(length: int, num_steps: int) -> Axes:
    return plt.subplots(figsize=(min(14, 2 + 0.64 * length), 1.2 + 0.33 * (num_steps + 1)))[1]


def _readable_on(color: Sequence[float]) -> str:
    """Black or white, whichever contrasts more (relative luminance, WCAG weights)."""
    red, green, blue = to_rgb(color)
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"


def plot_sweep(table: pd.DataFrame, metric: str = "token_f1", ax: Axes | None = None) -> Axes:
    """One metric of a sweep against the cosine that each perturbation leaves; 95 % intervals in both directions.

    table: of `studies.sweep`, with its reference. Dotted lines: what comes back from the clean vectors, and the highest
    control. One colour and marker per perturbation, its strengths joined by a line.
    """
    ax = ax or plt.subplots(figsize=(7, 4.2))[1]
    inverted = table[table["attacker"] == "inverted"]
    for place, (name, rows) in enumerate(inverted.groupby("perturbation", sort=False)):
        if name != "none":
            points = _against(rows[rows["metric"] == "vector_cosine"], rows[rows["metric"] == metric])
            _errorbars(ax, points.sort_values("x"), place, label=name, ls="-")
    clean = inverted.query("perturbation == 'none' and metric == @metric")["value"].mean()
    control = table[(table["attacker"] != "inverted") & (table["metric"] == metric)]["value"].max()
    for level, text in ((clean, "clean vectors"), (control, "best control")):
        ax.axhline(level, ls=":", lw=1, color="0.4")
        ax.annotate(text, (0.01, level), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points")
    label = METRIC_LABELS.get(metric, metric.replace("_", " "))
    ax.set(xlabel="cosine of the attacker's vector to the clean one", ylabel=f"{label}, 95 % interval")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_frontier(utility: pd.DataFrame, leakage: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Leakage against utility: one panel's worth of defences. Low and to the right is good; 95 % intervals on both.

    utility, leakage: columns perturbation, strength, value, low, high; one row per defence and strength, joined by the
    first two.
    """
    ax = ax or plt.subplots(figsize=(6, 4.4))[1]
    for place, (name, rows) in enumerate(leakage.groupby("perturbation", sort=False)):
        points = _against(utility, rows).sort_values("x")
        _errorbars(ax, points, place, label=name, ls="-" if len(points) > 1 else "none")
    ax.set(xlabel="utility, 95 % interval", ylabel="leakage, 95 % interval", ylim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _against(across: pd.DataFrame, up: pd.DataFrame) -> pd.DataFrame:
    """Points x, y with their bounds, from two tables of values joined by perturbation and strength."""
    keys, values = ["perturbation", "strength"], ["value", "low", "high"]
    x = across[keys + values].rename(columns={"value": "x", "low": "x_low", "high": "x_high"})
    y = up[keys + values].rename(columns={"value": "y", "low": "y_low", "high": "y_high"})
    return x.merge(y, on=keys)


def _errorbars(ax: Axes, points: pd.DataFrame, place: int, **style) -> None:
    ax.errorbar(
        points["x"],
        points["y"],
        xerr=np.maximum([points["x"] - points["x_low"], points["x_high"] - points["x"]], 0),
        yerr=np.maximum([points["y"] - points["y_low"], points["y_high"] - points["y"]], 0),
        color=f"C{place % 7}",
        marker="osD^vPX*<>hp"[place % 12],
        ms=5,
        lw=1.2,
        elinewidth=0.8,
        capsize=2,
        **style,
    )
