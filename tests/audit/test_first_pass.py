"""The first pass: words and texts that are looked for, in stores of every precision, and what its figures are worth."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers.util.quantization import quantize_embeddings

from invlib import perturb
from invlib.audit import Audit, open_source
from invlib.audit.__main__ import main
from invlib.audit.firstpass import first_pass
from invlib.audit.membership import ABSENT, ALPHA, INSIDE, near_duplicates
from invlib.errors import InputError

PAIRS = pd.read_json("data/paraphrases/pairs.jsonl", lines=True)
TEXTS, NEAR, OTHER = PAIRS["text"].tolist(), PAIRS["near"].tolist(), PAIRS["paraphrase"].tolist()


@pytest.fixture(scope="module")
def filling(minilm):
    """What else a store holds: texts that nobody asks for."""
    return minilm.encode(pd.read_json("data/retrieval/sentences.jsonl", lines=True)["text"][:60].tolist())


@pytest.fixture(scope="module")
def vectors(minilm, filling):
    return np.concatenate([minilm.encode(TEXTS), filling])


def asked(inverter, stored, folder, **what):
    np.save(folder / "v.npy", stored)
    return first_pass(Audit(open_source(folder / "v.npy", dim=384), inverter, folder / "out", num_steps=1), **what)


STORES = {
    "clean": (lambda v: v, 0.95, 0.06),
    "half precision, scaled": (lambda v: (3 * v).astype(np.float16), 0.95, 0.06),
    "cut": (lambda v: v[:, :192], 0.9, 0.12),
    "int8": (lambda v: perturb.AbsmaxQuantisation(8).store(v), 0.9, 0.12),
    "int8 by column": (lambda v: quantize_embeddings(v, "int8"), 0.0, 0.3),
    "bits": (lambda v: quantize_embeddings(v, "ubinary"), 0.0, 0.3),
    "noise": (lambda v: perturb.GaussianNoise(0.01).store(v, torch.Generator().manual_seed(0)), 0.0, 0.3),
}


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_texts_that_are_inside_are_found_and_hardly_any_others(kind, inverter, vectors, tmp_path):
    change, found, wrong = STORES[kind]
    table = asked(inverter, change(vectors), tmp_path, contains=[*TEXTS, *NEAR, *OTHER])["contains"]
    verdicts = np.split(table["verdict"].to_numpy(), [len(TEXTS), 2 * len(TEXTS)])
    said = [(own == INSIDE).mean() for own in verdicts]
    assert said[0] >= found and said[1] <= wrong and said[2] <= 0.03, said
    assert (verdicts[0] != ABSENT).mean() >= 0.95, "a text that is inside is at least near"
    assert (table["id"][: len(TEXTS)] == [str(row) for row in range(len(TEXTS))]).mean() >= 0.9
    told = table["found"][0]
    assert np.isnan(told) if kind == "int8 by column" else abs(said[0] - told) <= 0.25, "how many are found is told"


def test_what_is_certainly_not_inside_is_hardly_ever_called_near(inverter, filling, tmp_path):
    table = asked(inverter, filling, tmp_path, contains=[*TEXTS, *OTHER])["contains"]
    assert (table["verdict"] != ABSENT).mean() <= 3 * ALPHA and (table["verdict"] != INSIDE).all()
    assert table["other_low"].le(table["other"]).all() and table["other"].le(table["other_high"]).all()
    assert pd.read_csv(tmp_path / "out" / "contains.csv").shape == table.shape


def test_near_duplicates_differ_by_little_and_by_something():
    made = near_duplicates("We met 3 times in May.", "It is a dog.")
    assert "We met 4 times in May." in made and "We met 3 times in May" in made and "We met times 3 in May." in made
    assert all(one.lower() != "we met 3 times in may." for one in made) and len(set(made)) == len(made) == 5
    assert near_duplicates("Stop", "Go") and "" not in near_duplicates("Stop", "Go")


def test_watch_words_are_found_where_they_are(inverter, vectors, tmp_path):
    words = ["invoices", "marathon", "volcano", "swans", "the", "submarine", "Oakwell", "blood sample", "xylography"]
    table = asked(inverter, vectors, tmp_path, watch=words)["watch"].set_index("word")
    for word in ("marathon", "volcano", "swans"):
        assert table["surest"][word] > 0.1, word
        assert word in TEXTS[int(table["id"][word])]
    assert table["share"]["the"] > 0.3 > 0.02 > table["share"]["submarine"] and table["surest"]["submarine"] < 0.1
    known = table.dropna(subset="share")
    assert known["share_low"].le(known["share"]).all() and known["share"].le(known["share_high"]).all()
    assert known["share"].is_monotonic_decreasing
    with pytest.raises(InputError, match="knows none of the 1 watch-words"):
        asked(inverter, vectors, tmp_path, watch=["\u4e2d\u6587"])


def test_the_share_of_rows_with_a_word_is_near_what_is_told(inverter, minilm, tmp_path):
    texts = pd.read_json("data/sentences/sentences.jsonl", lines=True)["text"][::2].tolist()
    words = ["the", "a", "is", "you", "of", "was", "his", "what"]
    table = asked(inverter, minilm.encode(texts), tmp_path, watch=words)["watch"].set_index("word")
    true = pd.Series({word: np.mean([f" {word} " in f" {text.lower()} " for text in texts]) for word in words})
    # Texts of another kind than those that were held out: the interval holds for most words, the order for all.
    inside = (table["share_low"][words] <= true) & (true <= table["share_high"][words])
    assert inside.mean() >= 0.5, (table, true)
    assert table["share"][words].corr(true, method="spearman") >= 0.8


def test_the_command_asks_and_reports(inverter, vectors, tmp_path, capsys):
    np.save(tmp_path / "v.npy", vectors[:40])
    (tmp_path / "words.txt").write_text("volcano\nsubmarine\n")
    (tmp_path / "texts.txt").write_text(f"{TEXTS[18]}\nWrite to ana@example.com at once.\n")
    options = ["--watch", str(tmp_path / "words.txt"), "--contains", str(tmp_path / "texts.txt")]
    command = [str(tmp_path / "v.npy"), "--out", str(tmp_path / "out"), *options]
    assert main([*command, "--first-pass"]) == 0
    assert "contains.csv" in capsys.readouterr().out and not list((tmp_path / "out").glob("part-*"))
    assert main([*command, "--steps", "1"]) == 0
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["verdict"] for row in told["contains"]] == [INSIDE, ABSENT] and told["contains"][0]["id"] == "18"
    assert told["watch"][0]["word"] == "volcano" and told["rows"] == 40
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Which watch-words are inside?" in page and "false positives" in page and "submarine" in page


@pytest.mark.parametrize(
    ("stored", "option", "told"),
    [
        (np.ones((3, 768)), "--contains", "the vectors have 768 dimensions, this checkpoint inverts 384"),
        (np.ones((3, 256)), "--watch", "the vectors have 256 dimensions, this checkpoint inverts 384"),
        (np.ones((3, 384)), None, "nothing is asked: give --watch or --contains"),
    ],
)
def test_what_cannot_be_asked_is_one_line(stored, option, told, tmp_path, capsys):
    np.save(tmp_path / "v.npy", stored / 2.5)
    (tmp_path / "asked.txt").write_text("dog\n")
    asked = [option, str(tmp_path / "asked.txt")] if option else []
    assert main([str(tmp_path / "v.npy"), "--out", str(tmp_path / "out"), "--first-pass", *asked]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and told in said and said.count("\n") == 1
