"""Extrapolation: a law that made the points is found again, and what the points do not say is not said."""

import numpy as np
import pandas as pd
import pytest

from invlib.errors import InputError
from invlib.studies.extrapolation import backtest, extrapolate, learned

SAMPLES = np.arange(1, 41) * 50_000.0
RATE = np.minimum(1.0, (40 - np.arange(40)) / 12) * 1e-3  # falls over the last twelve rows, to a twelfth
DECAY = np.clip((np.arange(40) - 28) / 11, 0, 1)


def law(samples, decay, limit=0.8, scale=0.3, exponent=0.4, gain=0.05):
    return limit - scale * (samples / 2e6) ** -exponent + gain * decay


def run(noise: float = 0.0, seed: int = 0, **parameters) -> pd.DataFrame:
    """A run's log, of a law that is known; its losses are those of a law for losses."""
    random = np.random.default_rng(seed)
    score = law(SAMPLES, DECAY, **parameters) + noise * random.standard_normal(40)
    return pd.DataFrame({"samples": SAMPLES, "lr": RATE, "token_f1": score, "loss": 3 - 2 * score})


def test_a_law_that_made_the_points_is_found_again():
    told = extrapolate(run(), "token_f1", [1e6, 2e6, 2e7])
    np.testing.assert_allclose(told["value"], law(told["samples"], 1.0), atol=2e-3)
    np.testing.assert_allclose(told["high"] - told["low"], 0, atol=1e-2)
    flat = extrapolate(run(), "token_f1", [2e7], decay=0.0)
    np.testing.assert_allclose(flat["value"], law(2e7, 0.0), atol=2e-3)


def test_a_loss_is_fitted_with_its_sign_turned():
    told = extrapolate(run(0.004), "loss", [2e6, 2e7])
    np.testing.assert_allclose(told["value"], 3 - 2 * law(told["samples"], 1.0), atol=0.05)
    assert (told["low"] <= told["value"]).all() and (told["value"] <= told["high"]).all()


def test_the_interval_widens_with_the_distance_and_with_the_noise():
    quiet, loud = (extrapolate(run(noise), "token_f1", [2e6, 2e7]) for noise in (0.002, 0.008))
    for told in (quiet, loud):
        width = told["high"] - told["low"]
        assert width[1] > 1.5 * width[0] > 0
    assert (loud["high"] - loud["low"] > 1.5 * (quiet["high"] - quiet["low"])).all()


def test_the_interval_holds_the_law_about_as_often_as_it_says():
    held = []
    for seed in range(10):
        told = extrapolate(run(0.005, seed), "token_f1", [2e6, 2e7])
        truth = law(told["samples"], 1.0)
        held.append((told["low"] <= truth) & (truth <= told["high"]))
    assert (np.mean(held, axis=0) >= 0.8).all()


def test_what_the_falling_rate_brings_is_not_taken_for_the_slope():
    """The curve is flat but for the decay: more of the same brings nothing."""
    told = extrapolate(run(scale=0.0, gain=0.1), "token_f1", [2e6, 2e7])
    np.testing.assert_allclose(told["value"], 0.9, atol=1e-6)


def test_a_score_cannot_pass_one_nor_a_loss_fall_below_nothing():
    steep = run(limit=1.5, scale=1.0, exponent=0.1, gain=0.0)
    assert extrapolate(steep, "token_f1", [1e12])[["value", "low", "high"]].to_numpy().max() <= 1
    log = steep.assign(loss=10 * (SAMPLES / 2e6) ** -0.5 - 2)
    assert extrapolate(log, "loss", [1e12])[["value", "low", "high"]].to_numpy().min() >= 0


def test_a_curve_that_falls_is_said_to_stand_still():
    falling = run(scale=-0.1, limit=0.5, gain=0.0).assign(lr=1e-3)
    told = extrapolate(falling, "token_f1", [2e6, 2e7])
    np.testing.assert_allclose(told["value"], falling["token_f1"].mean())


def test_the_warm_up_and_rows_without_the_metric_are_left_out():
    log = run()
    warm = pd.DataFrame({"samples": [100.0, 200.0], "lr": [1e-4, 5e-4], "token_f1": [0.0, 0.9], "loss": [9.0, 9.0]})
    both = pd.concat([warm, log], ignore_index=True)
    both.loc[5::2, "token_f1"] = np.nan
    points = learned(both, "token_f1")
    assert points["samples"].min() == SAMPLES[0] and points["token_f1"].notna().all()
    np.testing.assert_allclose(learned(log, "token_f1")["decay"], DECAY)
    np.testing.assert_allclose(extrapolate(both, "token_f1", [2e7])["value"], law(2e7, 1.0), atol=5e-3)


def test_the_backtest_sees_only_the_first_points_and_tells_what_came():
    log = run()
    told = backtest(log, "token_f1")
    assert told["points"] == 14 and told["samples"] == SAMPLES[28]
    assert told["value"] == pytest.approx(law(SAMPLES[28], 0.0), abs=3e-3)
    assert told["actual"] == log["token_f1"][28]
    bent = log.assign(token_f1=np.where(SAMPLES < 7.2e5, log["token_f1"], 0.1))
    surprised = backtest(bent, "token_f1")
    assert surprised["actual"] == 0.1 and surprised["value"] == told["value"]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (run().head(3), "3 points of token_f1 after the warm-up; a law needs at least 4"),
        (run().drop(columns="token_f1"), "needs the columns samples, lr and token_f1; it has samples, lr, loss"),
        (pd.concat([run(), run()]), "samples must rise"),
    ],
)
def test_what_cannot_be_fitted_is_refused(log, said):
    with pytest.raises(InputError, match=said):
        extrapolate(log, "token_f1", [1e7])


def test_a_run_too_short_to_be_held_back_has_no_backtest():
    with pytest.raises(InputError, match="4 points of token_f1 before the learning rate falls; too few"):
        backtest(run().iloc[[0, 5, 10, 15, 39]], "token_f1")
