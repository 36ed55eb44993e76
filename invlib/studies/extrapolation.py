"""Extrapolation: a saturating power law through a training's curve, and what it says about more of the same.

score(n) = limit - scale · n^-exponent + gain · decay, where n counts the sentences seen and `decay` runs from 0 to 1
while the learning rate falls: what the falling rate brings must not be taken for the slope of the curve. A loss is
fitted with its sign turned. Given the exponent the rest is linear, so the fit has no local minima to get caught in.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from invlib.errors import InputError
from invlib.metrics import RESAMPLES

EXPONENTS = np.geomspace(0.03, 2, 400)  # a coarser grid would pin the exponent, and the interval with it
CEILINGS = {"loss": 0.0, "length_loss": 0.0}  # with its sign turned, a loss cannot rise above 0; a score not above 1
FEWEST = 4  # points: the law without the gain has three parameters


def extrapolate(
    log: pd.DataFrame, metric: str, samples: Sequence[float], *, decay: float = 1.0, seed: int = 0
) -> pd.DataFrame:
    """What the law says at other numbers of sentences seen: samples, value, low, high.

    log: rows of a run's log.csv (samples, lr, and the metric, which may be empty in some). The warm-up is left out.
    decay: how far the learning rate has fallen at those numbers, 1 = to the end of its decay, as in the run.
    low, high: 95 % of the laws that fit resampled residuals. They say how well the law is known if it is the law; they
    do not say that it is, and hold no noise of a single measurement.

    Raises `InputError` for fewer than four points, for a metric that is not there, and for samples that do not rise.
    """
    points = learned(log, metric)
    sign = -1.0 if metric in CEILINGS else 1.0
    n, y = points["samples"].to_numpy(float), sign * points[metric].to_numpy(float)
    asked = np.asarray(samples, float)
    drawn, fitted = _laws(n, points["decay"].to_numpy(), y[None], asked, decay, CEILINGS.get(metric, 1.0))
    residuals = y - fitted[0]
    residuals = (residuals - residuals.mean()) * np.sqrt(len(y) / max(1, len(y) - 3))  # three were spent on the fit
    picks = np.random.default_rng(seed).integers(len(y), size=(RESAMPLES, len(y)))
    again, _ = _laws(n, points["decay"].to_numpy(), fitted + residuals[picks], asked, decay, CEILINGS.get(metric, 1.0))
    ends = np.sort(np.percentile(sign * again, [2.5, 97.5], axis=0), axis=0)
    return pd.DataFrame({"samples": asked, "value": sign * drawn[0], "low": ends[0], "high": ends[1]})


def learned(log: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows that carry the metric after the warm-up, with `decay`: how far the learning rate has fallen, 0 … 1."""
    if metric not in log or "lr" not in log or "samples" not in log:
        raise InputError(f"the log needs the columns samples, lr and {metric}; it has {', '.join(log.columns)}")
    if (np.diff(log["samples"]) <= 0).any():
        raise InputError("samples must rise from row to row; add what was seen before to the rows of a continued run")
    top, end = log["lr"].max(), log["lr"].iloc[-1]
    warm = int((log["lr"] == top).to_numpy().argmax())
    rows = log.iloc[warm:]
    fallen = (top - rows["lr"]) / (top - end) if end < top else np.zeros(len(rows))
    points = rows.assign(decay=fallen).dropna(subset=metric)
    if len(points) < FEWEST:
        raise InputError(f"{len(points)} points of {metric} after the warm-up; a law needs at least {FEWEST}")
    return points


def backtest(log: pd.DataFrame, metric: str, *, share: float = 0.5) -> dict[str, float]:
    """What the law would have foretold: fitted on the first `share` of the points before the learning rate falls, and
    asked for the last of them. Returns points, samples, value, low, high and what was then measured, `actual`.
    """
    flat = learned(log, metric).query("decay == 0")
    early = flat.iloc[: max(FEWEST, int(share * len(flat)))]
    if len(early) == len(flat):
        raise InputError(f"{len(flat)} points of {metric} before the learning rate falls; too few to hold some back")
    told = extrapolate(early, metric, [flat["samples"].iloc[-1]], decay=0.0).iloc[0]
    return {"points": len(early), **told.to_dict(), "actual": float(flat[metric].iloc[-1])}


def _laws(
    n: Float[np.ndarray, "point"],
    decay: Float[np.ndarray, "point"],
    curves: Float[np.ndarray, "draw point"],
    asked: Float[np.ndarray, "asked"],
    asked_decay: float,
    ceiling: float,
) -> tuple[Float[np.ndarray, "draw asked"], Float[np.ndarray, "draw point"]]:
    """The best admissible law (limit ≤ ceiling, scale ≥ 0) of every curve, at `asked` and at the points themselves."""
    unit = n[-1]  # of the order of 1: well conditioned
    best = np.full(len(curves), np.inf)
    told, fitted = np.zeros((len(curves), len(asked))), np.zeros_like(curves)
    gain, asked_gain = [], []
    if decay.any():  # without a decay in the points its gain is unknown, and taken for nothing
        gain, asked_gain = [decay], [np.full(len(asked), asked_decay)]

    def offer(columns: list, asked_columns: list, offset: float, admissible) -> None:
        design = np.stack(columns + gain, axis=1)
        weights = (curves - offset) @ np.linalg.pinv(design).T
        at_points = offset + weights @ design.T
        error = ((curves - at_points) ** 2).sum(axis=1)
        better = (error < best) & admissible(weights)
        best[better], fitted[better] = error[better], at_points[better]
        told[better] = (offset + weights @ np.stack(asked_columns + asked_gain, axis=1).T)[better]

    offer([np.ones_like(n)], [np.ones_like(asked)], 0.0, lambda w: np.ones(len(w), bool))  # it does not rise at all
    for exponent in EXPONENTS:
        fall, asked_fall = -((n / unit) ** -exponent), -((asked / unit) ** -exponent)
        ones = np.ones_like(n), np.ones_like(asked)
        offer([ones[0], fall], [ones[1], asked_fall], 0.0, lambda w: (w[:, 0] <= ceiling) & (w[:, 1] >= 0))
        offer([fall], [asked_fall], ceiling, lambda w: w[:, 0] >= 0)  # the limit is the ceiling itself
    return np.minimum(told, ceiling), fitted  # what the decay brings comes on top of the limit
