"""The studies of foreign encoders and of keys without pairs: small, whole, and their sentences."""

import json

import numpy as np
import pandas as pd
import pytest

from invlib import InputError
from invlib.studies import alignment, foreign, unpaired
from invlib.studies.__main__ import main
from invlib.studies.claims import claims, key_claims, key_table, pairs_claim, read_table
from invlib.studies.results import kept_vectors

WORDS = ("The dog", "A cat", "My hand", "The river", "His house", "Her boat"), ("sees", "finds", "loves", "leaves"), (
    "the sea.", "a small fire.", "the old town.", "my friend.", "its way home.")  # fmt: skip
TEXTS = [f"{who} {does} {what}" for who in WORDS[0] for does in WORDS[1] for what in WORDS[2]]


@pytest.fixture
def corpus(tmp_path):
    def write(name, texts):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
        return str(path)

    return write


def test_the_static_embedder_averages_the_numbers_of_tokens():
    encode = foreign.static_embedder()
    one, other, both = encode(["cold wind", "wind cold", "cold wind cold wind"])
    assert one.shape == (256,) and np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert one @ both == pytest.approx(1, abs=0.02) and 0.5 < one @ other < 1.001


def test_without_its_package_the_static_embedder_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(foreign, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install wordllama"):
        foreign.static_embedder()


@pytest.mark.parametrize("how", ["max", "cls"])
def test_another_pooling_is_another_space(minilm, sentences, how):
    found = foreign.pooled(minilm, how)(sentences)
    cosines = (found * minilm.encode(sentences)).sum(axis=1)
    assert found.shape == (len(sentences), 384) and (cosines < 0.95).all()


def test_the_rotated_copy_is_as_far_off_as_its_noise(minilm, sentences):
    found, again = (foreign.rotated(minilm, sentences) for _ in range(2))
    np.testing.assert_array_equal(found, again)
    clean = minilm.encode(sentences)
    assert np.abs(found @ found.T - clean @ clean.T).mean() < 0.2 < 0.9 < np.linalg.norm(found, axis=1).min()


def test_vectors_are_kept_and_not_asked_for_twice(tmp_path):
    asked = []

    def encode(texts):
        asked.append(texts)
        return np.eye(3)[: len(texts)]

    first, second = (kept_vectors(encode, "e", ["a", "b"], tmp_path) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(asked) == 1 and len(kept_vectors(encode, "f", ["a", "b"], tmp_path)) == 2 == len(asked)
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(b"no array")
    with pytest.raises(InputError, match="is not kept vectors"):
        kept_vectors(encode, "e", ["a", "b"], tmp_path)


def test_the_curve_has_a_row_for_everything(corpus, tmp_path, capsys):
    out = tmp_path / "alignment.csv"
    files = ["--text", corpus("known", TEXTS[:90]), "--target", corpus("other", TEXTS[90:])]
    sizes = ["--counts", "20", "60", "--targets", "8", "--only", "wordllama"]
    assert main(["alignment", *files, *sizes, "--cache", str(tmp_path / "cache"), "--out", str(out)]) == 0
    table = pd.read_csv(out)
    assert set(table["pairs"]) == {20, 60} and set(table["domain"]) == {"left out", "same", "other"}
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    assert len(table) == 2 * (1 + 2 * (1 + 4 * 2)) and set(table["encoder"]) == {"wordllama"}
    texts = pd.read_csv(tmp_path / "alignment_texts.csv")
    assert texts["pairs"].tolist() == sorted(texts["pairs"], reverse=True) and set(texts["text"]) == set(
        alignment.SHOWN
    )
    assert "pairs" in pairs_claim(table) and "n = 8" in pairs_claim(table)
    assert main(["alignment", *files, "--only", "word"]) == 2
    assert main(["alignment", *files, "--targets", "80", "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") >= 2


def test_without_a_pair_there_is_a_row_for_every_key_and_number(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(unpaired, "TARGETS", 8)
    out = tmp_path / "unpaired.csv"
    more = [f"{text} {number} of them." for number in ("Two", "Some") for text in TEXTS]
    files = ["--target", corpus("store", TEXTS), "--text", corpus("similar", more)]
    assert main(["unpaired", *files, "--counts", "100", "--cache", str(tmp_path / "cache"), "--out", str(out)]) == 0
    table = pd.read_csv(out)
    keys = table[table["own texts"] == "similar"]
    assert set(keys["defence"]) == set(unpaired.defences(384)) and set(keys["vectors"]) == {100}
    assert set(table["metric"]) == {"token_f1", "cosine", "recall@10"}
    whole = table[(table["metric"] == "recall@10")].set_index("defence")["value"]
    assert whole["secret rotation"] == 1 > whole["bounded noise, rotation"]
    assert main(["unpaired", *files, "--counts", "500", "--out", str(out)]) == 2


# ── the sentences ──


def keys(value: float) -> pd.DataFrame:
    rows = [("no key", "none", 0, 0.6), ("no vector", "none", 0, 0.2)]
    rows += [("secret rotation", "similar", n, found) for n, found in ((1000, 0.2), (10_000, value))]
    frame = pd.DataFrame(rows, columns=["defence", "own texts", "vectors", "value"])
    return frame.assign(metric="token_f1", low=frame["value"] - 0.01, high=frame["value"] + 0.01, n=200)


def test_a_key_falls_where_most_of_what_a_vector_tells_is_read():
    (fallen,), (held,) = key_claims(keys(0.55)), key_claims(keys(0.45))
    assert "secret rotation falls to 10,000 stored vectors" in fallen and "0.550 (0.540–0.560) of 0.600" in fallen
    assert "secret rotation does not fall to 10,000" in held and "0.450" in held


def pairs(values: dict[int, float]) -> pd.DataFrame:
    rows = []
    for count, value in values.items():
        for attacker, found in (("inverted", value), ("nearest known text", 0.2), ("shuffled embeddings", 0.1),
                                ("unconditional prior", 0.15)):  # fmt: skip
            rows.append(("wordllama", count, "same", attacker, "token_f1", found, found - 0.02, found + 0.02, 200))
    return pd.DataFrame(rows, columns=alignment.COLUMNS)


def test_pairs_are_enough_where_more_is_read_than_by_any_control():
    told = pairs_claim(pairs({30: 0.2, 100: 0.23, 300: 0.25, 1000: 0.3}))
    assert "300 pairs are enough" in told and "with 1,000, token F1 is 0.300 (0.280–0.320)" in told
    assert "1,000 pairs are not enough" in pairs_claim(pairs({1000: 0.21}))


def test_the_largest_store_of_each_key_stands_in_a_table_beside_the_naive_attacker():
    found = key_table(keys(0.55).assign(metric=lambda own: own["metric"]).pipe(with_more), longest=True)
    assert found.index.tolist() == [("no key", "(as stored)", 0), ("no vector", "(as stored)", 0),
                                    ("secret rotation", "similar", 10_000)]  # fmt: skip
    assert found.loc[("secret rotation", "similar", 10_000), "token_f1"] == "0.550 (0.540–0.560)"


def with_more(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, *(table.assign(metric=metric) for metric in ("cosine", "recall@10"))])


def test_both_tables_are_read_and_one_that_is_not_there_says_how_to_make_it(tmp_path):
    pairs({1000: 0.3}).to_csv(tmp_path / "alignment.csv", index=False)
    with pytest.raises(InputError, match="unpaired.csv is not there .*python -m invlib.studies unpaired"):
        claims(tmp_path)
    keys(0.55).to_csv(tmp_path / "unpaired.csv", index=False)
    assert len(claims(tmp_path)) == 2 and len(read_table("unpaired", tmp_path)) == 4
    row = {"sentences": 3, "way": "word map", "value": 0.5, "low": 0.4, "high": 0.6, "n": 300}
    pd.DataFrame([row]).to_csv(tmp_path / "chunks.csv", index=False)
    assert "0.500 (0.400–0.600) of a chunk of 3" in claims(tmp_path)[-1]


def test_readme_says_what_the_tables_say():
    from tests.pages import ROOT

    assert "\n".join(f"- {sentence}" for sentence in claims()) in (ROOT / "README.md").read_text(encoding="utf-8")
