"""Utility: what a perturbation costs the people who search. All similarities are cosines.

`clean` and `vectors` belong together row by row; their dimensions may differ. Give the vectors in the form in which
the store compares them (or mapped back, which for codes is the same).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
import torch
from sklearn.metrics import ndcg_score

from invlib.metrics import mean_interval
from invlib.perturb import Perturbation, unit


@dataclass(frozen=True)
class Retrieval:
    """Queries, the sentences to be found, and how relevant each is: integers [queries, sentences], 0 for not at all."""

    queries: list[str]
    sentences: list[str]
    relevance: np.ndarray


def read_retrieval(folder: str | Path) -> Retrieval:
    """The set in a folder: sentences.jsonl {"id", "text"} and queries.jsonl {"query", "relevant": {id: grade}}."""
    paths = (Path(folder) / f"{name}.jsonl" for name in ("sentences", "queries"))
    sentences, queries = (pd.read_json(path, lines=True, dtype=False) for path in paths)
    grades = pd.DataFrame(queries["relevant"].tolist()).reindex(columns=sentences["id"]).fillna(0).astype(int)
    return Retrieval(queries["query"].tolist(), sentences["text"].tolist(), grades.to_numpy())


def neighbour_recall(clean: np.ndarray, vectors: np.ndarray, *, k: int = 10) -> np.ndarray:
    """recall@k against the clean vectors, [n]: share of a row's k nearest others that are still among its k nearest.

    Equal similarities are taken in row order.
    """
    before, after = (np.argsort(-_similarities(v), axis=1, kind="stable")[:, :k] for v in (clean, vectors))
    return np.array([np.isin(*pair).mean() for pair in zip(after, before, strict=True)])


def store_recall(clean: np.ndarray, stored: np.ndarray, *, k: int = 10) -> np.ndarray:
    """recall@k of clean queries in a perturbed store, [n]; no sentence finds itself."""
    before, after = unit(clean) @ unit(clean).T, unit(clean) @ unit(stored).T
    for similarities in (before, after):
        np.fill_diagonal(similarities, -np.inf)
    tops = (np.argsort(-found, axis=1, kind="stable")[:, :k] for found in (before, after))
    return np.array([np.isin(*pair).mean() for pair in zip(*tops, strict=True)])


def rank_correlation(clean: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Spearman's ρ, [n]: of a row's clean similarities to all others with its perturbed ones; ties share their rank.

    NaN for a row equally similar to all others, which has no ranking.
    """
    before, after = _similarities(clean), _similarities(vectors)
    return np.array([scipy.stats.spearmanr(*pair).statistic for pair in zip(before, after, strict=True)])


def ndcg(queries: np.ndarray, sentences: np.ndarray, relevance: np.ndarray, *, k: int = 10) -> np.ndarray:
    """nDCG@k of each query, [q]: Σ grade / log2(place + 1) over the k most similar sentences, divided by the best
    possible sum (Järvelin and Kekäläinen 2002, with linear gain as in trec_eval).

    queries: [q, d]; sentences: [n, d]; relevance: grades ≥ 0, [q, n]. Equal similarities are taken in row order.
    """
    ranks = scipy.stats.rankdata(-(unit(queries) @ unit(sentences).T), "ordinal", axis=1)
    rows = zip(relevance[:, None], -ranks[:, None], strict=True)
    return np.array([ndcg_score(grades, nearness, k=k) for grades, nearness in rows])


def cost(
    perturbation: Perturbation,
    sentences: np.ndarray,
    queries: np.ndarray,
    relevance: np.ndarray,
    generator: torch.Generator | None = None,
) -> pd.DataFrame:
    """What a perturbation of sentences [n, d] and queries [q, d] leaves of the search: metric, value, low, high, n.

    Both sides go through it, as in Morris et al. 2023: for a rotation or projection they must, for noise it is the
    harsher reading. They are compared mapped back, which for codes is how a store decodes them.
    Intervals: bootstrap percentiles over the sentences (recall, rank correlation) or the queries (nDCG).
    """
    found = perturbation.recover(perturbation.store(sentences, generator))
    asked = perturbation.recover(perturbation.store(queries, generator))
    values = {
        "recall@10": neighbour_recall(sentences, found),
        "rank_correlation": rank_correlation(sentences, found),
        "ndcg@10": ndcg(asked, found, relevance),
    }
    rows = [(metric, *mean_interval(each), len(each)) for metric, each in values.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "n"])


def _similarities(vectors: np.ndarray) -> np.ndarray:
    """Each row's cosines to all other rows, [n, n - 1]: a vector that finds itself says nothing."""
    cosines = unit(vectors) @ unit(vectors).T
    return cosines[~np.eye(len(cosines), dtype=bool)].reshape(len(cosines), -1)
