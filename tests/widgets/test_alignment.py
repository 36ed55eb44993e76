"""Alignment and verdict: every mark is true of its word, and the one line says what the marks say."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from invlib import metrics
from invlib.widgets.lab import verdict
from invlib.widgets.lab.alignment import aligned
from tests.pages import ROOT

RANDOM = random.Random(0)
SENTENCES = [json.loads(line)["text"] for line in (ROOT / "data/sentences/sentences.jsonl").read_text().splitlines()]


def texts() -> tuple[str, str]:
    """Two of few words, so that most repeat; sometimes an empty one."""
    return tuple(" ".join(RANDOM.choices(["a", "b", "c", "d", "e"], k=RANDOM.randrange(9))) for _ in "12")


def common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by its definition."""
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, j in np.ndindex(len(a), len(b)):
        table[i + 1, j + 1] = table[i, j] + 1 if a[i] == b[j] else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


@pytest.mark.parametrize("expected, found", [texts() for _ in range(300)])
def test_every_mark_is_true(expected, found):
    pairs = aligned(expected, found)
    assert [p.expected for p in pairs if p.expected is not None] == metrics.words(expected)
    assert [p.found for p in pairs if p.found is not None] == metrics.words(found)
    hits = [p for p in pairs if p.expected_kind == "hit" or p.found_kind == "hit"]
    assert all(p.expected == p.found and p.expected_kind == p.found_kind == "hit" for p in hits)
    assert len(hits) == common(metrics.words(expected), metrics.words(found))
    marked = {kind: Counter(p.expected for p in pairs if p.expected_kind == kind) for kind in ("moved", "miss")}
    there = {kind: Counter(p.found for p in pairs if p.found_kind == kind) for kind in ("moved", "extra")}
    assert marked["moved"] == there["moved"], "each word that came back elsewhere has one word there"
    assert not marked["miss"] & there["extra"], "a lost word stands nowhere that is not taken"
    assert {(p.expected is None) == (p.expected_kind is None) for p in pairs} <= {True}


def test_each_side_carries_its_own_mark():
    pairs = aligned("The answer is 42.", "42 is blue.")
    told = {word: kind for p in pairs for word, kind in ((p.expected, p.expected_kind), (p.found, p.found_kind))}
    assert (told["the"], told["answer"], told["blue"], told["42"], told["is"]) == (
        *("miss", "miss", "extra", "moved", "hit"),
    )


@pytest.mark.parametrize(
    ("original", "text", "kind", "line"),
    [
        ("Meet me at nine.", "meet me at nine.", "exact", "Exact: every word came back"),
        ("Meet me at nine.", "me meet at nine.", "close", "4 of 4 words came back, order differs"),
        ("Meet me at nine.", "meet me nine now.", "close", "3 of 4 words came back"),
        ("Meet me at nine.", "meet me at nine", "close", "4 of 4 words came back, punctuation differs"),
        ("Meet me at nine.", "meet me at nine now.", "close", "4 of 4 words came back, and 1 that was not there"),
        ("Meet me at nine.", "", "far", "0 of 4 words came back"),
        ("?!", "no", "close", "0 of 0 words came back"),
    ],
)
def test_the_verdict_on_a_known_text_counts_its_words(original, text, kind, line):
    told = verdict.of_text(aligned(original, text), original, text)
    assert told[0] == kind and told[1].startswith(line)


@pytest.mark.parametrize(
    ("cosine", "draft", "kind"), [(1.0, 0.2, "exact"), (0.4, 0.2, "far"), (0.8, 0.7, "close"), (None, None, "")]
)
def test_the_verdict_on_a_vector_goes_by_its_cosine(cosine, draft, kind):
    assert verdict.of_vector(cosine, draft)[0] == kind


def test_genuine_vectors_reach_what_no_foreign_vector_reaches(inverter):
    """The two sides of `verdict.GENUINE`: vectors of the encoder against permuted, negated and random ones."""
    vectors = inverter.encoder.encode(SENTENCES[::4])
    draws = np.random.default_rng(0)
    foreign = [-vectors[:20], vectors[:20, draws.permutation(384)], draws.normal(size=(20, 384)).astype(np.float32)]
    genuine, others = (inverter.invert(given, verify=True).cosines for given in (vectors, np.concatenate(foreign)))
    taken, known = (genuine >= verdict.GENUINE).mean(), (others < verdict.GENUINE).mean()
    print(f"taken for genuine: {taken:.1%} of the encoder's vectors; taken for foreign: {known:.1%} of the others")
    assert min(taken, known) >= 0.98


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Meet me at nine.", ""),
        ("word " * 40, "has 40 pieces and the model writes 32 at most"),
        ("Мама мыла раму.", "The model writes English"),
        ("Meet me at 🙂 nine.", "1 piece of this text is not in the model's vocabulary"),
        ("", ""),
    ],
)
def test_what_cannot_come_back_is_said_before(inverter, text, told):
    ids = inverter.tokenizer.encode([text])[0]
    advice = verdict.advice(text, ids, inverter.tokenizer, inverter.config.max_seq_len)
    assert told in advice if told else advice == ""
