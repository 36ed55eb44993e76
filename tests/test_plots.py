"""Figures: what they show, not how they look."""

import dataclasses

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from invlib.model import Modulation
from invlib.plots import (
    MASKED,
    plot_confidence,
    plot_frontier,
    plot_gain,
    plot_intervals,
    plot_logit_lens,
    plot_modulation,
    plot_order,
    plot_plane,
    plot_reliability,
    plot_scores,
    plot_spectrum,
    plot_sweep,
    plot_token_gradients,
    plot_trajectory,
    use_style,
)
from invlib.probes import Components
from invlib.trajectory import Trajectory

MASK = 4


@pytest.fixture(autouse=True)
def headless():
    mpl.use("agg")
    with plt.style.context("default"):
        use_style()
        yield
    plt.close("all")


@pytest.fixture
def trajectory() -> Trajectory:
    """Three positions in two steps: the middle one first."""
    tokens = np.array([[MASK, MASK, MASK], [MASK, 7, MASK], [6, 7, 8]], np.int32)
    confidence = np.array([[np.nan] * 3, [np.nan, 0.9, np.nan], [0.2, 0.9, 0.5]], np.float32)
    top_ids = np.where(tokens[..., None] == MASK, -1, tokens[..., None])
    return Trajectory(
        tokens, confidence, top_ids, (top_ids >= 0) * np.float32(0.9), MASK, {6: "we", 7: "<b>", 8: "go"}, "we <b> go"
    )


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_the_trajectory_plot_writes_each_visible_token_and_frames_its_step(trajectory):
    ax = plot_trajectory(trajectory)
    assert texts(ax) == ["<b>", "we", "<b>", "go"]
    assert [text.get_position() for text in ax.texts] == [(1, 1), (0, 2), (1, 2), (2, 2)]
    assert sorted(frame.get_xy() for frame in ax.patches) == [(-0.5, 1.5), (0.5, 0.5), (1.5, 1.5)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("position (token)", "step")


def test_the_trajectory_plot_colours_by_the_confidence_and_leaves_the_masked_grey(trajectory):
    ax = plot_trajectory(trajectory)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array().filled(np.nan), trajectory.confidence)
    assert image.get_clim() == (0, 1), "the same colour means the same probability in every figure"
    assert mpl.colors.to_hex(image.cmap(np.ma.masked)) == MASKED


def test_the_order_plot_shows_the_step_of_every_position_one_row_per_policy(trajectory):
    reversed_order = dataclasses.replace(
        trajectory, tokens=np.array([[MASK] * 3, [6, MASK, MASK], [6, 7, 8]], np.int32)
    )
    ax = plot_order({"one": trajectory, "other": reversed_order})
    assert texts(ax) == ["2", "1", "2", "1", "2", "2"]
    assert [text.get_position() for text in ax.texts] == [(x, y) for y in (0, 1) for x in (0, 1, 2)]
    assert ax.images[0].get_array().tolist() == [[2, 1, 2], [1, 2, 2]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "other"]


@pytest.mark.parametrize("gated", [True, False])
def test_the_modulation_plot_shows_root_mean_squares(gated):
    per_sublayer = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]  # two layers of two sublayers
    per_row = torch.tensor([-1.0, 2.0, 3.0])[:, None, None, None]  # mean size 2, standard deviation √(2/3)
    value = (per_sublayer * per_row).repeat(1, 1, 1, 2) * torch.tensor([1.0, 7.0]) / 5  # RMS of 1 and 7 is 5
    modulation = Modulation(value, 2 * value, 3 * value if gated else None, value[:, 0, 0], value[:, 0, 0])
    ax = plot_modulation(modulation)
    drawn = {container.get_label(): container for container in ax.containers}
    assert list(drawn) == [label.get_text() for label in ax.get_legend().get_texts()]
    assert list(drawn) == ["gate"] * gated + ["scale", "shift"]
    for name, factor in {"gate": 3, "scale": 1, "shift": 2}.items():
        if name in drawn:
            np.testing.assert_allclose(drawn[name][0].get_ydata(), factor * np.array([2, 4, 6, 8]), rtol=1e-5)
            np.testing.assert_allclose(
                spreads(drawn[name]), factor * np.array([1, 2, 3, 4]) * (2 / 3) ** 0.5, rtol=1e-5
            )
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0\nattn", "0\nff", "1\nattn", "1\nff"]


def spreads(container) -> np.ndarray:
    """Half the length of each error bar."""
    (bars,) = container[2]
    return np.array([(high - low) / 2 for (_, low), (_, high) in bars.get_segments()])


def test_the_score_plot_shows_each_attacker_with_its_intervals_and_bleu_on_the_common_axis():
    scores = pd.DataFrame(
        {"metric": ["bleu", "token_f1"], "value": [40.0, 0.5], "low": [30.0, 0.4], "high": [70.0, 0.7]}
    )
    control = scores.assign(value=[2.0, 0.1], attacker="control")
    both = pd.concat([scores.assign(attacker="inverted"), control])
    ax = plot_scores(both, metrics=["token_f1", "bleu"])
    drawn = {container.get_label(): container for container in ax.containers}
    assert list(drawn) == ["inverted", "control"] == [label.get_text() for label in ax.get_legend().get_texts()]
    np.testing.assert_allclose(drawn["inverted"][0].get_ydata(), [0.5, 0.4])
    np.testing.assert_allclose(drawn["control"][0].get_ydata(), [0.1, 0.02])
    ends = [tuple(segment[:, 1]) for segment in drawn["inverted"][2][0].get_segments()]
    np.testing.assert_allclose(ends, [(0.4, 0.7), (0.3, 0.7)])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["token F1", "BLEU / 100"]


def test_the_confidence_ribbons_are_quantiles_of_what_was_written_in_each_step(trajectory):
    other = dataclasses.replace(trajectory, confidence=trajectory.confidence / 2)
    ax = plot_confidence([trajectory, other])
    (median,) = ax.lines
    assert median.get_xdata().tolist() == [1, 2]
    np.testing.assert_allclose(median.get_ydata(), [np.median([0.9, 0.45]), np.median([0.2, 0.5, 0.1, 0.25])])
    for ribbon, (low, high) in zip(ax.collections, [(0.05, 0.95), (0.25, 0.75)], strict=True):
        x, y = ribbon.get_paths()[0].vertices.T
        expected = np.quantile([0.2, 0.5, 0.1, 0.25], (low, high))
        np.testing.assert_allclose([y[x == 2].min(), y[x == 2].max()], expected)


def test_a_step_in_which_nothing_was_written_has_no_ribbon(trajectory):
    names = ("tokens", "confidence", "top_ids", "top_probs")
    waiting = dataclasses.replace(trajectory, **{name: getattr(trajectory, name)[[0, 1, 1, 2]] for name in names})
    assert plot_confidence([waiting]).lines[0].get_xdata().tolist() == [1, 3]


def test_the_gain_plot_shows_mean_and_spread_of_each_sublayer():
    gain = torch.tensor([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [6.0, 60.0]]])  # two texts, two layers
    ax = plot_gain(gain)
    drawn = {container.get_label(): container for container in ax.containers}
    assert list(drawn) == ["attention", "feed-forward"]
    np.testing.assert_allclose(drawn["attention"][0].get_ydata(), [2, 4])
    np.testing.assert_allclose(drawn["feed-forward"][0].get_ydata(), [20, 40])
    np.testing.assert_allclose(spreads(drawn["feed-forward"]), [10, 20])
    assert ax.get_yscale() == "log" and "10" in ax.yaxis.get_major_formatter()(10)


@pytest.fixture
def components() -> Components:
    return Components(variance=np.array([3.0, 1.0]), scores=np.array([[1.0, 0.0], [2.0, 5.0], [3.0, 0.0]]))


def test_the_spectrum_is_cumulative_and_marks_the_participation_ratio(components):
    ax = plot_spectrum({"modulation": components})
    curve, mark = ax.lines
    assert curve.get_xdata().tolist() == [1, 2] and curve.get_ydata().tolist() == [0.75, 1.0]
    assert mark.get_xdata()[0] == pytest.approx(1.6) and mark.get_ydata()[0] == pytest.approx(0.9)  # 4² / (3² + 1²)
    assert curve.get_label() == "modulation: participation ratio 2"


def test_the_plane_shows_every_row_under_its_kind(components):
    ax = plot_plane(components, ["question", "everyday", "question"])
    drawn = {points.get_label(): points.get_offsets().tolist() for points in ax.collections}
    assert drawn == {"question": [[1, 0], [3, 0]], "everyday": [[2, 5]]}
    assert ax.get_xlabel() == "1st component (75 % of variance)" and ax.get_ylabel() == "2nd component (25 %)"


def test_groups_stand_side_by_side_over_names_with_their_intervals():
    effects = pd.DataFrame(
        [("swap", "0", 1.0, 0.5, 2.0), ("swap", "final norm", 3.0, 2.0, 4.0), ("gate", "0", 5.0, 5.0, 6.0)],
        columns=["what", "where", "value", "low", "high"],
    )
    ax = plot_intervals(effects, "where", "what")
    drawn = {container.get_label(): container for container in ax.containers}
    assert drawn["swap"][0].get_ydata().tolist() == [1, 3] and drawn["gate"][0].get_ydata().tolist() == [5]
    assert [round(float(x)) for x in drawn["swap"][0].get_xdata()] == [0, 1]
    assert [tuple(line[:, 1]) for line in drawn["swap"][2][0].get_segments()] == [(0.5, 2.0), (2.0, 4.0)]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "final norm"]


def test_the_gradient_plot_shows_cosines_and_lengths():
    ax = plot_token_gradients(torch.tensor([[3.0, 4.0], [-4.0, 3.0], [-6.0, -8.0]]), ["a", "b", "c"])
    np.testing.assert_allclose(ax.images[0].get_array(), [[1, 0, -1], [0, 1, 0], [-1, 0, 1]], atol=1e-6)
    assert ax.images[0].get_clim() == (-1, 1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a  5.00", "b  5.00", "c  10.00"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]


def test_the_lens_writes_every_word_and_frames_the_true_ones():
    ax = plot_logit_lens([["the", "cat"], ["a", "dog"]], np.array([[0.1, 0.2], [0.6, 0.9]]), ["the", "dog"])
    assert texts(ax) == ["the", "cat", "a", "dog"]
    assert sorted(frame.get_xy() for frame in ax.patches) == [(-0.5, -0.5), (0.5, 0.5)]
    assert ax.images[0].get_array().tolist() == [[0.1, 0.2], [0.6, 0.9]] and ax.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["the", "dog"]


PLOTS = (plot_trajectory, plot_order, plot_modulation, plot_scores, plot_confidence, plot_gain, plot_spectrum)
PLOTS += (plot_plane, plot_token_gradients, plot_logit_lens)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_given_axes_is_used_and_no_other_figure_opened(plot, trajectory, components):
    value = torch.ones(2, 1, 2, 3)
    scores = pd.DataFrame({"metric": ["cosine"], "value": [0.5], "low": [0.4], "high": [0.6], "attacker": ["inverted"]})
    data = {
        plot_trajectory: [trajectory],
        plot_order: [{"policy": trajectory}],
        plot_modulation: [Modulation(value, value, value, value[:, 0, 0], value[:, 0, 0])],
        plot_scores: [scores, ["cosine"]],
        plot_confidence: [[trajectory]],
        plot_gain: [torch.ones(2, 3, 2)],
        plot_spectrum: [{"modulation": components}],
        plot_plane: [components, ["one", "two", "one"]],
        plot_token_gradients: [torch.ones(2, 3), ["a", "b"]],
        plot_logit_lens: [[["a"]], np.ones((1, 1)), ["a"]],
    }
    ax = plt.subplots()[1]
    assert plot(*data[plot], ax=ax) is ax and len(plt.get_fignums()) == 1


def rows(*points):
    """(perturbation, strength, attacker, metric, value); the interval is 0.1 wide."""
    table = pd.DataFrame(points, columns=["perturbation", "strength", "attacker", "metric", "value"])
    return table.assign(low=table["value"] - 0.05, high=table["value"] + 0.05)


@pytest.fixture
def swept():
    noise, cut = "Gaussian noise", "truncation"
    return rows(
        ("no vector", 0, "unconditional prior", "token_f1", 0.1),
        ("none", 0, "inverted", "token_f1", 0.6),
        ("none", 0, "inverted", "vector_cosine", 1.0),
        ("none", 0, "nearest sentence", "token_f1", 0.2),
        (noise, 0.05, "inverted", "token_f1", 0.3),
        (noise, 0.05, "inverted", "vector_cosine", 0.7),
        (noise, 0.01, "inverted", "token_f1", 0.5),
        (noise, 0.01, "inverted", "vector_cosine", 0.9),
        (cut, 96, "inverted", "token_f1", 0.25),
        (cut, 96, "inverted", "vector_cosine", 0.5),
    )


def lines(ax):
    """Label → points, of the lines with error bars."""
    return {bars.get_label(): bars.lines[0].get_xydata().round(6).tolist() for bars in ax.containers}


def test_the_sweep_plot_draws_a_line_per_perturbation_against_the_cosine_it_leaves(swept):
    ax = plot_sweep(swept)
    assert lines(ax) == {"Gaussian noise": [[0.7, 0.3], [0.9, 0.5]], "truncation": [[0.5, 0.25]]}
    levels = {text.get_text(): text.xy[1] for text in ax.texts}
    assert levels == {"clean vectors": pytest.approx(0.6), "best control": pytest.approx(0.2)}
    assert ax.get_ylabel() == "token F1, 95 % interval" and "cosine" in ax.get_xlabel()
    (bar,) = ax.containers[1].lines[2][1].get_segments()
    np.testing.assert_allclose(bar[:, 1], [0.2, 0.3])


def test_the_frontier_joins_utility_and_leakage_by_defence_and_strength(swept):
    inverted = swept[swept["attacker"] == "inverted"]
    utility = inverted[inverted["metric"] == "vector_cosine"]
    leakage = inverted[(inverted["metric"] == "token_f1") & (inverted["perturbation"] != "none")]
    ax = plot_frontier(utility, leakage)
    assert lines(ax) == {"Gaussian noise": [[0.7, 0.3], [0.9, 0.5]], "truncation": [[0.5, 0.25]]}
    assert "utility" in ax.get_xlabel() and "leakage" in ax.get_ylabel()
    looks = [(bars.lines[0].get_color(), bars.lines[0].get_marker()) for bars in ax.containers]
    assert len({look[0] for look in looks}) == len({look[1] for look in looks}) == 2


def curves() -> pd.DataFrame:
    """Two lines of two points; the second point of "b" has a bar that rounding turned round."""
    return pd.DataFrame(
        {
            "ratio": [0.5, 1.0, 0.5, 1.0],
            "condition": ["a", "a", "b", "b"],
            "value": [1.0, 2.0, 3.0, 4.0],
            "low": [0.9, 1.8, 2.7, 4.0 + 1e-12],
            "high": [1.2, 2.4, 3.6, 4.8],
        }
    )


def test_the_curve_plot_draws_one_line_with_intervals_for_each_name():
    ax = plot_intervals(curves(), "ratio", "condition")
    drawn = {container.get_label(): container for container in ax.containers}
    assert list(drawn) == ["a", "b"] == [label.get_text() for label in ax.get_legend().get_texts()]
    np.testing.assert_array_equal(drawn["b"][0].get_xydata(), [[0.5, 3], [1, 4]])
    ends = [segment[:, 1].tolist() for segment in drawn["a"][2][0].get_segments()]
    np.testing.assert_allclose(ends, [[0.9, 1.2], [1.8, 2.4]])
    assert drawn["a"][0].get_linestyle() != drawn["b"][0].get_linestyle(), "told apart without colour"


def test_the_reliability_plot_shows_every_bin_by_its_share_and_the_diagonal():
    bins = pd.DataFrame(
        {"confidence": [0.2, 0.9], "accuracy": [0.1, 0.8], "low": [0.0, 0.7], "high": [0.3, 0.9], "share": [0.25, 0.75]}
    )
    ax = plot_reliability({"masked": bins, "inverted": bins.assign(accuracy=[0.1, 0.5], low=0.0)})
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 0], [1, 1]])
    labels = [label.get_text() for label in ax.get_legend().get_texts()]
    assert labels == ["calibrated", "masked", "inverted"]
    first, second = ax.collections[1::2]  # error bars, marks, error bars, marks
    np.testing.assert_array_equal(first.get_offsets(), [[0.2, 0.1], [0.9, 0.8]])
    np.testing.assert_array_equal(second.get_offsets(), [[0.2, 0.1], [0.9, 0.5]])
    assert first.get_sizes()[1] == 3 * first.get_sizes()[0]


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plot_intervals(curves(), "ratio", "condition", ax=ax),
        lambda ax: plot_reliability({}, ax=ax),
    ],
)
def test_a_given_axes_is_used_by_the_curves_too(draw):
    ax = plt.subplots()[1]
    assert draw(ax) is ax and len(plt.get_fignums()) == 1
