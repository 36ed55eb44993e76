"""Which words go first: kinds, what came back, and what chance finds."""

import pytest

from invlib.studies.vanishing import under_noise, words_kept


def test_every_word_has_a_kind_and_is_kept_only_if_all_its_pieces_came_back():
    texts = ["The Old Anna paid 12 euros well-known.", "The old man slept."]
    rows = words_kept(texts, ["anna paid 12 well", "the old man slept."])
    first = rows.head(6)
    assert first["kind"].tolist() == ["common", "capitalised", "capitalised", "common", "number", "common"]
    assert first["kept"].tolist() == [0, 0, 1, 1, 1, 0]
    assert first["by chance"].tolist() == [1, 1, 0, 0, 0, 0], "what stands in the other text's recovery"


def test_noise_is_swept_with_an_interval_for_what_is_kept_and_none_for_chance(inverter):
    texts = ["The train to the coast leaves at noon.", "Anna bought 3 red boats."]
    found = under_noise(inverter, texts, (0, 0.1), num_steps=1)
    assert set(found["sigma"]) == {0, 0.1} and set(found["found"]) == {"kept", "by chance"}
    chance = found[found["found"] == "by chance"]
    assert (chance["low"] == chance["high"]).all()
    assert found["value"].between(0, 1).all()
    assert found.query("found == 'kept' and kind == 'number'")["n"].tolist() == pytest.approx([1, 1])
