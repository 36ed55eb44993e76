"""Utility: hand-computed cases, and the same numbers by a slow straight computation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from invlib import perturb
from invlib.metrics import words
from invlib.studies import utility
from invlib.tokenizer import Tokenizer

DATA = Path(__file__).resolve().parents[2] / "data"


def vectors(n: int = 60, d: int = 16, seed: int = 0) -> np.ndarray:
    return perturb.unit(np.random.default_rng(seed).standard_normal((n, d)))


def circle(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane at these angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


CLEAN = vectors()
NOISY = CLEAN + 0.15 * np.random.default_rng(1).standard_normal(CLEAN.shape)


# --- nearest neighbours


def test_recall_by_hand():
    clean = circle(0, 10, 30, 90)
    moved = circle(0, 10, 95, 90)  # the third went over to the fourth
    # Nearest two before: {10, 30}, {0, 30}, {10, 0}, {30, 10}; after: {10, 90}, {0, 90}, {90, 10}, {95, 10}.
    np.testing.assert_allclose(utility.neighbour_recall(clean, moved, k=2), [0.5, 0.5, 0.5, 1.0])


def test_recall_is_what_a_slow_count_finds():
    found = utility.neighbour_recall(CLEAN, NOISY, k=10)

    def nearest(table: np.ndarray, row: int) -> set[int]:
        cosine = {j: table[row] @ v / np.linalg.norm(table[row]) / np.linalg.norm(v) for j, v in enumerate(table)}
        del cosine[row]
        return set(sorted(cosine, key=cosine.get)[-10:])

    slow = [len(nearest(CLEAN, row) & nearest(NOISY, row)) / 10 for row in range(len(CLEAN))]
    np.testing.assert_allclose(found, slow)
    assert 0.3 < found.mean() < 0.95


def test_recall_of_unrelated_vectors_is_chance():
    found = utility.neighbour_recall(vectors(400), vectors(400, seed=5), k=10)
    assert found.mean() == pytest.approx(10 / 399, abs=0.01)


@pytest.mark.parametrize("measure", [utility.neighbour_recall, utility.rank_correlation])
def test_what_keeps_the_angles_costs_nothing(measure):
    rotated = perturb.SecretRotation.draw(16, torch.Generator().manual_seed(0)).store(CLEAN)
    for same in (CLEAN, 7 * CLEAN, rotated):
        np.testing.assert_allclose(measure(CLEAN, same), 1, atol=1e-3)


# --- rank correlation


def test_rank_correlation_by_hand():
    clean, moved = circle(0, 10, 30, 60), circle(0, 30, 10, 60)  # from the first, two neighbours change places
    # Ranks 1 2 3 against 2 1 3: ρ = 1 - 6 Σ d² / (n (n² - 1)) = 1 - 6 · 2 / 24.
    assert utility.rank_correlation(clean, moved)[0] == pytest.approx(0.5)


def test_rank_correlation_is_scipys_of_each_row_also_with_ties():
    for other in (NOISY, np.sign(NOISY)):
        found = utility.rank_correlation(CLEAN, other)
        clean, after = perturb.unit(CLEAN), perturb.unit(other)
        for row in (0, 17, 59):
            rest = [j for j in range(60) if j != row]
            expected = scipy.stats.spearmanr((clean @ clean.T)[row, rest], (after @ after.T)[row, rest]).statistic
            assert found[row] == pytest.approx(expected, abs=1e-3)


def test_the_rank_correlation_of_unrelated_vectors_is_0():
    assert utility.rank_correlation(vectors(300), vectors(300, seed=9)).mean() == pytest.approx(0, abs=0.02)


# --- nDCG


def test_ndcg_by_hand():
    queries, sentences = circle(0), circle(50, 5, 20, 80)
    # Order found: 5°, 20°, 50°, 80°, with grades 0, 2, 1, 0; best would be 2, 1.
    grades = np.array([[1, 0, 2, 0]])
    gained, ideal = 2 / math.log2(3) + 1 / math.log2(4), 2 / math.log2(2) + 1 / math.log2(3)
    assert utility.ndcg(queries, sentences, grades)[0] == pytest.approx(gained / ideal)
    assert utility.ndcg(queries, sentences, grades, k=2)[0] == pytest.approx(2 / math.log2(3) / ideal)
    assert utility.ndcg(queries, sentences, grades, k=1)[0] == 0


def test_ndcg_is_1_only_in_the_best_order():
    queries, sentences = circle(0, 0), circle(1, 2, 3)
    assert utility.ndcg(queries, sentences, np.array([[2, 1, 0], [1, 2, 0]])).tolist() == pytest.approx(
        [1, (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))]
    )


def test_ndcg_is_what_a_slow_loop_finds():
    random = np.random.default_rng(0)
    queries, grades = vectors(12, seed=3), random.integers(0, 3, size=(12, 60))
    found = utility.ndcg(queries, NOISY, grades, k=10)
    for q in range(12):
        order = sorted(range(60), key=lambda j, q=q: -(queries[q] @ NOISY[j]) / np.linalg.norm(NOISY[j]))
        dcg = sum(grades[q][j] / math.log2(place + 2) for place, j in enumerate(order[:10]))
        best = sum(g / math.log2(place + 2) for place, g in enumerate(sorted(grades[q], reverse=True)[:10]))
        assert found[q] == pytest.approx(dcg / best)


# --- the cost of a perturbation


def test_the_cost_is_a_row_for_each_measure_with_its_interval():
    queries, grades = vectors(12, seed=3), np.random.default_rng(0).integers(0, 3, size=(12, 60))
    noise = perturb.GaussianNoise(0.1)
    frame = utility.cost(noise, CLEAN, queries, grades, torch.Generator().manual_seed(0))
    assert frame["metric"].tolist() == ["recall@10", "rank_correlation", "ndcg@10"]
    assert frame["n"].tolist() == [60, 60, 12]
    assert (frame["low"] < frame["value"]).all() and (frame["value"] < frame["high"]).all()
    generator = torch.Generator().manual_seed(0)
    found, asked = noise.store(CLEAN, generator), noise.store(queries, generator)
    expected = (utility.neighbour_recall(CLEAN, found).mean(), utility.rank_correlation(CLEAN, found).mean())
    assert frame["value"].tolist()[:2] == pytest.approx(expected)
    assert frame["value"].tolist()[2] == pytest.approx(utility.ndcg(asked, found, grades).mean())


def test_a_secret_rotation_costs_nothing_where_queries_go_through_it_too():
    queries, grades = vectors(12, seed=3), np.random.default_rng(0).integers(0, 3, size=(12, 60))
    rotation = perturb.SecretRotation.draw(16, torch.Generator().manual_seed(0))
    frame = utility.cost(rotation, CLEAN, queries, grades)
    assert frame["value"].tolist() == pytest.approx([1, 1, utility.ndcg(queries, CLEAN, grades).mean()], abs=1e-3)


def test_more_noise_costs_more():
    queries, grades = vectors(12, seed=3), np.random.default_rng(0).integers(0, 3, size=(12, 60))
    recalls = [
        utility.cost(perturb.GaussianNoise(s), CLEAN, queries, grades, torch.Generator().manual_seed(0))["value"][0]
        for s in (0.0, 0.05, 0.2, 1.0)
    ]
    assert recalls[0] == 1 and recalls == sorted(recalls, reverse=True) and recalls[-1] < 0.4


# --- the retrieval set that the project brings


@pytest.fixture(scope="module")
def retrieval() -> utility.Retrieval:
    return utility.read_retrieval(DATA / "retrieval")


def test_every_query_has_judged_sentences(retrieval):
    assert len(retrieval.queries) >= 60 and len(retrieval.sentences) >= 250
    assert retrieval.relevance.shape == (len(retrieval.queries), len(retrieval.sentences))
    assert set(np.unique(retrieval.relevance)) == {0, 1, 2}
    assert ((retrieval.relevance > 0).sum(axis=1) >= 3).all()
    assert (retrieval.relevance == 2).any(axis=1).all()


def test_no_sentence_stands_twice_and_all_fit_the_model(retrieval):
    texts = retrieval.queries + retrieval.sentences
    assert len({" ".join(words(text)) for text in texts}) == len(texts)
    lengths = [len(ids) for ids in Tokenizer.load(DATA / "checkpoints" / "minilm").encode(texts)]
    assert min(lengths) >= 4 and max(lengths) <= 32


def test_the_clean_encoder_finds_most_of_what_was_judged_and_not_all(retrieval, minilm):
    found = utility.ndcg(minilm.encode(retrieval.queries), minilm.encode(retrieval.sentences), retrieval.relevance)
    # A set that is solved, or not solvable, would measure no cost.
    assert found.mean() == pytest.approx(0.69, abs=0.005)
    assert "nDCG@10 = 0.69" in (DATA / "README.md").read_text(encoding="utf-8")


def test_every_id_is_of_one_sentence():
    lines = {
        name: [json.loads(line) for line in (DATA / "retrieval" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("sentences", "queries")
    }
    ids = [sentence["id"] for sentence in lines["sentences"]]
    assert len(set(ids)) == len(ids) and {id for query in lines["queries"] for id in query["relevant"]} <= set(ids)
