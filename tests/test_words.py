"""The word map: a known truth is found, chances hold, text of any length is read, and wrong input is one line."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from invlib.door.vectors import directions
from invlib.errors import InputError
from invlib.metrics import token_f1, words
from invlib.training import words as training
from invlib.training.pairs import Corpus
from invlib.words import WordMap

WORDS = "river garden lamp dog cat child baker stone letter boat window winter music teacher paper market"
WORDS = WORDS.split()


@pytest.fixture(scope="module")
def bundled(minilm):
    return WordMap.load(minilm)


@pytest.fixture(scope="module")
def own(minilm):
    texts = pd.read_json("data/sentences/sentences.jsonl", lines=True)["text"][::4].tolist()
    return texts, minilm.encode(texts)


@pytest.fixture(scope="module")
def fitted(minilm):
    """A map of an encoder that adds up a direction for each word, and vectors of texts that the fit has not seen."""
    random = np.random.default_rng(0)
    sides = random.normal(size=(len(WORDS), 384)).astype(np.float32)
    chosen = [random.choice(len(WORDS), size=random.integers(2, 5), replace=False) for _ in range(6000)]
    texts = [" ".join(WORDS[k] for k in own) for own in chosen]
    vectors = directions(np.stack([sides[own].sum(axis=0) for own in chosen]) + random.normal(size=(6000, 384)) / 4)
    counts, half = training.bags(texts, minilm), slice(0, 5000)
    found = training.fit(vectors[half], counts[half], {"baker"}, minilm)
    return training.calibrated(found, vectors[5000:], counts[5000:], texts[5000:]), vectors[5000:], texts[5000:]


def test_words_that_add_up_are_found_and_chances_hold(fitted):
    known, vectors, texts = fitted
    there = np.array([[word in text.split() for word in WORDS] for text in texts])
    chances = known.chances(vectors, WORDS)
    assert ((chances > 0.5) == there).mean() > 0.97
    for low, high in ((0, 0.1), (0.9, 1)):
        within = (low <= chances) & (chances <= high)
        assert chances[within].mean() == pytest.approx(there[within].mean(), abs=0.03)
    assert np.mean([token_f1(text, " ".join(bag)) for text, bag in zip(texts, known.bags(vectors), strict=True)]) > 0.75
    assert (
        known.ranked(vectors[:1], lambda word: word != "dog", 3)[0]
        == [word for word in known.ranked(vectors[:1], bool, 4)[0] if word != "dog"][:3]
    )


def test_a_map_that_is_saved_is_the_same(fitted, minilm, tmp_path):
    known, vectors, _ = fitted
    known.save(tmp_path)
    again = WordMap.load(minilm, tmp_path)
    np.testing.assert_allclose(again.chances(vectors, WORDS), known.chances(vectors, WORDS), atol=0.05)
    assert not again.is_common("baker") and again.is_common("dog") and not again.is_common("dogs zyzzyva")
    assert again.about == known.about and again.general(["dog"]) == known.general(["dog"])


def test_chunks_are_of_one_source_and_of_every_length():
    texts = [f"{source}{k}" for source in "ab" for k in range(200)]
    made = training.chunks(Corpus(texts, [text[0] for text in texts]), 1000, np.random.default_rng(0))
    sizes = [len(chunk.split()) for chunk in made]
    assert min(sizes) >= 2 and max(sizes) <= training.LONGEST and max(sizes) > 15
    assert all(len({word[0] for word in chunk.split()}) == 1 for chunk in made)
    assert len(set(" ".join(made).split())) == sum(sizes), "no sentence stands in two chunks"


def test_names_are_the_words_with_a_capital_inside_of_sentences():
    texts = ["We met Anna there.", "The river is cold, said Anna.", "a river in May", "we may go"]
    assert "anna" in training.names(texts) and not {"river", "we", "the", "may"} & training.names(texts)


def test_the_bundled_map_names_words_of_texts_it_has_not_seen(bundled, own):
    texts, vectors = own
    f1 = np.mean([token_f1(text, " ".join(bag)) for text, bag in zip(texts, bundled.bags(vectors), strict=True)])
    swapped = np.mean(
        [token_f1(text, " ".join(bag)) for text, bag in zip(texts, bundled.bags(vectors[::-1]), strict=True)]
    )
    assert f1 > 0.35 > 0.25 > swapped


def test_the_bundled_maps_chances_hold_on_texts_it_has_not_seen(bundled, own, minilm):
    texts, vectors = own
    asked = [word for word in bundled.words[::10] if word.isalpha()]  # not chosen for standing in these texts
    there = np.array([[word in words(text) for word in asked] for text in texts])
    chances = bundled.chances(vectors, asked)
    for low, high in ((0.02, 0.1), (0.1, 0.5), (0.5, 1)):
        within = (low <= chances) & (chances < high)
        assert 0.5 < there[within].mean() / chances[within].mean() < 1.7


def test_a_chunk_of_many_sentences_is_read_too(bundled, own, minilm):
    chunk = " ".join(own[0][:12])
    (bag,) = bundled.bags(minilm.encode([chunk]))
    (one,) = bundled.bags(own[1][:1])
    assert len(bag) > 2 * len(one) and token_f1(chunk, " ".join(bag)) > 0.2


def test_what_does_not_fit_is_one_line(bundled, minilm, tmp_path):
    with pytest.raises(InputError, match=r"384-dimensional"):
        bundled.chances(np.zeros((2, 7)), ["dog"])
    assert np.isnan(bundled.chances(np.eye(384)[:2], ["", "dog"])[:, 0]).all()
    with pytest.raises(InputError, match="no word map at"):
        WordMap.load(minilm, tmp_path)
    (tmp_path / "words.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a word map"):
        WordMap.load(minilm, tmp_path)
    replace(bundled, about={**bundled.about, "encoder": "other"}).save(tmp_path)
    with pytest.raises(InputError, match="is the map of 'other', this encoder is 'minilm'"):
        WordMap.load(minilm, tmp_path)


def test_the_command_fits_a_map(minilm, tmp_path, monkeypatch, capsys):
    from invlib.training.__main__ import main

    random = np.random.default_rng(0)
    rows = [{"text": f"the {a} and the {b}", "source": "x"} for a, b in random.choice(WORDS, (240, 2))]
    for name, own in (("train", rows[:200]), ("valid", rows[200:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    monkeypatch.setattr(training, "STEPS", 20)
    command = ["words", "--text", str(tmp_path / "train.jsonl"), "--valid", str(tmp_path / "valid.jsonl")]
    assert main([*command, "--out", str(tmp_path / "map")]) == 0
    assert "pieces of 210 texts and chunks" in capsys.readouterr().out
    known = WordMap.load(minilm, tmp_path / "map")
    assert "the" in known.bags(minilm.encode(["the dog and the cat"]))[0] and known.about["texts"] == 210
    assert main([*command[:3], "--valid", "absent.jsonl", "--out", str(tmp_path)]) == 2


def test_the_weights_are_small(bundled):
    assert sum(own.nbytes for own in vars(bundled).values() if isinstance(own, torch.Tensor)) < 10e6
