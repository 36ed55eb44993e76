"""Perturbations: every number against its formula, every promise against a count, every bad strength refused."""

import dataclasses
import doctest
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from sentence_transformers.util.quantization import quantize_embeddings

from invlib import perturb
from invlib.errors import InputError
from invlib.metrics import cosine
from invlib.perturb.noise import directions, gaussian_delta, purkayastha_angles

D = 384


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sphere(n: int, d: int = D, seed: int = 0) -> np.ndarray:
    """n unit vectors in all directions, float32 [n, d]."""
    return directions(n, d, np.random.default_rng(seed)).astype(np.float32)


CLEAN = sphere(300)
EVERY = [
    perturb.GaussianNoise(0.02),
    perturb.BoundedNoise(0.5),
    perturb.AnalyticGaussian(50.0),
    perturb.LaplaceNoise(2000.0),
    perturb.PurMech(2000.0),
    perturb.HalfPrecision(),
    perturb.AbsmaxQuantisation(8),
    perturb.AbsmaxQuantisation(4),
    perturb.ZeroPointQuantisation.fit(CLEAN),
    perturb.ZeroPointQuantisation.fit(CLEAN, 4),
    perturb.Binary(D),
    perturb.ProductQuantisation.fit(CLEAN, 96, codes=16, generator=seeded()),
    perturb.Truncation(128, D),
    perturb.PrincipalComponents.fit(CLEAN, 100),
    perturb.RandomProjection.draw(D, 128, seeded()),
    perturb.SecretRotation.draw(D, seeded()),
    perturb.SecretPermutation.draw(D, seeded()),
    perturb.CoordinateDropout(0.3),
    perturb.Interpolation(0.3),
    perturb.Averaging(3),
]
every = pytest.mark.parametrize("perturbation", EVERY, ids=lambda p: f"{p.name} {p.strength:g}")


# --- what holds for all of them


@every
def test_what_comes_back_is_unit_float32_of_the_dimension_that_went_in(perturbation):
    seen = perturb.apply(perturbation, CLEAN, seeded())
    assert len(seen.stored) == len(CLEAN)
    assert seen.vectors.shape == CLEAN.shape and seen.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(seen.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(seen.cosines, (seen.vectors * CLEAN).sum(axis=1), atol=1e-6)


@every
def test_the_clean_vectors_stay_as_they_are(perturbation):
    clean = CLEAN.copy()
    perturb.apply(perturbation, clean, seeded())
    np.testing.assert_array_equal(clean, CLEAN)


@every
def test_the_same_seed_stores_the_same_and_only_the_random_need_one(perturbation):
    first, again, other = (perturbation.store(CLEAN, seeded(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) is not perturbation.random
    if perturbation.random:
        with pytest.raises(InputError, match="is random; pass generator=torch.Generator"):
            perturbation.store(CLEAN)
    else:
        np.testing.assert_array_equal(first, perturbation.store(CLEAN))


@every
def test_a_perturbation_is_a_frozen_value_with_a_name_and_a_strength(perturbation):
    assert perturbation.name and perturbation.measure and math.isfinite(perturbation.strength)
    with pytest.raises(dataclasses.FrozenInstanceError):
        perturbation.surprise = 1


@every
def test_vectors_that_are_not_clean_are_refused_with_their_row(perturbation):
    for row, value, said in ((2, np.nan, "row 2 has NaN"), (1, np.inf, "row 1 has NaN or infinite"), (3, 0, "row 3")):
        broken = CLEAN.copy()
        broken[row] = value
        with pytest.raises(InputError, match=said):
            perturbation.store(broken, seeded())


def test_vectors_of_another_length_than_1_are_refused():
    with pytest.raises(InputError, match=r"row 0 has length 2.*invlib\.perturb\.unit first"):
        perturb.GaussianNoise(0.1).store(2 * CLEAN, seeded())


@pytest.mark.parametrize("shape", [(D,), (0, D), (2, 2, D)])
def test_anything_but_a_table_of_numbers_is_refused(shape):
    with pytest.raises(InputError, match=r"expected numbers of shape \[n, d\]"):
        perturb.Unchanged().store(np.ones(shape))
    with pytest.raises(InputError, match=r"expected numbers of shape \[n, d\]"):
        perturb.Unchanged().store(np.full((2, 2), "a"))


@pytest.mark.parametrize("perturbation", [perturb.GaussianNoise(1e39), perturb.LaplaceNoise(1e-300)])
def test_a_result_that_is_not_finite_is_refused(perturbation):
    with pytest.raises(InputError, match="makes row 0 infinite or NaN; choose a weaker one"):
        perturbation.store(CLEAN, seeded())


def test_a_stored_row_with_nan_or_without_direction_is_refused():
    noise = perturb.GaussianNoise(0.1)
    with pytest.raises(InputError, match="row 1 has NaN"):
        noise.recover(np.array([[1.0, 0.0], [np.nan, 0.0]]))
    with pytest.raises(InputError, match="row 1 is all zeros; it has no direction"):
        noise.recover(np.array([[1, 0], [0, 0]], np.int8))


@pytest.mark.parametrize(
    "perturbation",
    [p for p in EVERY if p.name in ("binary", "truncation", "product quantisation", "random projection")],
)
def test_rows_that_another_perturbation_stored_are_refused(perturbation):
    with pytest.raises(InputError, match="stored by another perturbation"):
        perturbation.recover(CLEAN[:, :7])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: perturb.GaussianNoise(-0.1), "sigma must be a finite number ≥ 0, got -0.1"),
        (lambda: perturb.GaussianNoise(math.nan), "sigma must be"),
        (lambda: perturb.GaussianNoise(math.inf), "sigma must be"),
        (lambda: perturb.BoundedNoise(-1.0), "radius must be"),
        (lambda: perturb.AnalyticGaussian(0.0), "epsilon must be a finite number > 0, got 0"),
        (lambda: perturb.AnalyticGaussian(1.0, delta=0.0), "delta must be a finite number > 0 and < 1"),
        (lambda: perturb.AnalyticGaussian(1.0, delta=1.0), "delta must be a finite number > 0 and < 1"),
        (lambda: perturb.AnalyticGaussian(1.0, sensitivity=0.0), "sensitivity must be"),
        (lambda: perturb.LaplaceNoise(0.0), "epsilon must be"),
        (lambda: perturb.PurMech(-2.0), "epsilon must be"),
        (lambda: perturb.AbsmaxQuantisation(0), "level_bits must be an integer from 2 to 8.*, got 0"),
        (lambda: perturb.AbsmaxQuantisation(9), "level_bits must be"),
        (lambda: perturb.ZeroPointQuantisation.fit(CLEAN, 0), "level_bits must be an integer from 1 to 8, got 0"),
        (lambda: perturb.ZeroPointQuantisation.fit(CLEAN[:1]), "calibration vectors must be at least 2, got 1"),
        (lambda: perturb.Binary(0), "embed_dim must be an integer from 1 to"),
        (lambda: perturb.ProductQuantisation.fit(CLEAN, 7), "parts must be a divisor of the dimension 384, got 7"),
        (lambda: perturb.ProductQuantisation.fit(CLEAN, 0), "parts must be an integer from 1"),
        (lambda: perturb.ProductQuantisation.fit(CLEAN, 8, codes=257), "codes must be an integer from 2 to 256"),
        (lambda: perturb.ProductQuantisation.fit(CLEAN[:9], 8, codes=16), "codes must be at most the 9 training"),
        (lambda: perturb.ProductQuantisation.fit(CLEAN, 8), "is random; pass generator"),
        (lambda: perturb.Truncation(0, D), "keep must be an integer from 1 to"),
        (lambda: perturb.Truncation(385, D), "keep must be an integer from 1 to 384, got 385"),
        (lambda: perturb.PrincipalComponents.fit(CLEAN, 0), "keep must be an integer from 1 to 299, got 0"),
        (lambda: perturb.PrincipalComponents.fit(CLEAN, 300), "keep must be an integer from 1 to 299"),
        (lambda: perturb.RandomProjection.draw(D, 0, seeded()), "keep must be an integer from 1 to 384, got 0"),
        (lambda: perturb.RandomProjection.draw(D, 9), "is random; pass generator"),
        (lambda: perturb.SecretRotation.draw(0, seeded()), "embed_dim must be an integer from 1 to"),
        (lambda: perturb.SecretRotation.draw(D), "is random; pass generator"),
        (lambda: perturb.SecretPermutation.draw(0, seeded()), "embed_dim must be an integer from 1 to"),
        (lambda: perturb.CoordinateDropout(1.0), "share must be a finite number ≥ 0 and < 1, got 1"),
        (lambda: perturb.CoordinateDropout(-0.1), "share must be"),
        (lambda: perturb.Interpolation(1.1), "weight must be a finite number ≥ 0 and ≤ 1, got 1.1"),
        (lambda: perturb.Averaging(0), "count must be an integer from 1 to 1048576, got 0"),
        (
            lambda: perturb.Averaging(301).store(CLEAN, seeded()),
            "301 different vectors are asked for, the batch has 300",
        ),
    ],
)
def test_a_strength_outside_its_domain_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_a_distortion_is_a_row_for_each_perturbation():
    frame = perturb.distortion(EVERY, CLEAN, seeded())
    assert frame["perturbation"].tolist() == [p.name for p in EVERY]
    assert frame["strength"].tolist() == [p.strength for p in EVERY]
    assert (frame["low"] <= frame["cosine"]).all() and (frame["cosine"] <= frame["high"]).all()
    assert (frame["n"] == 300).all()
    rows = frame.drop_duplicates("perturbation").set_index("perturbation")
    assert rows.loc["Gaussian noise", "noise"] == pytest.approx(0.02 * math.sqrt(D), rel=0.02)
    assert math.isnan(rows.loc["binary", "noise"]) and math.isnan(rows.loc["absmax quantisation", "noise"])
    assert rows["bits"].to_dict()["binary"] == D
    assert rows.loc["product quantisation", "bits"] == 96 * 4
    assert rows["caution"].astype(bool).to_dict() == {
        name: name in ("analytic Gaussian", "Laplace noise", "PurMech") for name in rows.index
    }


def test_the_example_in_the_documentation_is_true():
    assert doctest.testmod(perturb).failed == 0 < doctest.testmod(perturb).attempted


# --- noise


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.05, 0.1, 0.5])
def test_gaussian_noise_has_the_length_and_the_cosine_of_the_formula(sigma):
    noise, clean = perturb.GaussianNoise(sigma), sphere(4000)
    seen = perturb.apply(noise, clean, seeded())
    lengths = np.linalg.norm(seen.stored - clean, axis=1)
    assert math.sqrt((lengths**2).mean()) == pytest.approx(noise.noise_norm(D), rel=0.003, abs=1e-9)
    assert noise.noise_norm(D) == sigma * math.sqrt(D)
    assert seen.cosines.mean() == pytest.approx(1 / math.sqrt(1 + sigma**2 * D), abs=0.003)


@pytest.mark.parametrize("sigma", [0.03, 0.2])
def test_gaussian_noise_is_gaussian_and_independent_of_the_vector(sigma):
    z = (perturb.GaussianNoise(sigma).store(CLEAN, seeded()) - CLEAN) / sigma
    assert scipy.stats.kstest(z.ravel()[:20_000], "norm").pvalue > 0.01
    assert abs((z * CLEAN).sum(axis=1).mean()) < 4 / math.sqrt(len(CLEAN))


def test_bounded_noise_is_uniform_in_its_ball():
    for d, radius in ((3, 0.7), (D, 0.7)):
        clean = sphere(4000, d)
        lengths = np.linalg.norm(perturb.BoundedNoise(radius).store(clean, seeded()) - clean, axis=1)
        assert lengths.max() <= radius * (1 + 1e-5)
        assert lengths.mean() == pytest.approx(radius * d / (d + 1), rel=0.01)
        # The share inside half the volume is one half.
        assert np.mean(lengths < radius * 0.5 ** (1 / d)) == pytest.approx(0.5, abs=0.03)


def test_bounded_noise_keeps_the_cosine_above_its_bound():
    for radius in (0.3, 0.9):
        seen = perturb.apply(perturb.BoundedNoise(radius), sphere(2000, 3), seeded())
        assert math.sqrt(1 - radius**2) - 1e-6 <= seen.cosines.min() < math.sqrt(1 - radius**2) + 0.02


@pytest.mark.parametrize("delta", [1e-10, 1e-5, 0.1])
@pytest.mark.parametrize("epsilon", [1e-4, 0.1, 1.0, 8.0, 100.0, 5000.0])
def test_the_analytic_gaussian_satisfies_its_defining_equation_and_less_noise_does_not(epsilon, delta):
    sigma = perturb.AnalyticGaussian(epsilon, delta).sigma
    assert gaussian_delta(sigma, epsilon, 2.0) == pytest.approx(delta, rel=1e-5)
    assert gaussian_delta(0.999 * sigma, epsilon, 2.0) > delta


def test_delta_is_the_hockey_stick_divergence_of_two_shifted_gaussians():
    # The definition itself, integrated: δ = ∫ max(0, p(x) - e^ε q(x)) dx with means Δ apart.
    for sigma, epsilon, shift in ((1.0, 1.0, 1.0), (0.7, 3.0, 2.0), (2.0, 0.1, 2.0)):
        p, q = scipy.stats.norm(shift, sigma), scipy.stats.norm(0, sigma)
        border = shift / 2 + epsilon * sigma**2 / shift  # where the two are equal
        delta, _ = scipy.integrate.quad(lambda x, p=p, q=q, e=epsilon: p.pdf(x) - math.exp(e) * q.pdf(x), border, 40)
        assert gaussian_delta(sigma, epsilon, shift) == pytest.approx(delta, rel=1e-6)


def test_the_analytic_gaussian_needs_less_noise_than_the_classical_one():
    for epsilon in (0.1, 0.5, 1.0):
        classical = 2 * math.sqrt(2 * math.log(1.25 / 1e-5)) / epsilon
        assert 0.5 * classical < perturb.AnalyticGaussian(epsilon).sigma < classical


def test_the_analytic_gaussian_adds_the_noise_it_computed():
    mechanism = perturb.AnalyticGaussian(30.0)
    noise = mechanism.store(CLEAN, seeded()) - CLEAN
    assert noise.std() == pytest.approx(mechanism.sigma, rel=0.01)


def test_laplace_noise_has_gamma_lengths_and_even_directions():
    for d, epsilon in ((2, 1.0), (D, 500.0)):
        clean = sphere(4000, d)
        noise = perturb.LaplaceNoise(epsilon).store(clean, seeded()).astype(float) - clean
        lengths = np.linalg.norm(noise, axis=1)
        assert scipy.stats.kstest(lengths, scipy.stats.gamma(d, scale=1 / epsilon).cdf).pvalue > 0.01
        assert np.abs((noise / lengths[:, None]).mean(axis=0)).max() < 5 / math.sqrt(4000 * d)


def purkayastha(d: int, epsilon: float, weight=lambda theta: 1.0, top: float = math.pi) -> float:
    peak = math.atan2(d - 2, epsilon)

    def density(theta):
        height = (d - 2) * math.log(math.sin(theta) / math.sin(peak)) - epsilon * (theta - peak)
        return math.exp(height) * weight(theta)

    return scipy.integrate.quad(density, 0, top, points=[min(peak, top)], limit=500)[0]


@pytest.mark.parametrize(("d", "epsilon"), [(3, 0.5), (3, 30.0), (16, 4.0), (D, 10.0), (D, 400.0), (D, 4000.0)])
def test_purmechs_angle_has_the_purkayastha_density(d, epsilon):
    angles = purkayastha_angles(20_000, d, epsilon, np.random.default_rng(0))
    total = purkayastha(d, epsilon)
    mean = purkayastha(d, epsilon, lambda theta: theta) / total
    assert angles.mean() == pytest.approx(mean, abs=4 * angles.std() / math.sqrt(20_000))
    for share in (0.1, 0.5, 0.9):
        quantile = np.quantile(angles, share)
        assert purkayastha(d, epsilon, top=quantile) / total == pytest.approx(share, abs=0.012)


def test_purmech_in_the_plane_has_an_exponential_angle():
    angles = purkayastha_angles(20_000, 2, 3.0, np.random.default_rng(0))
    assert scipy.stats.kstest(angles, scipy.stats.truncexpon(3.0 * math.pi, scale=1 / 3.0).cdf).pvalue > 0.01


def test_purmech_stays_on_the_sphere_and_turns_the_vector_by_its_angle_only():
    clean = sphere(4000)
    stored = perturb.PurMech(400.0).store(clean, seeded())
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)
    expected = purkayastha(D, 400.0, math.cos) / purkayastha(D, 400.0)
    assert cosine(stored, clean).mean() == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("epsilon", [1e-9, 1.0, 1e9])
def test_purmech_at_the_ends_loses_or_keeps_everything(epsilon):
    cosines = perturb.apply(perturb.PurMech(epsilon), CLEAN, seeded()).cosines
    assert cosines.mean() == pytest.approx(1 if epsilon > 1 else 0, abs=0.02)


# --- quantisation


def test_fp16_is_within_half_of_its_last_bit():
    stored = perturb.HalfPrecision().store(CLEAN)
    assert stored.dtype == np.float16
    normal = np.abs(CLEAN) >= 2.0**-14
    assert (np.abs(stored - CLEAN)[normal] <= 2.0**-11 * np.abs(CLEAN)[normal]).all()
    assert perturb.apply(perturb.HalfPrecision(), CLEAN).cosines.min() > 0.9999


@pytest.mark.parametrize("bits", range(2, 9))
def test_absmax_errs_by_at_most_half_a_step(bits):
    stored = perturb.AbsmaxQuantisation(bits).store(CLEAN)
    top = 2 ** (bits - 1) - 1
    assert stored.dtype == np.int8 and np.abs(stored).max(axis=1).tolist() == [top] * len(CLEAN)
    step = np.abs(CLEAN).max(axis=1, keepdims=True) / top
    assert (np.abs(stored * step - CLEAN) <= step / 2 * (1 + 1e-5)).all()


def test_absmax_int8_of_a_small_case_by_hand():
    vector = np.array([[0.6, -0.8, 0.0]], np.float32)
    assert perturb.AbsmaxQuantisation(8).store(vector).tolist() == [[95, -127, 0]]  # 0.6 / 0.8 * 127 = 95.25
    assert perturb.AbsmaxQuantisation(4).store(vector).tolist() == [[5, -7, 0]]  # 5.25


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_zero_point_errs_by_at_most_half_a_step_and_clips_what_it_has_not_seen(bits):
    quantiser = perturb.ZeroPointQuantisation.fit(CLEAN, bits)
    stored = quantiser.store(CLEAN)
    assert stored.min() == 0 and stored.max() == 2**bits - 1
    assert (np.abs(quantiser.low + stored * quantiser.step - CLEAN) <= quantiser.step * 0.50001).all()
    spike = np.eye(D, dtype=np.float32)[:1]
    assert quantiser.store(spike)[0, 0] == 2**bits - 1


def test_zero_point_int8_agrees_with_sentence_transformers_to_one_code():
    ours = perturb.ZeroPointQuantisation.fit(CLEAN).store(CLEAN).astype(int) - 128
    theirs = quantize_embeddings(CLEAN, precision="int8", calibration_embeddings=CLEAN)
    difference = ours - theirs  # theirs cuts where ours rounds
    assert set(np.unique(difference)) <= {0, 1} and 0.4 < difference.mean() < 0.6


def test_binary_is_sentence_transformers_ubinary():
    np.testing.assert_array_equal(perturb.Binary(D).store(CLEAN), quantize_embeddings(CLEAN, precision="ubinary"))


def test_binary_of_a_small_case_by_hand():
    vector = np.array([[0.6, -0.8, 0.0]], np.float32)  # 0 is not above 0
    assert perturb.Binary(3).store(vector).tolist() == [[0b10000000]]


def test_binary_comes_back_as_signs_even_where_the_dimension_fills_no_byte():
    clean = sphere(50, 13)
    recovered = perturb.apply(perturb.Binary(13), clean).vectors
    np.testing.assert_allclose(recovered, np.where(clean > 0, 1, -1) / math.sqrt(13), atol=1e-6)


def test_binary_keeps_the_cosine_that_theory_expects():
    assert perturb.apply(perturb.Binary(D), sphere(2000)).cosines.mean() == pytest.approx(
        math.sqrt(2 / math.pi), abs=0.002
    )


def test_product_quantisation_finds_clusters_that_are_there():
    # Four directions a part, planted; k-means with as many codes as combinations must reproduce each vector.
    random = np.random.default_rng(0)
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32) / 2
    clean = corners[random.integers(4, size=(400, 4))].reshape(400, 8)
    quantiser = perturb.ProductQuantisation.fit(clean, 4, codes=64, generator=seeded())
    seen = perturb.apply(quantiser, clean)
    assert seen.stored.shape == (400, 4) and seen.stored.dtype == np.uint8
    np.testing.assert_allclose(seen.vectors, clean, atol=1e-6)


def test_product_quantisation_chooses_the_nearest_centroid_of_each_part():
    quantiser = perturb.ProductQuantisation.fit(CLEAN, 8, codes=16, generator=seeded())
    pieces = CLEAN.reshape(300, 8, 48)
    distance = ((pieces[:, :, None] - quantiser.centroids) ** 2).sum(axis=3)
    np.testing.assert_array_equal(quantiser.store(CLEAN), distance.argmin(axis=2))


def test_more_parts_and_more_codes_keep_more():
    def kept(parts: int, codes: int) -> float:
        quantiser = perturb.ProductQuantisation.fit(CLEAN, parts, codes=codes, generator=seeded())
        return perturb.apply(quantiser, CLEAN).cosines.mean()

    assert kept(8, 4) < kept(8, 16) < kept(32, 16) < kept(96, 16)


# --- reduction


def test_truncation_is_the_encoders_own_renormalised_leading_part():
    truncation = perturb.Truncation(100, D)
    seen = perturb.apply(truncation, CLEAN)
    leading = np.linalg.norm(CLEAN[:, :100], axis=1)
    np.testing.assert_allclose(seen.stored, CLEAN[:, :100] / leading[:, None], atol=1e-6)
    assert (seen.vectors[:, 100:] == 0).all()
    np.testing.assert_allclose(seen.cosines, leading, atol=1e-6)


def test_nothing_truncated_is_nothing_lost():
    np.testing.assert_allclose(perturb.apply(perturb.Truncation(D, D), CLEAN).vectors, CLEAN, atol=1e-6)


def test_principal_components_keep_exactly_a_plane_that_is_there():
    random = np.random.default_rng(0)
    plane = np.linalg.qr(random.standard_normal((D, 5)))[0].T
    clean = perturb.unit(random.standard_normal((200, 5)) @ plane)
    assert perturb.apply(perturb.PrincipalComponents.fit(clean, 5), clean).cosines.min() > 1 - 1e-6
    assert perturb.apply(perturb.PrincipalComponents.fit(clean, 4), clean).cosines.mean() < 0.98


def test_principal_components_are_those_of_the_covariance_and_lose_the_rest_of_its_variance():
    clean = perturb.unit(CLEAN * np.geomspace(1, 0.01, D) + 0.05)
    components = perturb.PrincipalComponents.fit(clean, 20)
    variances = np.linalg.eigvalsh(np.cov(clean.T.astype(float)))[::-1]
    np.testing.assert_allclose(components.store(clean).var(axis=0, ddof=1), variances[:20], rtol=1e-3)
    back = components.store(clean) @ components.components + components.mean
    assert ((back - clean) ** 2).sum() / (len(clean) - 1) == pytest.approx(variances[20:].sum(), rel=1e-3)


@pytest.mark.parametrize("keep", [10, 96, 300])
def test_a_random_projection_keeps_lengths_on_average_and_the_share_of_the_square_cosine(keep):
    clean = sphere(3000)
    seen = perturb.apply(perturb.RandomProjection.draw(D, keep, seeded()), clean)
    assert seen.stored.shape == (3000, keep)
    assert (np.linalg.norm(seen.stored, axis=1) ** 2).mean() == pytest.approx(1, abs=0.1)
    assert (seen.cosines**2).mean() == pytest.approx(keep / D, abs=0.01)


def test_a_projection_to_as_many_dimensions_loses_nothing_to_who_knows_it():
    clean = sphere(20, 32)
    seen = perturb.apply(perturb.RandomProjection.draw(32, 32, seeded()), clean)
    np.testing.assert_allclose(seen.vectors, clean, atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.999])
def test_dropout_sets_exactly_its_share_to_zero_and_leaves_the_rest(share):
    stored = perturb.CoordinateDropout(share).store(CLEAN, seeded())
    dropped = min(round(share * D), D - 1)
    assert ((stored == 0).sum(axis=1) == dropped).all()
    np.testing.assert_array_equal(stored[stored != 0], CLEAN[stored != 0])
    seen = perturb.apply(perturb.CoordinateDropout(share), sphere(3000), seeded())
    assert (seen.cosines**2).mean() == pytest.approx(1 - dropped / D, abs=0.01)


def test_dropout_draws_anew_for_each_vector():
    stored = perturb.CoordinateDropout(0.5).store(CLEAN, seeded())
    assert np.abs((stored == 0).mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(len(CLEAN))


# --- secrets


def test_a_secret_rotation_is_orthogonal_keeps_inner_products_and_hides_the_vector():
    rotation = perturb.SecretRotation.draw(D, seeded())
    np.testing.assert_allclose(rotation.key @ rotation.key.T, np.eye(D), atol=1e-12)
    stored = rotation.store(CLEAN)
    np.testing.assert_allclose(stored @ stored.T, CLEAN @ CLEAN.T, atol=1e-6)
    assert np.abs(perturb.apply(rotation, CLEAN).cosines).mean() < 2 / math.sqrt(D)
    np.testing.assert_allclose(stored @ rotation.key.T, CLEAN, atol=1e-6)


def test_secret_rotations_are_uniform():
    # Of a uniform rotation of the plane, every entry is the cosine of a uniform angle, and half are reflections.
    keys = np.stack([perturb.SecretRotation.draw(2, seeded(seed)).key for seed in range(1000)])
    for entry in (keys[:, 0, 0], keys[:, 1, 1], keys[:, 0, 1]):
        assert scipy.stats.kstest(entry, scipy.stats.arcsine(-1, 2).cdf).pvalue > 0.01
    assert np.mean(np.linalg.det(keys) > 0) == pytest.approx(0.5, abs=0.06)


def test_procrustes_finds_a_rotation_from_as_many_pairs_as_dimensions():
    d = 48
    rotation, known, unseen = perturb.SecretRotation.draw(d, seeded()), sphere(d, d, 1), sphere(200, d, 2)
    found = perturb.procrustes(rotation.store(known), known)
    np.testing.assert_allclose(found, rotation.key.T, atol=1e-3)
    np.testing.assert_allclose(perturb.unit(rotation.store(unseen) @ found), unseen, atol=1e-3)


def test_procrustes_from_fewer_pairs_finds_their_span_and_no_more():
    d, pairs = 48, 24
    rotation, known, unseen = perturb.SecretRotation.draw(d, seeded()), sphere(pairs, d, 1), sphere(500, d, 2)
    found = perturb.procrustes(rotation.store(known), known)
    np.testing.assert_allclose(found @ found.T, np.eye(d), atol=1e-9)
    np.testing.assert_allclose(perturb.unit(rotation.store(known) @ found), known, atol=1e-4)
    # Inside the span of the pairs (half the space) the cosine is right, outside it is chance: pairs / d on average.
    assert cosine(rotation.store(unseen) @ found, unseen).mean() == pytest.approx(pairs / d, abs=0.1)


def test_a_permutation_moves_values_untouched_and_falls_to_three_pairs():
    permutation = perturb.SecretPermutation.draw(D, seeded())
    stored = permutation.store(CLEAN)
    np.testing.assert_array_equal(np.sort(stored, axis=1), np.sort(CLEAN, axis=1))
    assert np.abs(perturb.apply(permutation, CLEAN).cosines).mean() < 2 / math.sqrt(D)
    np.testing.assert_array_equal(perturb.match_columns(stored[:3], CLEAN[:3]), permutation.key)


def test_least_squares_undoes_any_linear_map_that_its_pairs_span():
    projection, clean = perturb.RandomProjection.draw(24, 24, seeded()), sphere(1100, 24)
    stored = projection.store(clean)
    found = perturb.unit(stored[1000:] @ perturb.least_squares(stored[:1000], clean[:1000]))
    assert cosine(found, clean[1000:]).min() > 0.99


def test_least_squares_solves_the_ridge_equation():
    stored, clean = 3 * sphere(30, 40, 1).astype(float), sphere(30, 12, 2).astype(float)
    found = perturb.least_squares(stored, clean)
    # Rows 3 √ridge · I appended to an ordinary least-squares problem; ridge counts in their mean squared length, 3².
    expected = np.linalg.lstsq(
        np.vstack([stored, 3 * math.sqrt(1e-3) * np.eye(40)]), np.vstack([clean, np.zeros((40, 12))]), rcond=None
    )[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("attack", [perturb.procrustes, perturb.least_squares, perturb.match_columns])
def test_pairs_that_are_none_are_refused(attack):
    for stored, clean in ((CLEAN[:3], CLEAN[:4]), (CLEAN[:0], CLEAN[:0]), (CLEAN[0], CLEAN[0])):
        with pytest.raises(InputError, match="known pairs need as many stored as clean"):
            attack(stored, clean)
    with pytest.raises(InputError, match="NaN or infinite entries; remove those pairs"):
        attack(CLEAN[:3] * np.nan, CLEAN[:3])


def test_attacks_that_cannot_work_say_so():
    for attack in (perturb.procrustes, perturb.match_columns):
        with pytest.raises(InputError, match="unequal dimensions"):
            attack(CLEAN[:, :9], CLEAN)


# --- mixtures


def test_interpolation_by_hand():
    a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    np.testing.assert_allclose(perturb.interpolate(a, b, 0.25), [[3 / math.sqrt(10), 1 / math.sqrt(10)]], atol=1e-6)
    with pytest.raises(InputError, match="row 0 is all zeros"):
        perturb.interpolate(a, -a, 0.5)


@pytest.mark.parametrize(("weight", "own", "other"), [(0.0, 1, 0), (0.5, 0.5**0.5, 0.5**0.5), (1.0, 0, 1)])
def test_interpolation_moves_each_vector_towards_one_other(weight, own, other):
    basis = np.eye(32, dtype=np.float32)
    cosines = perturb.apply(perturb.Interpolation(weight), basis, seeded()).vectors
    np.testing.assert_allclose(np.diag(cosines), own, atol=1e-6)
    np.fill_diagonal(cosines, 0)
    np.testing.assert_allclose(cosines.max(axis=1), other, atol=1e-6)  # cosine to the one other
    assert ((cosines > 0).sum(axis=0) == (other > 0)).all()  # every vector serves once


@pytest.mark.parametrize("count", [1, 2, 5, 32])
def test_an_average_of_unrelated_vectors_is_equally_near_to_each(count):
    cosines = perturb.apply(perturb.Averaging(count), np.eye(32, dtype=np.float32), seeded()).vectors
    assert ((cosines > 0).sum(axis=1) == count).all() and (np.diag(cosines) > 0).all()
    np.testing.assert_allclose(cosines[cosines > 0], 1 / math.sqrt(count), atol=1e-6)


# --- known pairs


def test_enough_known_pairs_give_a_rotation_away_and_few_do_not():
    secret = perturb.SecretRotation.draw(D, seeded())
    known, attacked = sphere(D + 1, seed=5), sphere(20, seed=6)
    cosines = [
        perturb.apply(perturb.KnownPairs.fit(secret, known[:count]), attacked).cosines.mean()
        for count in (0, 200, D + 1)
    ]
    assert abs(cosines[0]) < 0.1 < 0.3 < cosines[1] < 0.8 and cosines[2] > 0.999


def test_a_permutation_falls_to_one_known_pair_and_a_truncation_to_none():
    secret = perturb.SecretPermutation.draw(D, seeded())
    seen = perturb.apply(perturb.KnownPairs.fit(secret, CLEAN[:1]), CLEAN[100:])
    np.testing.assert_allclose(seen.vectors, CLEAN[100:], atol=1e-6)
    cut = perturb.KnownPairs.fit(perturb.Truncation(D // 2, D), CLEAN)
    assert perturb.apply(cut, sphere(20, seed=6)).cosines.mean() < 0.9, "independent coordinates cannot be guessed"


def test_known_pairs_store_and_cost_what_the_defence_does():
    noise = perturb.GaussianNoise(0.02)
    known = perturb.KnownPairs.fit(noise, CLEAN, seeded())
    np.testing.assert_array_equal(known.store(CLEAN, seeded(3)), noise.store(CLEAN, seeded(3)))
    assert (known.name, known.strength, known.bits(D)) == ("Gaussian noise, known pairs", 300, 32 * D)
    with pytest.raises(InputError, match="is random; pass generator"):
        known.store(CLEAN)


def test_a_coordinate_that_never_varies_comes_back_from_zero_point_quantisation():
    dead = CLEAN.copy()
    dead[:, 7] = 0
    dead = perturb.unit(dead)
    quantiser = perturb.ZeroPointQuantisation.fit(dead, 4)
    seen = perturb.apply(quantiser, dead)
    assert (quantiser.step > 0).all(), "a code of 0/0 is whatever the machine makes of NaN"
    assert (seen.stored[:, 7] == 0).all() and (seen.vectors[:, 7] == 0).all() and seen.cosines.min() > 0.98


def test_unchanged_stores_a_copy():
    stored = perturb.Unchanged().store(CLEAN)
    np.testing.assert_array_equal(stored, CLEAN)
    assert stored is not CLEAN and not np.shares_memory(stored, CLEAN)


@dataclasses.dataclass(frozen=True)
class Own(perturb.Perturbation):
    """One that a user is writing: the way back is `back`."""

    back: object
    name = "own"
    measure = "nothing"
    strength = 1

    def _store(self, vectors, random):
        return vectors[:, :7]

    def _recover(self, stored):
        return self.back(stored)


def test_a_way_back_that_is_not_finite_or_missing_is_refused_by_name():
    for value in (math.nan, math.inf):
        with pytest.raises(InputError, match="own maps row 0 back to infinite or NaN entries"):
            perturb.apply(Own(lambda stored, value=value: np.full((len(stored), D), value)), CLEAN)
    with pytest.raises(InputError, match=rf"own maps back to shape \[{len(CLEAN)}, 7\].* write the way back"):
        perturb.apply(Own(lambda stored: stored), CLEAN)
