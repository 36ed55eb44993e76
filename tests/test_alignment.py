"""Alignment: the map against its formula, the left-out error against leaving out, every bad pair against one line."""

import dataclasses

import jaxtyping
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge

from invlib import Alignment, InputError
from invlib.alignment import _ridge, encoded
from invlib.search import BestOf

D, FOREIGN = 12, 20
RANDOM = np.random.default_rng(0)
PLAN = RANDOM.standard_normal((D, FOREIGN))


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def known(n, noise=0.3, seed=0):
    """n texts, an encoder that knows their vectors, and the foreign vectors: linear in them, with noise."""
    random = np.random.default_rng(seed)
    clean, texts = unit(random.standard_normal((n, D))), [f"text {row}" for row in range(n)]
    vector_of = dict(zip(texts, clean, strict=True))
    foreign = clean @ PLAN + noise * random.standard_normal((n, FOREIGN))
    return texts, (lambda asked: np.stack([vector_of[text] for text in asked])), foreign, clean


@pytest.mark.parametrize("n", [15, 200], ids=["fewer pairs than dimensions", "more"])
def test_the_left_out_cosines_are_those_of_leaving_out_and_the_map_is_the_ridge(n):
    _, _, foreign, clean = known(n)
    x, y = unit(foreign).astype(np.float64), clean.astype(np.float64)
    center, matrix, offset, cosines = _ridge(x, y)
    centred = x - center
    total = (centred**2).sum()

    def by_hand(strength):
        alone = np.stack(
            [
                Ridge(strength).fit(np.delete(x, row, axis=0), np.delete(y, row, axis=0)).predict(x[row : row + 1])[0]
                for row in range(n)
            ]
        )
        return (alone * y).sum(axis=1) / np.linalg.norm(alone, axis=1)

    found = [strength * total for strength in np.geomspace(1e-7, 1, 15)]
    best = min(found, key=lambda strength: np.abs(Ridge(strength).fit(x, y).coef_.T - matrix).max())
    np.testing.assert_allclose(Ridge(best).fit(x, y).predict(x), centred @ matrix + offset, atol=1e-6)
    np.testing.assert_allclose(by_hand(best), cosines, atol=1e-6)
    assert cosines.mean() >= max(by_hand(best * factor).mean() for factor in (0.1, 10)) - 1e-9


@pytest.mark.parametrize("linear", [True, False])
def test_the_left_out_cosine_is_what_other_texts_get(linear):
    texts, encoder, foreign, _ = known(300)
    alignment = Alignment.fit(foreign, texts, encoder, linear=linear)
    _, _, others, clean = known(300, seed=1)
    reached = (alignment(others) * clean).sum(axis=1)
    assert abs(reached.mean() - alignment.cosine) < 4 * reached.std() / 300**0.5 < 0.1 < alignment.cosine


def test_what_is_not_linear_is_learnt_by_nearness():
    random, texts = np.random.default_rng(0), [str(row) for row in range(300)]
    clean = unit(random.standard_normal((300, 4)))
    bent = np.exp(3 * clean) @ random.standard_normal((4, FOREIGN))
    plain, curved = (Alignment.fit(bent, texts, lambda asked: clean, linear=linear) for linear in (True, False))
    assert len(curved.landmarks) and curved.cosine > plain.cosine + 0.02
    texts, encoder, straight, _ = known(300, noise=0)
    assert not len(Alignment.fit(straight, texts, encoder).landmarks)


def test_a_rotated_copy_is_mapped_back_and_its_noise_level_is_that_of_its_noise():
    random = np.random.default_rng(0)
    clean, texts = unit(random.standard_normal((2000, 64))), [str(row) for row in range(2000)]
    noisy = unit(clean + 0.5 / 8 * random.standard_normal((2000, 64)))  # σ√d = 0.5
    alignment = Alignment.fit(noisy @ ortho_group.rvs(64, random_state=1), texts, lambda asked: clean)
    assert alignment.noise_level == pytest.approx(0.5, abs=0.03)
    assert alignment.noise_level == pytest.approx((1 / alignment.cosine**2 - 1) ** 0.5)


def test_where_nothing_is_learnt_the_noise_level_is_the_loudest_that_training_knows():
    texts, encoder, _, _ = known(30)
    assert Alignment.fit(np.random.default_rng(5).standard_normal((30, 7)), texts, encoder).noise_level == 1.5


def test_texts_of_one_vector_count_once_and_do_not_flatter_what_is_left_out():
    texts, encoder, foreign, _ = known(40)
    once = Alignment.fit(foreign, texts, encoder)
    twice = Alignment.fit(np.vstack([foreign, foreign]), texts * 2, encoder)
    assert twice.pairs == 40
    np.testing.assert_array_equal(once.matrix, twice.matrix)


def test_only_the_direction_counts_and_one_vector_is_enough():
    texts, encoder, foreign, _ = known(40)
    alignment = Alignment.fit(foreign * 7, texts, encoder)
    np.testing.assert_allclose(alignment(foreign[0])[0], Alignment.fit(foreign, texts, encoder)(foreign)[0], atol=1e-5)


@pytest.mark.parametrize("linear", [True, False])
def test_saved_and_opened_it_is_the_same(tmp_path, linear):
    texts, encoder, foreign, _ = known(40)
    alignment = Alignment.fit(foreign, texts, encoder, linear=linear)
    alignment.save(tmp_path / "new" / "foreign.safetensors")
    again = Alignment.load(tmp_path / "new" / "foreign.safetensors")
    np.testing.assert_array_equal(again(foreign), alignment(foreign))
    assert (again.cosine, again.pairs) == (alignment.cosine, 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("matrix"), "is no alignment .*it holds center"),
        (lambda found: found.update(center=found["center"][1:]), "its shapes do not fit"),
        (lambda found: found["matrix"].fill(np.nan), "its numbers are not finite"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, message):
    texts, encoder, foreign, _ = known(40)
    found = dict(vars(Alignment.fit(foreign, texts, encoder)))
    change(found)
    save_file(found, tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match=message):
        Alignment.load(tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match="is no alignment"):
        Alignment.load(tmp_path / "absent.safetensors")


def failing(texts):
    raise ConnectionError("quota exceeded")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.ones((9, 4)), "texts": ["a"] * 9}, "at least 10 pairs of text and vector, got 9"),
        ({"texts": ["a"] * 39}, "40 vectors but 39 texts"),
        ({"vectors": np.ones((40, FOREIGN))}, "all foreign vectors are the same"),
        ({"vectors": np.full((40, FOREIGN), np.nan)}, "foreign vector 0 has NaN"),
        ({"vectors": [[1.0, 2.0]] * 39 + [[1.0]]}, "no rectangular array"),
        ({"texts": ["text 1"] * 40}, "texts that the encoder can tell apart, of 40, got 1"),
        ({"texts": ["text 1"] * 39 + [" "]}, "text 39 is ' '"),
        ({"encoder": failing}, "the encoder failed .quota exceeded"),
        ({"encoder": lambda texts: np.ones((3, 4))}, "for 40 texts"),
        ({"encoder": lambda texts: [[1.0]] * 20 + [[1.0, 2.0]] * 20}, "the encoder failed"),
        ({"encoder": 7}, "encoder must be an Encoder or a function"),
    ],
)
def test_pairs_that_teach_nothing_end_in_one_line(change, message):
    texts, encoder, foreign, _ = known(40)
    with pytest.raises(InputError, match=message) as told:
        Alignment.fit(**{"vectors": foreign, "texts": texts, "encoder": encoder, **change})
    assert "\n" not in str(told.value)


def test_a_wrong_dimension_is_named_with_the_one_expected():
    texts, encoder, foreign, _ = known(40)
    with pytest.raises(InputError, match=r"shape \(3, 7\); this alignment maps 20-dimensional vectors"):
        Alignment.fit(foreign, texts, encoder)(np.ones((3, 7)))


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, float("nan"), [None] * 40, np.ones((2, 2, 2)), object()])
def test_a_value_of_any_kind_ends_in_one_line(value, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for people: no type check comes first
    texts, encoder, foreign, _ = known(40)
    alignment = Alignment.fit(foreign, texts, encoder)
    calls = [lambda: Alignment.fit(value, texts, encoder), lambda: Alignment.fit(foreign, value, encoder)]
    calls += [lambda: Alignment.fit(foreign, texts, value), lambda: alignment(value), lambda: Alignment.load(value)]
    for call in calls if isinstance(value, str) else [*calls, lambda: alignment.save(value)]:
        with pytest.raises(InputError) as told:
            call()
        assert len(str(told.value)) <= 300 and str(told.value).isprintable()


# ── with an inverter ──


@pytest.fixture(scope="module")
def half(minilm, sentences) -> tuple:
    """A foreign encoder of 200 dimensions, the alignment of its vectors, and those of the sentences."""
    plan = np.random.default_rng(3).standard_normal((384, 200)) / 20

    def encode(texts):
        return unit(minilm.encode(texts) @ plan)

    texts = [f"{first} {second}" for first in sentences for second in sentences]
    return encode, Alignment.fit(encode(texts), texts, minilm), encode(sentences)


def test_a_search_asks_the_foreign_encoder_and_compares_in_its_space(small_inverter, half):
    encode, alignment, vectors = half
    asked = []

    def foreign(texts):
        asked.extend(texts)
        return encode(texts)

    options = {"alignment": alignment, "encoder": foreign, "search": BestOf(4)}
    result = small_inverter.invert(vectors[:2], **options)
    assert len(asked) == result.encoder_queries.sum() > 0 and result.errors == [None, None]
    expected = (encode(result.texts) * vectors[:2]).sum(axis=1)
    np.testing.assert_allclose(result.cosines, expected, atol=1e-6)
    drafts = small_inverter.invert(vectors[:2], alignment=alignment)
    assert drafts.texts == small_inverter.invert(alignment(vectors[:2])).texts


def test_the_denoiser_of_a_target_listens_to_the_mapped_vector(small_inverter, half):
    encode, alignment, vectors = half
    target = small_inverter.target(vectors[0], alignment=alignment, encode=encode)
    np.testing.assert_allclose(target.vector, alignment(vectors[0])[0], atol=1e-6)
    np.testing.assert_array_equal(target.ledger.vector, vectors[0])
    found = dataclasses.replace(target.ledger, max_queries=1)
    found.score([(7, 8)])
    assert target.beyond(found.best(1)[0]).shape == (384,)


@pytest.mark.parametrize("asked", [{"verify": True}, {"search": BestOf(4)}])
def test_a_foreign_encoder_that_changes_its_dimension_or_fails_ends_in_one_line(small_inverter, half, asked):
    encode, alignment, vectors = half
    with pytest.raises(InputError, match="pass encoder="):
        small_inverter.invert(vectors, alignment=alignment, **asked)
    with pytest.raises(InputError, match="this alignment maps 200-dimensional"):
        small_inverter.invert(vectors[:, 1:], alignment=alignment, encoder=encode, **asked)
    with pytest.raises(InputError, match="alignment must be an invlib.Alignment"):
        small_inverter.invert(vectors, alignment=encode, encoder=encode, **asked)
    calls = []

    def narrowing(texts):
        calls.append(len(texts))
        return encode(texts)[:, : 200 - 50 * (len(calls) > 1)]

    if "search" in asked:
        result = small_inverter.invert(vectors[:1], alignment=alignment, encoder=narrowing, **asked)
        assert "150" in result.errors[0] and "200 dimensions" in result.errors[0]
        assert result.texts[0] and result.encoder_queries[0] == 1
    else:
        with pytest.raises(InputError, match="the encoder failed"):
            small_inverter.invert(vectors[:1], alignment=alignment, encoder=failing, **asked)


def test_an_alignment_into_another_space_is_refused(small_inverter):
    texts, encoder, foreign, _ = known(40)
    with pytest.raises(InputError, match="this checkpoint inverts 384-dimensional"):
        small_inverter.invert(foreign, alignment=Alignment.fit(foreign, texts, encoder))


def test_an_encoder_is_asked_through_either_of_its_forms(minilm, sentences):
    np.testing.assert_array_equal(encoded(minilm, sentences), encoded(minilm.encode, sentences))
