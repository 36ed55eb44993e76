"""Figures: what they show, not how they look."""

import dataclasses
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from invlib.errors import InputError
from invlib.model import Modulation
from invlib.plots import (
    MASKED,
    marked,
    picture,
    plot_confidence,
    plot_gain,
    plot_intervals,
    plot_logit_lens,
    plot_modulation,
    plot_order,
    plot_panels,
    plot_plane,
    plot_reliability,
    plot_scores,
    plot_spectrum,
    plot_sweep,
    plot_token_gradients,
    plot_trajectory,
    table,
    use_style,
)
from invlib.plots.style import DARK, MEANINGS, colours
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
    assert image.cmap(np.ma.masked)[3] == 0 and mpl.colors.to_hex(ax.get_facecolor()) == MASKED  # seen through it


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
    panels = {ax.get_title(loc="left"): ax for ax in plot_modulation(modulation).axes}
    assert list(panels) == ["gate"] * gated + ["scale", "shift"]
    for name, factor in {"gate": 3, "scale": 1, "shift": 2}.items():
        if name in panels:
            drawn = {container.get_label(): container for container in panels[name].containers}
            for sublayer, sizes in {"attention": [1, 3], "feed-forward": [2, 4]}.items():
                sizes = factor * np.array(sizes)
                np.testing.assert_allclose(drawn[sublayer][0].get_ydata(), 2 * sizes, rtol=1e-5)
                np.testing.assert_allclose(spreads(drawn[sublayer]), sizes * (2 / 3) ** 0.5, rtol=1e-5)


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
    assert texts(ax) == ["modulation: 2"]


def test_the_plane_has_a_panel_for_every_kind_with_the_others_behind(components):
    question, everyday, *_ = plot_plane(components, ["question", "everyday", "question"]).axes
    assert [ax.get_title(loc="left") for ax in (question, everyday)] == ["question", "everyday"]
    others, own = question.collections
    assert own.get_offsets().tolist() == [[1, 0], [3, 0]] and others.get_offsets().tolist() == [[2, 5]]
    assert question.figure.get_supxlabel() == "1st component (75 % of variance)"


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


PLOTS = (plot_trajectory, plot_order, plot_scores, plot_confidence, plot_gain, plot_spectrum)
PLOTS += (plot_token_gradients, plot_logit_lens)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_given_axes_is_used_and_no_other_figure_opened(plot, trajectory, components):
    scores = pd.DataFrame({"metric": ["cosine"], "value": [0.5], "low": [0.4], "high": [0.6], "attacker": ["inverted"]})
    data = {
        plot_trajectory: [trajectory],
        plot_order: [{"policy": trajectory}],
        plot_scores: [scores, ["cosine"]],
        plot_confidence: [[trajectory]],
        plot_gain: [torch.ones(2, 3, 2)],
        plot_spectrum: [{"modulation": components}],
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


def panels(fig) -> dict[str, list]:
    """Title → points of its own line, of every panel that is shown."""
    shown = [ax for ax in fig.axes if ax.get_visible()]
    drawn = {ax.get_title(loc="left"): ax.containers[0].lines[0].get_xydata().round(6).tolist() for ax in shown}
    assert len(drawn) == len(shown)
    return drawn


def test_the_sweep_has_a_panel_per_perturbation_against_the_cosine_it_leaves(swept):
    fig = plot_sweep(swept)
    assert panels(fig) == {"Gaussian noise": [[0.7, 0.3], [0.9, 0.5]], "truncation": [[0.5, 0.25]]}
    noise, cut = fig.axes[:2]
    for ax in (noise, cut):
        assert {
            line.get_label(): line.get_ydata()[0] for line in ax.lines if line.get_label() in ("clean", "control")
        } == {
            "clean": 0.6,
            "control": 0.2,
        }
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["clean", "control"] and not noise.texts
    assert fig.get_supylabel() == "token F1, 95 % interval" and "cosine" in fig.get_supxlabel()
    (bar,) = cut.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(bar[:, 1], [0.2, 0.3])
    behind = [line.get_xydata().round(6).tolist() for line in cut.lines if line.get_color() == "#d5dade"]
    assert behind == [[[0.7, 0.3], [0.9, 0.5]]], "all others in grey"


def test_lines_of_a_panel_have_the_colour_of_what_they_mean_and_intervals_both_ways(swept):
    both = pd.concat(
        [swept.query("attacker == 'inverted' and metric == 'token_f1'").assign(who=w) for w in ("naive", "adapted")]
    )
    both = both.assign(kept=both["strength"], kept_low=both["strength"] - 0.1, kept_high=both["strength"] + 0.2)
    fig = plot_panels(both, "kept", "perturbation", line="who", xscale="log")
    ax = fig.axes[1]
    drawn = {bars.get_label(): bars for bars in ax.containers}
    assert {name: bars[0].get_color() for name, bars in drawn.items()} == {n: MEANINGS[n] for n in ("naive", "adapted")}
    across = drawn["naive"].lines[2][0].get_segments()
    np.testing.assert_allclose([line[:, 0] for line in across], [(-0.09, 0.21), (-0.05, 0.25)])
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["naive", "adapted"]


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
    fig = plot_reliability({"masked": bins, "inverted": bins.assign(accuracy=[0.1, 0.5], low=0.0)})
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["masked", "inverted"]
    for ax, expected in zip(fig.axes, ([[0.2, 0.1], [0.9, 0.8]], [[0.2, 0.1], [0.9, 0.5]]), strict=True):
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 0], [1, 1]])
        _, marks = ax.collections  # error bars, marks
        np.testing.assert_array_equal(marks.get_offsets(), expected)
        assert marks.get_sizes()[1] == 3 * marks.get_sizes()[0]


def test_a_few_lines_carry_their_names_and_no_two_of_them_touch():
    near = curves().assign(value=[1.0, 2.0, 1.0, 2.01], low=0.9, high=2.1)
    ax = plot_intervals(near, "ratio", "condition")
    assert texts(ax) == ["a", "b"] and not ax.get_legend().get_visible()
    ax.figure.canvas.draw()
    below, above = (text.get_window_extent() for text in ax.texts)
    assert below.y1 <= above.y0 + 1
    assert [text.get_color() for text in ax.texts] == [bars[0].get_color() for bars in ax.containers]


def test_a_colour_means_one_thing_and_no_two_names_share_one():
    found = colours(["someone", "inverted", "shuffled embeddings", "else"])
    assert found["inverted"] == colours(["naive"])["naive"] and len(set(found.values())) == 4
    assert set(found.values()) <= set(DARK)


# ── on a page ──


@pytest.fixture
def drawn():
    return picture(plot_intervals(curves(), "ratio", "condition"), "Two <lines>", 'They "rise"')


def test_a_picture_has_its_words_and_closes_its_figure(drawn):
    assert plt.get_fignums() == []
    shown = drawn._repr_mimebundle_()
    assert "<figcaption>Two &lt;lines&gt;</figcaption>" in shown["text/html"]
    assert 'alt="They &quot;rise&quot;"' in shown["text/html"] and shown["text/plain"].startswith("Two <lines>")
    with pytest.raises(InputError, match="a caption and an alt text"):
        picture(plot_intervals(curves(), "ratio", "condition"), "Two lines", " ")


def test_every_colour_of_a_picture_follows_the_theme_and_drawn_again_it_is_the_same(drawn):
    head, body = drawn.svg.split("</style>", 1)
    assert not set(re.findall("#[0-9a-f]{6}", body)) & set(DARK)
    assert "@media (prefers-color-scheme: dark)" in head and DARK["#0072b2"] in head
    assert picture(plot_intervals(curves(), "ratio", "condition"), "a", "b").svg == drawn.svg


def test_no_letter_of_a_picture_is_smaller_than_nine_pixels_on_a_page(drawn):
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', drawn.svg)[1])
    sizes = [float(size) * 688 / width for size in re.findall(r"font-size: ([\d.]+)px", drawn.svg)]
    assert sizes and min(sizes) >= 9


def test_a_table_has_no_counter_and_its_numbers_stand_to_the_right_with_separators():
    frame = pd.DataFrame({"name": ["a_b", "<c>"], "n": [12345, 6], "share": [0.12345, np.nan], "ok": [True, False]})
    html = table(frame)._repr_mimebundle_()["text/html"]
    assert re.findall(r"<th(?: [^>]*)?>(.*?)</th>", html) == ["name", "n", "share", "ok"]
    assert re.findall(r"<td[^>]*>(.*?)</td>", html) == ["a b", "12,345", "0.123", "yes", "&lt;c&gt;", "6", "–", "no"]
    assert re.findall(r'<td class="number">(.*?)</td>', html) == ["12,345", "0.123", "6", "–"]
    named = table(frame.set_index("name"))._repr_mimebundle_()["text/html"]
    assert "<th>name</th>" in named and ">a b<" in named


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ([384.0, 0.02, 8.0], ["384", "0.020", "8"]),  # strengths
        ([1536.0, 0.0, np.nan], ["1,536", "0", "–"]),  # counts
        ([1.0, 0.95, 0.0], ["1.000", "0.950", "0.000"]),  # shares
        ([23.0, 12.345, 8.5], ["23.000", "12.345", "8.500"]),  # measured; that one is whole is chance
    ],
)
def test_whole_strengths_and_counts_have_no_decimals_but_shares_have(column, shown):
    told = table(pd.DataFrame({"value": column}))
    assert re.findall(r'<td class="number">(.*?)</td>', told.html) == shown
    assert told.text.split()[1:] == shown


def test_recovered_words_are_bold_and_each_counts_once():
    assert marked("Meet me at nine.", "meet <b> nine nine.") == "<b>meet</b> &lt;b&gt; <b>nine</b> nine."
    frame = pd.DataFrame({"sentence": ["Meet me."], "read": ["me too"]})
    assert "<td><b>me</b> too</td>" in table(frame, recovered="read", of="sentence").html


def test_a_given_axes_is_used_by_the_curves_too():
    ax = plt.subplots()[1]
    assert plot_intervals(curves(), "ratio", "condition", ax=ax) is ax and len(plt.get_fignums()) == 1
