"""The public face: vectors in, sentences out, and one clear line for every wrong input."""

import re

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

import invlib
from invlib import InputError
from invlib.__main__ import main
from invlib.inverter import check_vectors
from invlib.policies import POLICIES, random_order
from invlib.studies.score import CONTROLS, INVERTED, markdown_table, reconstruct, score_attackers

SENTENCES = [
    "Meet me at the station at nine.",
    "Plants need light and water.",
    "Do you like the new car?",
    "I am late.",
]


@pytest.fixture(scope="module")
def vectors(inverter):
    return inverter.encoder.encode(SENTENCES)


def test_the_readme_example(inverter):
    vectors = inverter.encoder.encode(["Meet me at the station at nine."])
    assert vectors.shape == (1, 384) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)
    result = inverter.invert(vectors, num_steps=8)
    assert len(result.texts) == 1 and isinstance(result.texts[0], str)
    assert result.cosines is None, "no encoder was used"
    assert result.encoder_queries.tolist() == [0] and 1 <= result.model_calls[0] <= 8
    scores = invlib.metrics.score(["Meet me at the station at nine."], result.texts, inverter.encoder)
    assert list(scores.columns) == ["metric", "value", "low", "high", "n"]


def test_the_vector_decides_what_is_written(inverter, vectors):
    """Own vectors must give back more words than exchanged ones: the least that an inverter has to do."""
    own = inverter.invert(vectors).texts
    exchanged = inverter.invert(np.roll(vectors, 1, axis=0)).texts
    own_f1 = np.mean([invlib.metrics.token_f1(r, t) for r, t in zip(SENTENCES, own, strict=True)])
    exchanged_f1 = np.mean([invlib.metrics.token_f1(r, t) for r, t in zip(SENTENCES, exchanged, strict=True)])
    assert own_f1 > exchanged_f1 + 0.2


def test_one_vector_or_many_numpy_torch_or_lists(inverter, vectors):
    expected = inverter.invert(vectors).texts
    assert inverter.invert(torch.from_numpy(vectors)).texts == expected
    assert inverter.invert(vectors.tolist()).texts == expected
    assert inverter.invert(vectors[2]).texts == expected[2:3]
    assert inverter.invert(vectors, batch_size=1).texts == expected
    assert inverter.invert(3 * vectors).texts == expected, "only the direction counts"


def test_integers_are_converted(inverter, vectors):
    as_int8 = np.round(vectors * 127 / np.abs(vectors).max()).astype(np.int8)
    assert inverter.invert(as_int8).texts == inverter.invert(as_int8.astype(np.float32)).texts


def test_verifying_costs_one_query_each_and_gives_true_cosines(inverter, vectors):
    before = inverter.encoder.queries
    result = inverter.invert(vectors, verify=True)
    assert inverter.encoder.queries - before == result.encoder_queries.sum() == len(SENTENCES)
    expected = (inverter.encoder.encode(result.texts) * vectors).sum(axis=1)
    np.testing.assert_allclose(result.cosines, expected, atol=1e-5)


def test_trajectories_show_every_step_from_all_masks_to_the_text(inverter, vectors):
    result = inverter.invert(vectors, num_steps=5)
    for text, trajectory in zip(result.texts, result.trajectories, strict=True):
        assert trajectory.num_steps == 5
        assert trajectory.masked[0].all() and not trajectory.masked[-1].any()
        assert inverter.tokenizer.decode(trajectory.tokens[-1]) == text == trajectory.text
        assert len(trajectory.alternatives(1, 0)) == 5


def test_inverting_needs_no_encoder(vectors, monkeypatch):
    monkeypatch.setattr(invlib.Encoder, "load", lambda *args, **options: pytest.fail("the encoder was opened"))
    assert len(invlib.Inverter.load("minilm").invert(vectors).texts) == len(SENTENCES)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_every_policy_ends_with_text_at_any_number_of_steps(small_inverter, vectors, policy):
    for num_steps in (1, 7, 20):
        result = small_inverter.invert(vectors, num_steps=num_steps, policy=policy, length=[3, 9, 12, 16])
        assert [len(t) for t in result.trajectories] == [3, 9, 12, 16]
        assert not any(t.masked[-1].any() for t in result.trajectories)


def test_a_short_sentence_costs_fewer_calls(inverter, vectors):
    result = inverter.invert(vectors, num_steps=40, length=[3, 9, 12, 32], keep_trajectories=False)
    assert result.model_calls.tolist() == [3, 9, 12, 32]
    assert result.trajectories == []


def test_the_predicted_length_is_about_that_of_the_sentence(inverter, vectors):
    lengths = [len(ids) for ids in inverter.tokenizer.encode(SENTENCES)]
    assert np.abs(inverter.predict_lengths(vectors) - lengths).mean() < 3


def test_the_predicted_length_counts_from_one(inverter, vectors, monkeypatch):
    monkeypatch.setattr(inverter.model, "length_logits", lambda *_: 100 * torch.eye(32)[[0, 4, 31, 8]])
    assert inverter.predict_lengths(vectors).tolist() == [1, 5, 32, 9]
    assert [len(t) for t in inverter.invert(vectors, num_steps=1).trajectories] == [1, 5, 32, 9]


def test_the_predicted_length_is_the_median(inverter, vectors, monkeypatch):
    probs = torch.zeros(len(vectors), 32)
    probs[:, [3, 9, 10, 11]] = torch.tensor([0.4, 0.15, 0.2, 0.25])  # of 4, 10, 11, 12
    monkeypatch.setattr(inverter.model, "length_logits", lambda *_: probs.log())
    assert inverter.predict_lengths(vectors).tolist() == [10] * len(vectors)
    assert {len(t) for t in inverter.invert(vectors, num_steps=1).trajectories} == {10}
    assert inverter.model.predicted_lengths(torch.from_numpy(vectors)).tolist() == [10] * len(vectors)


@pytest.mark.parametrize("size", [1e-30, 1e20, 1e30])
def test_the_size_of_a_vector_does_not_matter_however_large_or_small(inverter, vectors, size):
    scaled = vectors.astype(np.float64) * size
    np.testing.assert_allclose(check_vectors(scaled, 384), vectors, atol=1e-6)
    assert inverter.invert(scaled, num_steps=2).texts == inverter.invert(vectors, num_steps=2).texts


def test_an_empty_text_has_no_cosine_and_costs_no_query(inverter, vectors, monkeypatch):
    monkeypatch.setattr(inverter.tokenizer, "decode", lambda ids: "" if len(ids) == 3 else "I am late.")
    result = inverter.invert(vectors, num_steps=1, length=[3, 9, 3, 9], verify=True)
    assert result.encoder_queries.tolist() == [0, 1, 0, 1] and (result.cosines[[0, 2]] == 0).all()
    assert result.cosines[3] == pytest.approx(1, abs=1e-4), "the fourth vector is that of this very text"


def test_a_checkpoint_opens_in_fp32_and_where_asked_in_bf16(inverter, vectors):
    small = invlib.Inverter.load("minilm", dtype=torch.bfloat16)
    assert (inverter.model.dtype, small.model.dtype) == (torch.float32, torch.bfloat16)
    assert len(small.invert(vectors).texts) == len(SENTENCES)


def test_the_same_generator_gives_the_same_texts_in_any_batching(inverter, vectors):
    def run(**options):
        random = torch.Generator().manual_seed(7)
        return inverter.invert(vectors, policy=random_order, temperature=1, generator=random, **options).texts

    assert run() == run() == run(batch_size=1)


def test_the_prior_ignores_the_vector(inverter, vectors):
    prior = inverter.invert(vectors[[0, 0, 1]], conditional=False, length=9)
    assert prior.texts[0] == prior.texts[1] == prior.texts[2] != inverter.invert(vectors[0], length=9).texts[0]


def test_a_model_without_a_length_head_decodes_all_positions(inverter, vectors):
    published = invlib.config.ModelConfig(
        vocab_size=inverter.tokenizer.vocab_size,
        max_seq_len=32,
        hidden_dim=16,
        num_layers=1,
        num_heads=2,
        ff_dim=16,
        embedding_cond_dim=384,
        mask_token_id=4,
        encoder_model="minilm",
        decoder_tokenizer="pruned",
    )
    small = invlib.Inverter(invlib.ConditionalMDLM(published).eval(), inverter.tokenizer)
    assert [len(t) for t in small.invert(vectors).trajectories] == [32] * len(SENTENCES)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, 383)), r"shape \(2, 383\); this checkpoint inverts 384-dimensional"),
        (np.ones((1, 2, 384)), r"shape \(1, 2, 384\)"),
        (np.full((3, 384), np.nan), "vector 0 has NaN or infinite"),
        (np.vstack([np.ones(384), np.full(384, np.inf)]), "vector 1 has NaN or infinite"),
        (np.vstack([np.ones(384), np.zeros(384)]), "vector 1 is all zeros"),
        (np.empty((0, 384)), "no vector to invert"),
        ([], "no vector to invert"),
        ([[1.0] * 384, [1.0] * 3], "no rectangular array"),
        ([["a"] * 384], "must be real numbers"),
        (np.ones((1, 384), complex), "must be real numbers"),
    ],
)
def test_vectors_that_cannot_be_inverted_are_refused_in_one_line(inverter, vectors, message):
    with pytest.raises(InputError, match=message) as caught:
        inverter.invert(vectors)
    assert "\n" not in str(caught.value)


def test_the_input_is_not_changed(vectors):
    given = 3 * vectors
    before = given.copy()
    assert np.linalg.norm(check_vectors(given, 384), axis=1) == pytest.approx(1)
    check_vectors(torch.from_numpy(given), 384)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("length", [0, 33, 2.5, [4, 4], [4, 4, 0, 4], [4, 4, 2.5, 4], "long"])
def test_a_length_that_the_model_does_not_have_is_refused(inverter, vectors, length, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for people: no type check comes first
    with pytest.raises(InputError, match="length must be an integer from 1 to 32"):
        inverter.invert(vectors, length=length)


def test_the_terminal_prints_the_round_trip(capsys):
    assert main(["I am late.", "--steps", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("step") == 4 and "[MASK]" in printed and "cosine" in printed


def test_the_terminal_takes_a_policy(capsys):
    assert main(["I am late.", "--steps", "2", "--policy", "left_to_right"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step  1")]
    words = line.removeprefix("step  1").split()
    masked = [word == "[MASK]" for word in words]
    assert masked == sorted(masked) and any(masked) and not all(masked)


def test_the_terminal_searches_closer_and_counts_its_queries(capsys):
    assert main(["Nobody knew why the baker closed his shop.", "--steps", "2", "--search", "60"]) == 0
    *found, end = [line for line in capsys.readouterr().out.splitlines() if line.startswith("search  ")]
    told = [re.fullmatch(r"search  (.+)  \(cosine ([\d.]+), (\d+) encoder queries\)", line) for line in found]
    cosines, queries = ([float(one[group]) for one in told] for group in (2, 3))
    assert found and cosines == sorted(cosines) and queries == sorted(queries) and queries[-1] <= 60
    assert re.fullmatch(r"search  ended after \d+ of 60 encoder queries", end)


@pytest.mark.parametrize(
    "arguments",
    [[" "], ["hello there", "--steps", "0"], ["hello", "--search", "0"], ["hello", "--checkpoint", "absent"]],
)
def test_the_terminal_says_what_is_wrong_in_one_line(arguments, capsys):
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1


def test_controls_stand_beside_the_inversion(inverter):
    table = reconstruct(inverter, SENTENCES, num_steps=4, generator=torch.Generator().manual_seed(0))
    assert list(table.columns) == ["text", INVERTED, *CONTROLS]
    assert not (table["nearest sentence"] == table["text"]).any(), "the text itself is not known to the attacker"
    scores = score_attackers(table, inverter.encoder)
    f1 = scores[scores["metric"] == "token_f1"].set_index("attacker")["value"]
    assert f1[INVERTED] > f1[list(CONTROLS)].max()
    assert markdown_table(scores).count("\n") == 1 + scores["metric"].nunique()


def test_with_a_pool_the_nearest_of_it_is_taken(inverter):
    pool = ["A car.", "Water helps plants to grow."]
    table = reconstruct(inverter, SENTENCES[1:3], num_steps=1, pool=pool)
    assert table["nearest sentence"].tolist() == [pool[1], pool[0]]


def test_a_column_of_a_data_frame_is_inverted_as_it_is(inverter, sentences):
    vectors = inverter.encoder.encode(sentences[:3])
    expected = inverter.invert(vectors, num_steps=1).texts
    column = pd.DataFrame({"embedding": vectors.tolist()})["embedding"]
    for cells in (column, pd.Series(list(vectors)), column.map(str)):
        assert inverter.invert(cells, num_steps=1).texts == expected
    column[1] = None
    with pytest.raises(InputError, match="vector 1 is absent; remove the row"):
        inverter.invert(column)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("qwen3", ["~/checkpoints/qwen3_best.pt", "hf download Qwen/Qwen3-Embedding-0.6B"]),
        ("embeddinggemma", ["~/checkpoints/embeddinggemma_best.pt", "hf download unsloth/embeddinggemma-300m"]),
        ("jina-v3", ["~/checkpoints/jinav3_best.pt", "hf download jinaai/jina-embeddings-v3", "xlm-roberta-base"]),
        ("jina3", ["no inverter of 'jina3' is published; did you mean 'jina-v3'?", "invlib.Alignment"]),
    ],
)
def test_a_named_encoder_says_what_is_missing_and_where_to_put_it(name, needed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--encoder", name]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and [part for part in needed if part not in message] == []


def test_a_named_encoder_that_is_there_is_opened(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "somewhere")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "qwen3_best.pt").write_text("no weights")
    assert main(["--encoder", "qwen3"]) == 2
    assert "give a sentence" in capsys.readouterr().err
    assert main(["I am late.", "--encoder", "qwen3"]) == 2
    assert "qwen3_best.pt cannot be read as a checkpoint" in capsys.readouterr().err
