"""plot_*(data, ax=None) -> Axes. Colours come from `invlib.mplstyle`; nothing is shown or saved here."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch import Tensor

from invlib.model import Modulation
from invlib.probes import SUBLAYERS, Components
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


def plot_confidence(trajectories: Sequence[Trajectory], ax: Axes | None = None) -> Axes:
    """Ribbons over the steps: with which probability the tokens of each step were written, in many inversions.

    The line is the median, the dark ribbon holds half of the tokens, the light one nine in ten. Steps in which nothing
    was written are left out.
    """
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    steps = range(1, max(trajectory.num_steps for trajectory in trajectories) + 1)
    written = {step: _written_in(step, trajectories) for step in steps}
    drawn = [step for step, probabilities in written.items() if len(probabilities)]
    quantiles = np.array([np.quantile(written[step], (0.05, 0.25, 0.5, 0.75, 0.95)) for step in drawn]).T
    ax.fill_between(drawn, quantiles[0], quantiles[4], alpha=0.15, lw=0, color="C0", label="nine in ten tokens")
    ax.fill_between(drawn, quantiles[1], quantiles[3], alpha=0.35, lw=0, color="C0", label="half of the tokens")
    ax.plot(drawn, quantiles[2], "o-", color="C0", label="median")
    ax.set(xlabel="step", ylabel="probability when written", ylim=(0, 1.02))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_gain(gain: Float[Tensor, "batch layer sublayer"], ax: Axes | None = None) -> Axes:
    """Effective gain of each sublayer on the residual stream, mean over the batch and its spread; logarithmic.

    gain: of `probes.effective_gain`.
    """
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    places = np.arange(gain.shape[1])
    for offset, name, marker, values in zip((-0.1, 0.1), SUBLAYERS, "os", gain.float().unbind(dim=2), strict=True):
        mean, spread = values.mean(dim=0).numpy(), values.std(dim=0, correction=0).numpy()
        ax.errorbar(places + offset, mean, yerr=spread, fmt=marker, capsize=3, label=name)
    ax.axhline(1, color="0.5", lw=1, ls="--")
    ax.set(xlabel="layer", ylabel="RMS added / RMS of the stream", xticks=places, yscale="log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend()
    return ax


def plot_spectrum(components: dict[str, Components], ax: Axes | None = None) -> Axes:
    """Cumulative variance over the principal components; the participation ratio is in the legend and marked."""
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    for (name, found), dashes, marker in zip(components.items(), ("-", "--", ":", "-."), "osD^", strict=False):
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
    for kind, marker in zip(dict.fromkeys(kinds), "osD^vPX*", strict=False):
        ax.scatter(*components.scores[kinds == kind, :2].T, s=20, marker=marker, label=kind, alpha=0.8, lw=0)
    ax.set(xlabel=f"1st component ({shares[0]:.0f} % of variance)", ylabel=f"2nd component ({shares[1]:.0f} %)")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_effects(effects: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What a change in one place does to the true tokens, one colour and marker per kind of change.

    effects: the table of `probes.listening_effects`.
    """
    ax = ax or plt.subplots(figsize=(8, 3.6))[1]
    kinds, places = effects["what"].unique(), list(dict.fromkeys(effects["where"]))
    for place, (kind, marker) in enumerate(zip(kinds, "osD^v", strict=False)):
        rows = effects[effects["what"] == kind]
        offset = 0.14 * (place - (len(kinds) - 1) / 2)
        error = [rows["rise"] - rows["low"], rows["high"] - rows["rise"]]
        at = [places.index(where) + offset for where in rows["where"]]
        ax.errorbar(at, rows["rise"], yerr=np.maximum(error, 0), fmt=marker, ms=5, capsize=3, label=kind)
    ax.set(xlabel="layer", ylabel="rise of the cross-entropy\n(nats per token)", xticks=range(len(places)))
    ax.set_xticklabels([where.replace(" ", "\n") for where in places])
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_token_gradients(
    gradients: Float[Tensor, "length embed"], words: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Which tokens pull the vector the same way: cosines between their gradients; the length stands at the left.

    gradients: of `probes.token_gradients`.
    """
    ax = ax or plt.subplots(figsize=(2.6 + 0.5 * len(words), 1.2 + 0.42 * len(words)))[1]
    norms = gradients.norm(dim=1, keepdim=True)
    unit = gradients / norms.clamp_min(1e-12)
    cosines = (unit @ unit.T).numpy()
    image = ax.imshow(cosines, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
    for (row, column), value in np.ndenumerate(cosines):
        color = _readable_on(image.cmap(image.norm(value)))
        ax.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=color)
    ax.set(xticks=range(len(words)), yticks=range(len(words)), ylabel="token, and length of its gradient")
    ax.set_xticklabels(words, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticklabels([f"{word}  {norm:.2f}" for word, norm in zip(words, norms[:, 0].tolist(), strict=True)])
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="cosine of the gradients")
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
    image = ax.imshow(probabilities, vmin=0, vmax=1, aspect="auto")
    for (depth, position), probability in np.ndenumerate(probabilities):
        color = _readable_on(image.cmap(image.norm(probability)))
        ax.text(position, depth, words[depth][position], ha="center", va="center", fontsize=9.5, color=color)
        if words[depth][position] == true_words[position]:
            ax.add_patch(plt.Rectangle((position - 0.5, depth - 0.5), 1, 1, fill=False, lw=1.6, ec="#D55E00"))
    ax.set(ylabel="layers passed", yticks=range(len(words)), xticks=range(len(true_words)))
    ax.set_xticklabels(true_words, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlabel("the true token at each position")
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="probability of the word shown", shrink=0.9)
    return ax


def _written_in(step: int, trajectories: Sequence[Trajectory]) -> np.ndarray:
    """The probabilities of all tokens that were uncovered in a step."""
    told = [t.confidence[step][t.uncovered[step]] for t in trajectories if step <= t.num_steps]
    return np.concatenate(told)


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


def plot_curves(table: pd.DataFrame, x: str, by: str, ax: Axes | None = None) -> Axes:
    """`value` with its 95 % interval (`low`, `high`) over the numbers of column x, one line per value of column by."""
    ax = ax or plt.subplots(figsize=(6, 3.4))[1]
    for place, (name, rows) in enumerate(table.groupby(by, sort=False)):
        ax.errorbar(
            rows[x],
            rows["value"],
            yerr=_error_bars(rows),
            fmt="osD^v"[place % 5] + ("-", "--", "-.", ":")[place % 4],
            capsize=3,
            label=name,
        )
    ax.set(xlabel=x)
    ax.legend()
    return ax


def plot_reliability(curves: dict[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Share of right tokens over the confidence, with 95 % intervals; the area of a mark is its bin's share of tokens.

    curves: name → table of `calibration.reliability`. On the diagonal confidence is what it says.
    """
    ax = ax or plt.subplots(figsize=(4.8, 5.6))[1]
    ax.plot([0, 1], [0, 1], color="#888888", lw=1, ls=":", label="calibrated")
    for place, (name, rows) in enumerate(curves.items()):
        error = _error_bars(rows.assign(value=rows["accuracy"]))
        line = ax.errorbar(rows["confidence"], rows["accuracy"], yerr=error, fmt="-", capsize=3, label=name)
        ax.scatter(
            rows["confidence"], rows["accuracy"], s=400 * rows["share"], color=line[0].get_color(), marker="osD^"[place]
        )
    ax.set(xlabel="confidence", ylabel="share that is right, 95 % interval", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return ax


def plot_learning_curve(
    points: pd.DataFrame, metric: str, laws: dict[str, pd.DataFrame], ax: Axes | None = None
) -> Axes:
    """A metric over the sentences seen, and laws through it with their 95 % bands; a line where the run ended.

    points: `extrapolation.learned`; open marks: the learning rate is falling. laws: name → `extrapolation.extrapolate`.
    """
    ax = ax or plt.subplots(figsize=(6, 3.4))[1]
    for name, falling, fill in (("measured", False, "C0"), ("measured, learning rate falling", True, "white")):
        rows = points[(points["decay"] > 0) == falling]
        ax.plot(rows["samples"], rows[metric], "o", color="C0", mfc=fill, ms=4, label=name)
    for (name, law), style in zip(laws.items(), ("-", "--", ":", "-."), strict=False):
        ax.plot(law["samples"], law["value"], color="C1", ls=style, label=name)
        ax.fill_between(law["samples"], law["low"], law["high"], color="C1", alpha=0.2, lw=0)
    ax.axvline(points["samples"].iloc[-1], color="#888888", lw=0.8)
    ax.set(xscale="log", xlabel="sentences seen", ylabel=METRIC_LABELS.get(metric, metric))
    ax.legend(fontsize=8)
    return ax


def plot_ablation_curve(
    ablations: pd.DataFrame, variant: str, metric: str = "token_f1", ax: Axes | None = None
) -> Axes:
    """A variant's metric over the sentences seen, the base's dashed in grey behind it: one of many small pictures."""
    ax = ax or plt.subplots(figsize=(2.4, 1.8))[1]
    for name, look in (("base", {"color": "#888888", "ls": "--"}), (variant, {"color": "C0", "marker": "o", "ms": 3})):
        rows = ablations[ablations["variant"] == name]
        ax.plot(rows["samples"] / 1000, rows[metric], **look)
    ax.set_title(variant, fontsize=8)
    ax.tick_params(labelsize=7)
    return ax


def plot_ablation_scores(ablations: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Final token F1 of every variant with its 95 % interval, in the order they were run; the base's as a band.

    ablations: the table of ablations.csv; the last row of a variant is its final one.
    """
    final = ablations.groupby("variant", sort=False).tail(1).reset_index(drop=True)
    ax = ax or plt.subplots(figsize=(7, 0.8 + 0.28 * len(final)))[1]
    error = _error_bars(final.rename(columns={"token_f1": "value", "token_f1_low": "low", "token_f1_high": "high"}))
    ax.errorbar(final["token_f1"], range(len(final)), xerr=error, fmt="o", ms=4, capsize=3)
    for base in final[final["variant"] == "base"].itertuples():
        ax.axvspan(base.token_f1_low, base.token_f1_high, color="#dddddd", zorder=0)
    ax.set(xlabel="token F1, 95 % interval over sentences (grey: base)", yticks=range(len(final)))
    ax.set_yticklabels(final["variant"])
    ax.invert_yaxis()
    return ax


def plot_cost(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Milliseconds a vector over length, steps, batch and candidates, each varied alone; dashed: what the model says.

    table: `speed.cost.explained`, the table of cost.csv. Both axes are logarithmic: a line of slope 1 is proportional.
    """
    ax = ax or plt.subplots(figsize=(6.5, 3.8))[1]
    for place, (axis, rows) in enumerate(table.groupby("axis", sort=False)):
        ax.plot(rows["value"], rows["ms"], "osD^"[place], color=f"C{place}", label=axis)
        ax.plot(rows["value"], rows["predicted"], "--", color=f"C{place}")
    ax.plot([], [], "--", color="#888888", label="model")
    ax.set(xscale="log", yscale="log", xlabel="tokens, steps, vectors or drafts", ylabel="ms a vector")
    for along, values in ((ax.xaxis, table["value"]), (ax.yaxis, table["ms"])):
        powers = 2 ** np.arange(np.floor(np.log2(values.min())), np.ceil(np.log2(values.max())) + 1)
        along.set_ticks(powers, [f"{power:g}" for power in powers])
        along.set_minor_locator(mpl.ticker.NullLocator())
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _error_bars(rows: pd.DataFrame) -> list[np.ndarray]:
    """Lengths of the bars below and above `value`; rounding must not make one negative."""
    value, low, high = (rows[name].to_numpy(float) for name in ("value", "low", "high"))
    return [np.maximum(value - low, 0), np.maximum(high - value, 0)]
