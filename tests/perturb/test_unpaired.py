"""Unpaired: a key falls to whoever has vectors of similar text, and to nobody who has none."""

import numpy as np
import pytest

from invlib.errors import InputError
from invlib.perturb import SecretPermutation, SecretRotation, match_distributions, turn_back, unit
from tests.perturb.test_perturb import seeded

D = 16
PLAN = np.diag(np.geomspace(3, 0.5, D)) + 0.1 * np.random.default_rng(0).standard_normal((D, D))


def cloud(n: int, seed: int) -> np.ndarray:
    """n unit vectors of one skewed distribution, whose coordinates have to do with each other."""
    hidden = np.random.default_rng(seed).gamma(1.0, size=(n, D)) - 0.8
    return unit(hidden @ PLAN.T)


STORE, OWN = cloud(6000, 1), cloud(6000, 2)


def test_a_permutation_falls_without_a_pair():
    secret = SecretPermutation.draw(D, seeded(3))
    np.testing.assert_array_equal(match_distributions(secret.store(STORE), OWN), secret.key)


def test_a_rotation_falls_without_a_pair():
    secret = SecretRotation.draw(D, seeded(3))
    stored = secret.store(STORE)
    matrix = turn_back(stored, OWN, np.random.default_rng(0))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(D), atol=1e-5)
    assert (stored * STORE).sum(axis=1).mean() < 0.6
    assert (stored @ matrix * STORE).sum(axis=1).mean() > 0.97


def test_text_of_another_kind_gives_a_rotation_away_less():
    secret, random = SecretRotation.draw(D, seeded(3)), np.random.default_rng(0)
    other = unit(random.standard_normal((6000, D)))
    stored = secret.store(STORE)
    found = stored @ turn_back(stored, other, random)
    assert (found * STORE).sum(axis=1).mean() < 0.6


@pytest.mark.parametrize("attack", [match_distributions, lambda *own: turn_back(*own, np.random.default_rng(0))])
@pytest.mark.parametrize(
    ("stored", "own", "message"),
    [
        (STORE[:99], OWN, "stored vectors must be .* 100 rows or more"),
        (STORE, OWN[:99], "clean vectors must be .* 100 rows or more"),
        (STORE, OWN[:, 1:], "16 and 15 dimensions"),
        (np.where(np.arange(D) == 3, np.nan, STORE), OWN, "stored vectors have NaN"),
        ([[1.0]], OWN, "stored vectors must be"),
    ],
    ids=["few", "few of one's own", "dimensions", "NaN", "a list"],
)
def test_clouds_that_do_not_fit_are_refused(attack, stored, own, message, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for people: no type check comes first
    with pytest.raises(InputError, match=message):
        attack(stored, own)
