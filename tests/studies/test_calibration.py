"""Calibration: hand-made tables, and tokens of inversions whose truth is known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import invlib
from invlib.errors import InputError
from invlib.studies.calibration import expected_calibration_error, inverted_tokens, reliability


@pytest.fixture(scope="module")
def inverter():
    return invlib.Inverter.load("minilm")


def judged(confidence, right, sentence=None) -> pd.DataFrame:
    sentence = range(len(right)) if sentence is None else sentence
    return pd.DataFrame({"sentence": sentence, "confidence": confidence, "right": right})


def test_the_calibration_error_of_a_table_made_by_hand():
    tokens = judged([0.25, 0.25, 0.25, 0.25, 0.95, 0.95, 1.0, 0.05], [0, 0, 0, 1, 1, 1, 0, 0])
    # bins: four of 0.25, a quarter right: 0; three of mean 0.9667, two thirds right: 0.3; one of 0.05, wrong: 0.05
    value, low, high = expected_calibration_error(tokens)
    assert value == pytest.approx((0 + 3 * 0.3 + 1 * 0.05) / 8)
    assert low <= value <= high and low < high
    curve = reliability(tokens)
    assert curve["confidence"].tolist() == pytest.approx([0.05, 0.25, 2.9 / 3])
    assert curve["accuracy"].tolist() == pytest.approx([0, 0.25, 2 / 3])
    assert curve["n"].tolist() == [1, 4, 3] and curve["share"].tolist() == pytest.approx([1 / 8, 4 / 8, 3 / 8])


def test_calibrated_tokens_have_an_error_near_zero_and_their_curve_holds_the_diagonal():
    random = np.random.default_rng(0)
    confidence = random.uniform(size=40_000)
    tokens = judged(confidence, random.uniform(size=40_000) < confidence, np.arange(40_000) // 20)
    assert expected_calibration_error(tokens)[0] < 0.01
    curve = reliability(tokens)
    held = (curve["low"] <= curve["confidence"]) & (curve["confidence"] <= curve["high"])
    assert held.mean() >= 0.8
    tokens["right"] = random.uniform(size=40_000) < confidence**2
    assert expected_calibration_error(tokens)[0] == pytest.approx(1 / 6, abs=0.01)  # mean of c - c²


def test_the_interval_of_the_error_keeps_sentences_together():
    random = np.random.default_rng(0)
    sure = random.uniform(size=60) < 0.5
    apart = judged(np.full(600, 0.5), np.repeat(sure, 10))
    together = judged(np.full(600, 0.5), np.repeat(sure, 10), np.repeat(np.arange(60), 10))
    widths = [np.subtract(*expected_calibration_error(tokens)[:0:-1]) for tokens in (apart, together)]
    assert widths[1] > 2 * widths[0]


def test_no_token_is_no_calibration():
    with pytest.raises(InputError, match="no token to judge"):
        expected_calibration_error(judged([], []))


def test_inverted_tokens_are_those_of_the_trajectories(inverter, sentences):
    texts = sentences[:6]
    result = inverter.invert(inverter.encoder.encode(texts), num_steps=3, length=[7] * len(texts))
    tokens = inverted_tokens(inverter, texts, result.trajectories)
    assert len(tokens) == 7 * len(texts)
    for row in tokens.itertuples():
        true = inverter.tokenizer.encode(texts)[row.sentence]
        trajectory = result.trajectories[row.sentence]
        token, step = trajectory.tokens[-1, row.position], trajectory.uncovered_at[row.position]
        assert row.confidence == pytest.approx(trajectory.confidence[step, row.position])
        assert row.right == (row.position < len(true) and token == true[row.position])
        assert row.in_sentence == (token in true)


def test_a_token_of_the_sentence_at_another_place_is_in_it_but_not_right(inverter):
    text = "the cat sat on a mat"
    (ids,) = inverter.tokenizer.encode([text])
    (trajectory,) = inverter.invert(inverter.encoder.encode([text]), length=len(ids) + 2).trajectories
    tokens = trajectory.tokens.copy()
    tokens[-1] = [*ids[::-1], ids[0], *inverter.tokenizer.encode(["you"])[0][:1]]  # turned round, two tokens too long
    judged = inverted_tokens(inverter, [text], [dataclasses.replace(trajectory, tokens=tokens)])
    assert judged["right"].tolist() == [a == b for a, b in zip(ids, ids[::-1], strict=True)] + [False, False]
    assert judged["in_sentence"].tolist() == [True] * (len(ids) + 1) + [False]
