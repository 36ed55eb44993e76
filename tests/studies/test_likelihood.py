"""Likelihood and calibration, against computations that take one sentence and one token at a time."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from invlib import checkpoint
from invlib.config import Config, ModelConfig, load_config
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.model import ConditionalMDLM
from invlib.studies.calibration import (
    compare,
    expected_calibration_error,
    fit_temperature,
    helps,
    inverted_tokens,
    main,
    reliability,
    store_temperature,
    temperature_of,
    with_temperature,
)
from invlib.studies.likelihood import CONDITIONS, RATIOS, information, masked_likelihood, nats_per_token

TINY = ModelConfig(
    *(2304, 16, 32, 2, 4, 32, 384, 4, "minilm", "pruned"), gate=True, length_head=True, null_embedding=True
)


@pytest.fixture(scope="module")
def inverter(minilm, pruned) -> Inverter:
    """A random model whose predictions are far from flat and hang on the vector."""
    model = ConditionalMDLM(TINY)
    random = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=random)
    return Inverter(model.requires_grad_(False).eval(), pruned, minilm)


@pytest.fixture(scope="module")
def texts(inverter, sentences) -> list[str]:
    short = ["the cat sat.", "a b c d e f", "go on", "the sea", "I am", "no", "who is it?", "a red one"]
    assert len({len(ids) for ids in inverter.tokenizer.encode(short)}) > 3, "padding must matter"
    return short


@pytest.fixture(scope="module")
def table(inverter, texts) -> pd.DataFrame:
    random = torch.Generator().manual_seed(1)
    return masked_likelihood(inverter, texts, conditions=CONDITIONS, batch_size=3, generator=random)


def test_every_row_is_what_the_model_says_to_that_sentence_alone(inverter, texts, table):
    vectors = torch.from_numpy(inverter.encoder.encode(texts))
    modulations = {
        "conditional": inverter.model.modulation(vectors),
        "null": inverter.model.modulation(vectors, torch.ones(len(texts), dtype=torch.bool)),
    }
    checked = 0
    for (sentence, _, condition), rows in table.groupby(["sentence", "ratio", "condition"]):
        if condition not in modulations:
            continue
        x0 = torch.tensor(inverter.tokenizer.encode(texts)[sentence])
        xt = x0.clone()
        xt[rows["position"].tolist()] = TINY.mask_token_id
        logits = inverter.model(xt[None], modulations[condition].rows([sentence]))
        logits[:, TINY.mask_token_id] = -torch.inf
        for (_, row), own in zip(rows.sort_values("position").iterrows(), logits, strict=True):
            log_probs = own.log_softmax(dim=0)
            true = int(x0[row["position"]])
            assert row["token"] == true
            assert row["log_prob"] == pytest.approx(float(log_probs[true]), abs=1e-4)
            assert row["confidence"] == pytest.approx(float(log_probs.exp().max()), abs=1e-5)
            assert row["right"] == (int(log_probs.argmax()) == true)
            checked += 1
    assert checked > 200


def test_the_ratio_says_how_many_are_masked_and_all_conditions_see_the_same_masks(inverter, texts, table):
    lengths = [len(ids) for ids in inverter.tokenizer.encode(texts)]
    assert set(table["ratio"]) == set(RATIOS) and RATIOS[-1] == 1
    for (sentence, ratio), rows in table.groupby(["sentence", "ratio"]):
        places = [tuple(sorted(own["position"])) for _, own in rows.groupby("condition")]
        assert len(places) == 3 and len(set(places)) == 1
        assert len(places[0]) == max(1, round(ratio * lengths[sentence]))


def test_shuffled_is_the_vector_of_one_other_sentence_and_nobody_keeps_its_own(inverter, texts, table):
    vectors = torch.from_numpy(inverter.encoder.encode(texts))
    modulation, givers = inverter.model.modulation(vectors), []
    full = table[(table["ratio"] == 1) & (table["condition"] == "shuffled")]
    for sentence, rows in full.groupby("sentence"):
        xt = torch.full((1, len(rows)), TINY.mask_token_id)
        wanted = rows.sort_values("position")["log_prob"].to_numpy()
        for giver in range(len(texts)):
            logits = inverter.model(xt, modulation.rows([giver]))
            logits[:, TINY.mask_token_id] = -torch.inf
            true = torch.tensor(rows.sort_values("position")["token"].tolist())
            found = logits.log_softmax(dim=1).gather(1, true[:, None])[:, 0]
            if np.allclose(found, wanted, atol=1e-4):
                givers.append((sentence, giver))
    assert sorted(giver for _, giver in givers) == list(range(len(texts)))
    assert all(sentence != giver for sentence, giver in givers)


def test_masks_are_a_function_of_the_generator(inverter, texts):
    one, again, other = (
        masked_likelihood(inverter, texts, ratios=[0.5], generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(one, again)
    assert one["position"].tolist() != other["position"].tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratios": [0.0]}, "above 0 and at most 1"),
        ({"ratios": [1.5]}, "above 0 and at most 1"),
        ({"conditions": ["unconditional"]}, "unknown condition 'unconditional'"),
    ],
)
def test_what_cannot_be_asked_is_refused(inverter, texts, options, said):
    with pytest.raises(InputError, match=said):
        masked_likelihood(inverter, texts, **options)


def test_texts_that_do_not_fit_are_refused(inverter, texts):
    with pytest.raises(InputError, match="text 1 has .* tokens, the model takes 1 to 16"):
        masked_likelihood(inverter, [texts[0], "word " * 20])
    with pytest.raises(InputError, match="at least two"):
        masked_likelihood(inverter, texts[:1], conditions=["shuffled"])


def test_a_checkpoint_without_a_null_embedding_has_no_null_condition(inverter, texts, minilm, pruned):
    without = ConditionalMDLM(dataclasses.replace(TINY, null_embedding=False)).requires_grad_(False).eval()
    with pytest.raises(InputError, match="no null embedding"):
        masked_likelihood(Inverter(without, pruned, minilm), texts, conditions=["null"])


def hand_made() -> pd.DataFrame:
    """Two sentences; at ratio 1 the second has three tokens, so tokens and sentences weigh differently."""
    rows = [
        (0, 0.5, "conditional", -1.0),
        (0, 0.5, "null", -2.0),
        (1, 0.5, "conditional", -2.0),
        (1, 0.5, "null", -4.0),
        (0, 1.0, "conditional", -1.0),
        (0, 1.0, "null", -1.5),
        *[(1, 1.0, "conditional", -3.0)] * 3,
        *[(1, 1.0, "null", -7.0)] * 3,
    ]
    return pd.DataFrame(rows, columns=["sentence", "ratio", "condition", "log_prob"])


def test_nats_per_token_and_what_the_vector_brings():
    nats = nats_per_token(hand_made()).set_index(["ratio", "condition"])
    assert nats["value"].to_dict() == pytest.approx(
        {
            (0.5, "conditional"): 1.5,
            (0.5, "null"): 3.0,
            (1.0, "conditional"): 10 / 4,
            (1.0, "null"): 22.5 / 4,
        }
    )
    assert nats.loc[(0.5, "null"), ["low", "high", "n"]].tolist() == [2.0, 4.0, 2]  # draws: twice the one or the other
    gain = information(hand_made()).set_index("ratio")
    assert set(gain["condition"]) == {"null"}
    assert gain["value"].tolist() == pytest.approx([1.5, 12.5 / 4])
    assert gain.loc[1.0, ["low", "high"]].tolist() == pytest.approx([0.5, 4.0])


def test_the_interval_is_over_sentences_not_over_tokens():
    """Ten tokens alike in each sentence know no more than one."""
    single = pd.DataFrame(
        {"sentence": range(50), "ratio": 1.0, "condition": "conditional", "log_prob": -np.arange(50) / 10}
    )
    tenfold = pd.concat([single] * 10)
    pd.testing.assert_frame_equal(nats_per_token(single), nats_per_token(tenfold))


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


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_of_logits_scaled_by_a_known_factor(factor):
    random = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(4000, 30, generator=random)
    honest[:, 7] = -torch.inf  # as [MASK] is
    tokens = torch.multinomial(honest.softmax(dim=1), 1, generator=random)[:, 0]
    assert fit_temperature(honest * factor, tokens) == pytest.approx(factor, rel=0.05)


def test_the_temperature_divides_the_logits_in_training_and_inference(inverter, texts):
    warm = with_temperature(inverter, 2.0)
    xt = torch.tensor([[4, 5, 4]])
    modulation = inverter.model.modulation(torch.from_numpy(inverter.encoder.encode(texts[:1])))
    torch.testing.assert_close(warm.model(xt, modulation), inverter.model(xt, modulation) / 2)
    states = warm.model.final_states(warm.model.hidden_states(xt, modulation), modulation, xt == 4)
    torch.testing.assert_close(states @ warm.model.output_table.T, inverter.model(xt, modulation) / 2)
    assert inverter.config.logit_temperature == 1, "the inverter itself is left as it was"


def test_a_model_that_is_too_sure_by_a_known_factor_gets_it_back(inverter, texts):
    plain = temperature_of(inverter, texts, torch.Generator().manual_seed(0))
    again = temperature_of(with_temperature(inverter, 3.0), texts, torch.Generator().manual_seed(0))
    assert again == plain, "it is the temperature of the weights, whatever is stored"


def test_inverted_tokens_are_those_of_the_trajectories(inverter, texts):
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


def table_of(change: dict) -> pd.DataFrame:
    return pd.DataFrame(change, ["change", "low", "high"]).T


@pytest.mark.parametrize(
    ("nats", "ece", "expected"),
    [
        ((-0.02, -0.03, -0.01), (-0.01, -0.02, 0.0), True),
        ((-0.02, -0.05, 0.01), (-0.01, -0.02, 0.0), False),
        ((-0.02, -0.03, -0.01), (0.01, 0.0, 0.02), False),
    ],
)
def test_a_temperature_helps_where_nats_fall_beyond_doubt_and_the_error_falls_too(nats, ece, expected):
    assert helps(table_of({"nats per masked token": nats, "ECE, masked tokens": ece})) is expected


def test_the_comparison_is_that_of_the_two_tables(inverter, texts):
    warm = with_temperature(inverter, 2.0)
    found = compare(inverter, warm, texts, num_steps=3)
    for column, one in (("before", inverter), ("after", warm)):
        table = masked_likelihood(one, texts, generator=torch.Generator().manual_seed(0))
        assert found.loc["nats per masked token", column] == pytest.approx(-table["log_prob"].mean())
        assert found.loc["ECE, masked tokens", column] == pytest.approx(expected_calibration_error(table)[0])
        result = one.invert(inverter.encoder.encode(texts), num_steps=3)
        written = inverted_tokens(one, texts, result.trajectories)
        assert found.loc["ECE, inverted tokens", column] == pytest.approx(expected_calibration_error(written)[0])
    assert (found["change"] == found["after"] - found["before"]).all()
    same = compare(inverter, with_temperature(inverter, 1.0), texts, num_steps=3)
    assert not same[["change", "low", "high"]].to_numpy().any(), "paired: the same model changes nothing, for certain"


@pytest.fixture
def folder(inverter, pruned, tmp_path):
    """The tiny model as a checkpoint whose logits are far too large."""
    config = dataclasses.replace(TINY, logit_temperature=0.5)
    checkpoint.write(tmp_path / "tiny", inverter.model, Config(config), dtype=torch.float32)
    pruned.save(tmp_path / "tiny" / "tokenizer.json")
    return tmp_path / "tiny"


def test_the_stored_temperature_is_read_back_and_nothing_else_changes(folder):
    weights, before = (folder / "model.safetensors").read_bytes(), load_config(folder / "config.yaml")
    store_temperature(folder, 1.23456)
    after = load_config(folder / "config.yaml")
    assert after.model == dataclasses.replace(before.model, logit_temperature=1.2346)
    assert dataclasses.replace(after, model=before.model) == before
    assert (folder / "model.safetensors").read_bytes() == weights
    assert Inverter.load(folder).config.logit_temperature == 1.2346


def test_the_command_stores_a_temperature_that_helps(folder, sentences, tmp_path, capsys):
    lines = [f"{a} {b} {c}" for a in ("the", "my", "a") for b in ("cat", "dog", "sea") for c in ("ran", "is on", "sat")]
    (tmp_path / "held.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    arguments = ["--text", str(tmp_path / "held.jsonl"), "--checkpoint", str(folder), "--limit", "18"]
    assert main(arguments) == 0
    said, stored = capsys.readouterr().out, load_config(folder / "config.yaml").model.logit_temperature
    assert stored > 1.5, "random logits of this size are far too sure"
    assert "it helps" in said and f"logit_temperature {stored:.4f}" in said and "judged on the next 9" in said
    assert main(arguments) == 0
    assert load_config(folder / "config.yaml").model.logit_temperature == stored, "again gives the same"


def test_the_command_needs_enough_text_and_a_folder(folder, tmp_path, capsys):
    (tmp_path / "held.txt").write_text("the cat sat on it\n" * 20)
    assert main(["--text", str(tmp_path / "held.txt"), "--checkpoint", str(folder), "--limit", "19"]) == 2
    assert "choose another --limit or give more text" in capsys.readouterr().err
    (tmp_path / "one.pt").write_bytes(b"")
    assert main(["--text", str(tmp_path / "held.txt"), "--checkpoint", str(tmp_path / "one.pt")]) == 2
    assert "in a checkpoint folder only" in capsys.readouterr().err


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(value):
    with pytest.raises(InputError, match="logit_temperature must be positive"):
        dataclasses.replace(TINY, logit_temperature=value)
