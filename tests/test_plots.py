"""Figures: what they show, not how they look."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from invlib.model import Modulation
from invlib.plots import plot_modulation, plot_order, plot_scores, plot_trajectory, use_style
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
    confidence = np.where(tokens == MASK, np.nan, 0.9).astype(np.float32)
    top_ids = np.where(tokens[..., None] == MASK, -1, tokens[..., None])
    return Trajectory(
        tokens, confidence, top_ids, (top_ids >= 0) * np.float32(0.9), MASK, {6: "we", 7: "<b>", 8: "go"}, "we <b> go"
    )


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_the_trajectory_plot_writes_each_visible_token_and_frames_its_step(trajectory):
    ax = plot_trajectory(trajectory)
    assert texts(ax) == ["<b>", "we", "<b>", "go"]
    assert sorted(frame.get_xy() for frame in ax.patches) == [(-0.5, 1.5), (0.5, 0.5), (1.5, 1.5)]
    assert ax.get_xlabel() and ax.get_ylabel()


def test_the_order_plot_shows_the_step_of_every_position(trajectory):
    ax = plot_order({"policy": trajectory})
    assert texts(ax) == ["2", "1", "2"]


@pytest.mark.parametrize("gated", [True, False])
def test_the_modulation_plot_shows_root_mean_squares(gated):
    value = torch.full((3, 2, 2, 5), 2.0)
    modulation = Modulation(value, value / 2, value if gated else None, value[:, 0, 0], value[:, 0, 0])
    ax = plot_modulation(modulation)
    assert [label.get_text() for label in ax.get_legend().get_texts()] == ["gate"] * gated + ["scale", "shift"]
    heights = {tuple(container[0].get_ydata()) for container in ax.containers}
    assert heights == {(2.0,) * 4, (1.0,) * 4}


def test_the_score_plot_scales_bleu_to_the_common_axis():
    scores = pd.DataFrame(
        {"metric": ["token_f1", "bleu"], "value": [0.5, 40.0], "low": [0.4, 30.0], "high": [0.6, 50.0]}
    )
    ax = plot_scores(scores.assign(attacker="inverted"), metrics=["token_f1", "bleu"])
    assert ax.containers[0][0].get_ydata().tolist() == [0.5, 0.4]


def test_a_given_axes_is_used(trajectory):
    ax = plt.subplots()[1]
    assert plot_trajectory(trajectory, ax=ax) is ax
