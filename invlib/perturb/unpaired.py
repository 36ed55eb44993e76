"""Unpaired: what becomes of a secret key where no pair is known, only clean vectors of other, similar text.

The encoder is public, so the attacker encodes text of the same kind. A key keeps every coordinate's distribution, or
the whole cloud's shape; the two clouds are laid on each other.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from invlib.errors import InputError, require
from invlib.perturb.secret import procrustes

QUANTILES = np.linspace(0.01, 0.99, 99)
FIRST_AXES, GROWTH = 20, 1.25  # principal axes in which neighbours are sought at first, and how many more every round
ROUNDS, SETTLED, PATIENCE = 80, 1e-3, 5  # at most; or as many as the neighbours' mean cosine has not grown by so much
QUERIES, POOL = 5_000, 40_000  # vectors of either side that a round looks at
FEWEST = 100  # vectors of either side
MUTUAL = 0.05  # of the rows: with fewer neighbours that choose each other, every neighbour counts


def match_distributions(stored: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The key of a permutation from vectors [n, d] in a store and clean ones [m, d] of other texts: column j of the
    stored is the clean column key[j], one for one (Kuhn 1955).

    First the columns with the most similar quantiles and sorted covariances, which no order changes; then, until
    nothing moves, those with the most similar covariances to all others, in the order that is believed so far.
    """
    _check(stored, clean)
    sides, spread = [stored.astype(np.float64), clean.astype(np.float64)], float(clean.std())
    covariances = [np.cov(own.T) / spread**2 for own in sides]
    profiles = [np.quantile(own, QUANTILES, axis=0).T / spread for own in sides]
    sorted_rows = [np.sort(own, axis=1) for own in covariances]
    scale = len(QUANTILES) / sorted_rows[1].size * sorted_rows[1].shape[0] / sorted_rows[1].var()
    key = linear_sum_assignment(cdist(*profiles, "sqeuclidean") + scale * cdist(*sorted_rows, "sqeuclidean"))[1]
    for _ in range(ROUNDS):
        before, ordered = key, np.empty_like(covariances[0])
        ordered[:, key] = covariances[0]
        key = linear_sum_assignment(cdist(ordered, covariances[1], "sqeuclidean"))[1]
        if (key == before).all():
            break
    return key


def turn_back(stored: np.ndarray, clean: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The orthogonal A [d, d] that lays stored vectors [n, d] over clean ones [m, d] of other texts; `stored @ A`.

    First the principal axes of both clouds, with the signs that give their third moments one sign. Then rounds: the
    nearest neighbours in the first axes, every time a few more of them, are taken for pairs (`procrustes`). After
    mini-vec2vec (arXiv 2510.02348), for two copies of one space.
    """
    _check(stored, clean)
    (mean, axes, skew), (own_mean, own_axes, own_skew) = _shape(stored), _shape(clean)
    matrix = (axes * np.where(skew * own_skew < 0, -1, 1)) @ own_axes.T
    best, waited, dims = -1.0, 0, float(min(FIRST_AXES, len(matrix)))
    for _ in range(ROUNDS):
        rows, pool = (random.permutation(len(own))[:most] for own, most in ((stored, QUERIES), (clean, POOL)))
        found, known = stored[rows] - mean, clean[pool] - own_mean
        seen = own_axes[:, : int(dims)]
        close, cosine, mutual = _neighbours(found @ (matrix @ seen), known @ seen)
        if dims == len(matrix):
            best, waited = (cosine, 0) if cosine > best + SETTLED else (best, waited + 1)
        if waited == PATIENCE:
            break
        dims = min(len(matrix), dims * GROWTH)
        used = mutual if mutual.mean() > MUTUAL else np.ones_like(mutual)
        weight = np.sqrt(used.sum())  # the means are a pair as well, the only certain one
        pairs = np.vstack([found[used], weight * mean]), np.vstack([known[close[used]], weight * own_mean])
        matrix = procrustes(*pairs)
    return matrix


def _shape(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean [d], principal axes [d, d] in columns, the longest first, and the third moment along each [d]."""
    mean = vectors.mean(axis=0)
    axes = np.linalg.eigh(np.cov(vectors.T.astype(np.float64)))[1][:, ::-1]
    return mean, axes, (((vectors - mean) @ axes) ** 3).mean(axis=0)


def _neighbours(rows: np.ndarray, pool: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """For every row [n, k] its nearest of the pool [m, k] by direction, their mean cosine, and who is chosen back."""
    rows, pool = (own.astype(np.float32) / np.linalg.norm(own, axis=1, keepdims=True) for own in (rows, pool))
    parts = np.array_split(rows, max(1, len(rows) // 1000))
    close = np.concatenate([(part @ pool.T).argmax(axis=1) for part in parts])
    back = np.concatenate([(part @ rows.T).argmax(axis=1) for part in np.array_split(pool[close], len(parts))])
    return close, float((rows * pool[close]).sum(axis=1).mean()), back == np.arange(len(rows))


def _check(stored: np.ndarray, clean: np.ndarray) -> None:
    for name, given in (("stored vectors", stored), ("clean vectors", clean)):
        fits = isinstance(given, np.ndarray) and given.ndim == 2 and given.dtype.kind == "f" and len(given) >= FEWEST
        require(fits, name, f"an array of numbers [n, d] with {FEWEST} rows or more", given)
        if not np.isfinite(given).all():
            raise InputError(f"the {name} have NaN or infinite entries; remove those rows")
    if stored.shape[1] != clean.shape[1]:
        told = f"{stored.shape[1]} and {clean.shape[1]}"
        raise InputError(
            f"stored and clean vectors have {told} dimensions; a key keeps them, so they are not one encoder's"
        )
