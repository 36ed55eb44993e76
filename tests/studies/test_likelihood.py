"""Likelihood, against computations that take one sentence and one token at a time."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from invlib.config import ModelConfig
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.model import ConditionalMDLM
from invlib.studies.likelihood import RATIOS, information, masked_likelihood, nats_per_token

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
    return masked_likelihood(inverter, texts, batch_size=3, generator=random)


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
        masked_likelihood(inverter, texts, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(one, again)
    assert one["position"].tolist() != other["position"].tolist()


def test_what_cannot_be_asked_is_refused(inverter, texts):
    with pytest.raises(InputError, match="at least two"):
        masked_likelihood(inverter, texts[:1])


def test_a_checkpoint_without_a_null_embedding_has_no_null_condition(inverter, texts, minilm, pruned):
    without = ConditionalMDLM(dataclasses.replace(TINY, null_embedding=False)).requires_grad_(False).eval()
    with pytest.raises(InputError, match="no null embedding"):
        masked_likelihood(Inverter(without, pruned, minilm), texts)


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
