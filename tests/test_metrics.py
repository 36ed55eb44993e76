"""Metrics: hand-computed cases, closed formulas, and intervals that keep what they promise."""

import math

import numpy as np
import pytest

from invlib import metrics
from invlib.errors import InputError

REFERENCES = [
    "the old man walked to the sea",
    "a red boat lay on the shore",
    "nobody came to the market today",
    "she closed the door behind her",
    "rain fell all night on the roof",
    "they sold fish and fresh bread",
]
# Right, one word wrong, cut short, empty, all wrong, two words swapped.
TEXTS = [
    "the old man walked to the sea",
    "a red boat lay on the beach",
    "nobody came to the market",
    "",
    "completely different words here",
    "they sold bread and fresh fish",
]
COLUMNS = ["metric", "value", "low", "high", "n"]
Z = 1.959963984540054  # the 97.5 % point of the normal distribution


def row(frame, metric: str):
    return frame.set_index("metric").loc[metric]


# --- one text


@pytest.mark.parametrize(
    ("reference", "text", "f1"),
    [
        ("a b c", "a b c", 1.0),
        ("a b c", "c a b", 1.0),  # order does not count
        ("the cat the dog", "the the the cat", 2 * 3 / 8),  # "the" is shared twice, not three times
        ("a a a a", "a", 2 * 1 / 5),
        ("a b", "a b c d", 2 * 2 / 6),
        ("a b", "c d", 0.0),
        ("a b", "", 0.0),
    ],
)
def test_token_f1_counts_words_as_often_as_they_stand(reference, text, f1):
    assert metrics.token_f1(reference, text) == pytest.approx(f1)
    assert metrics.token_f1(text, reference) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("reference", "text", "score"),
    [
        ("a b c", "a b c", 1.0),
        ("a b c d", "a c d b", 2 * 3 / 8),  # a c d, with a gap
        ("a b c", "c b a", 2 * 1 / 6),  # order counts
        ("a b", "a b c d", 2 * 2 / 6),
        ("police killed the gunman", "police kill the gunman", 3 / 4),  # the example of Lin 2004
        ("police killed the gunman", "the gunman kill police", 2 / 4),
        ("a b", "c d", 0.0),
        ("a b", "", 0.0),
    ],
)
def test_rouge_l_counts_the_longest_run_in_the_same_order(reference, text, score):
    assert metrics.rouge_l(reference, text) == pytest.approx(score)


def test_the_rank_is_the_place_of_the_true_text_among_the_pool():
    pool = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    found = np.array([[1.0, 0.1], [1.0, 0.1], [0.0, 0.0], [1.0, 0.9]])
    assert metrics.ranks(found, pool, range(4)).tolist() == [1, 4, 4, 2], (
        "an equal one and a zero vector count against it"
    )
    assert metrics.ranks(found[:2], pool, [2, 0]).tolist() == [3, 1]
    with pytest.raises(InputError, match="row 1 is all zeros"):
        metrics.ranks(found, pool * [[1], [0], [1], [1]], range(4))


@pytest.mark.parametrize(
    ("reference", "text", "share"),
    [("a b c d", "a x c", 2 / 4), ("a b c", "x a b c", 0.0), ("a b", "a b c d", 1.0), ("a b", "", 0.0)],
)
def test_positional_accuracy_is_the_share_of_words_in_their_place(reference, text, share):
    assert metrics.positional_accuracy(reference, text) == share


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("It's a well-known CAF\u00c9.", "it ' s a well - known cafe ."),
        ("Na\u00efve, (really)!", "naive , ( really ) !"),
        ("One  two", " one two "),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_case_accents_and_blanks_around_punctuation_do_not_count(reference, text):
    assert metrics.exact_match(reference, text) == 1
    assert metrics.token_f1(reference, text) == metrics.positional_accuracy(reference, text) == 1
    assert metrics.edit_similarity(reference, text) == 1


@pytest.mark.parametrize("text", ["a cat sat", "a cat sat . .", "cat a sat .", "a cats sat .", "acat sat ."])
def test_a_word_or_mark_more_or_less_or_elsewhere_is_no_exact_match(text):
    assert metrics.exact_match("a cat sat.", text) == 0


@pytest.mark.parametrize(
    ("reference", "text", "similarity"),
    [
        ("kitten", "sitting", 1 - 3 / 7),
        ("a cat", "a cat sat", 1 - 4 / 9),
        ("Kitten!", "kitten !", 1.0),
        ("abc", "xyz", 0.0),
        ("abc", "", 0.0),
    ],
)
def test_edit_similarity_is_one_less_the_share_of_edits(reference, text, similarity):
    assert metrics.edit_similarity(reference, text) == pytest.approx(similarity)


@pytest.mark.parametrize(("text", "near"), [("a b c", 1), ("a b", 1), ("a b c d", 1), ("a", 0), ("a b c d e", 0)])
def test_a_length_may_be_off_by_one_word(text, near):
    assert metrics.length_within_one("x y z", text) == near


def test_a_length_may_be_off_by_one_token_of_the_decoder(pruned):
    reference, texts = "the quiet lake", ["the quiet lake", "the quiet", "the", "the quiet old lake", "the zyzzyva"]
    counts = [len(ids) for ids in pruned.encode([reference, *texts])]
    found = metrics.per_text([reference] * 5, texts, tokenizer=pruned)["length_within_one_token"].tolist()
    assert found == [float(abs(count - counts[0]) <= 1) for count in counts[1:]]
    assert found[:4] == [1, 1, 0, 1] and counts[-1] > 4 and found[4] == 0, "in words the last would be near enough"


def test_a_tokenizer_adds_a_share_with_wilsons_interval(pruned):
    frame = metrics.score(REFERENCES, REFERENCES, tokenizer=pruned).set_index("metric").loc["length_within_one_token"]
    assert frame["value"] == 1 and frame["low"] < 1


def test_cosine_is_that_of_matching_rows():
    a = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    b = np.array([[6.0, 8.0], [0.0, 2.0], [-1.0, -1.0]])
    np.testing.assert_allclose(metrics.cosine(a, b), [1, 0, -1], atol=1e-12)


def test_a_zero_vector_is_an_error_that_names_its_row():
    with pytest.raises(InputError, match="row 1 is all zeros"):
        metrics.cosine(np.eye(2), np.array([[1.0, 0.0], [0.0, 0.0]]))


# --- many texts


def test_a_score_is_a_row_for_each_metric_with_its_interval(minilm):
    frame = metrics.score(REFERENCES, TEXTS, minilm)
    assert list(frame.columns) == COLUMNS
    assert frame["metric"].tolist() == [
        *("token_f1", "bleu", "rouge_l", "positional_accuracy", "exact_match", "edit_similarity"),
        *("length_within_one", "cosine"),
    ]
    assert (frame["n"] == len(REFERENCES)).all()
    assert (frame["low"] <= frame["value"]).all() and (frame["value"] <= frame["high"]).all()
    assert (frame["low"] >= 0).all()
    assert (frame["high"] <= np.where(frame["metric"] == "bleu", 100, 1)).all()
    assert (frame["low"] < frame["high"]).all()  # six unequal texts are never certain


def test_a_score_is_the_mean_over_the_texts():
    frame = metrics.score(REFERENCES, TEXTS)
    assert row(frame, "exact_match")["value"] == 1 / 6
    each = [1, 2 * 6 / 14, 2 * 5 / 11, 0, 0, 1]
    assert row(frame, "token_f1")["value"] == pytest.approx(sum(each) / 6)
    assert "cosine" not in frame["metric"].tolist()


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    first, same, other = (metrics.score(REFERENCES, TEXTS, seed=seed) for seed in (1, 1, 2))
    assert first.equals(same)
    assert first["value"].equals(other["value"]) and not first.equals(other)


def test_per_text_has_a_row_for_each_text():
    table = metrics.per_text(REFERENCES, TEXTS)
    assert len(table) == 6
    assert table["exact_match"].tolist() == [1, 0, 0, 0, 0, 0]
    assert list(table) == list(metrics.PER_TEXT)


def test_bleu_of_identical_texts_is_100():
    value, low, high = metrics.bleu_interval(REFERENCES, REFERENCES)
    assert (value, low, high) == (100, 100, 100)


def test_bleu_is_the_geometric_mean_of_the_precisions():
    # 7 words, the last one wrong: 6/7 words, 5/6 pairs, 4/5 triples, 3/4 quadruples; no penalty, same length.
    value, *_ = metrics.bleu_interval(REFERENCES[1:2], TEXTS[1:2])
    assert value == pytest.approx(100 * (6 / 7 * 5 / 6 * 4 / 5 * 3 / 4) ** 0.25, abs=0.005)


@pytest.mark.parametrize(
    ("reference", "text"),
    [("a red boat lay on the shore", "x y z"), ("a red boat lay on the shore", ""), ("hello", "hello")],
)
def test_texts_without_any_common_run_of_four_words_have_bleu_0(reference, text):
    assert metrics.bleu_interval([reference], [text]) == (0, 0, 0)


def test_many_sentences_that_end_in_a_full_stop_raise_no_false_alarm(caplog):
    texts = [f"this is sentence number {n}." for n in range(120)]
    metrics.bleu_interval(texts, texts)
    assert caplog.records == []


def test_an_empty_text_scores_0(minilm):
    texts = ["", "  "]
    frame = metrics.score(REFERENCES[:2], texts, minilm)
    assert (frame["value"] == 0).all()


def test_an_empty_text_has_cosine_0_and_costs_no_query(minilm):
    before = minilm.queries
    cosines = metrics.text_cosines(REFERENCES[:3], ["", REFERENCES[1], " "], minilm)
    assert cosines == pytest.approx([0, 1, 0], abs=1e-6)
    assert minilm.queries == before + 2


def test_text_cosines_are_those_of_the_encoders_vectors(minilm):
    references, texts = REFERENCES[:3], TEXTS[:3]
    expected = (minilm.encode(references) * minilm.encode(texts)).sum(axis=1)
    np.testing.assert_allclose(metrics.text_cosines(references, texts, minilm), expected, atol=1e-6)


def test_a_failing_encoder_gives_no_score():
    class Unreachable:
        def encode(self, texts):
            raise ConnectionError("the service is gone")

    with pytest.raises(ConnectionError, match="the service is gone"):
        metrics.score(REFERENCES, TEXTS, Unreachable())


# --- intervals


@pytest.mark.parametrize("n", [1, 10, 200])
def test_no_success_in_n_is_not_certainty(n):
    value, low, high = metrics.share_interval(np.zeros(n))
    assert (value, low) == (0, 0)
    assert high == pytest.approx(Z**2 / (n + Z**2))  # Wilson's bound


def test_the_interval_of_a_share_is_wilsons():
    n, p = 40, 0.3
    value, low, high = metrics.share_interval([1.0] * 12 + [0.0] * 28)
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    assert (value, low, high) == pytest.approx((p, middle - half, middle + half))


def test_the_interval_of_a_mean_holds_the_truth_95_times_in_100():
    random = np.random.default_rng(0)
    truth, trials, held = 2 / 7, 300, 0
    for seed in range(trials):
        _, low, high = metrics.mean_interval(random.beta(2, 5, size=50), seed=seed)
        held += low <= truth <= high
    assert abs(held / trials - 0.95) < 0.04  # three standard errors of 300 trials are 0.038


def test_the_interval_of_a_mean_is_as_wide_as_the_central_limit_theorem_says():
    values = np.random.default_rng(0).uniform(size=1000)
    value, low, high = metrics.mean_interval(values)
    assert value == values.mean()
    assert high - low == pytest.approx(2 * Z * values.std() / math.sqrt(1000), rel=0.1)


# --- what cannot be scored


@pytest.mark.parametrize("scored", [metrics.score, metrics.per_text])
def test_unequal_numbers_are_an_error(scored):
    with pytest.raises(InputError, match="2 references but 1 texts"):
        scored(["a", "b"], ["a"])


@pytest.mark.parametrize("scored", [metrics.score, metrics.per_text])
def test_nothing_to_score_is_an_error(scored):
    with pytest.raises(InputError, match="nothing to score"):
        scored([], [])


@pytest.mark.parametrize("empty", ["", "  ", "\u0301"])
def test_an_empty_reference_is_an_error_that_names_its_row(empty):
    with pytest.raises(InputError, match="reference 1 is empty"):
        metrics.score(["a", empty], ["a", "b"])


def test_a_string_instead_of_a_list_is_an_error():
    for arguments in (("a cat", ["a cat"]), (["a cat"], "a cat")):
        with pytest.raises(InputError, match="expected lists of texts, got .a cat"):
            metrics.score(*arguments)
