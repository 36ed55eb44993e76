"""Studies: scores by group, and what the script writes."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import score
from invlib.studies import score as studies
from invlib.studies.__main__ import main


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Twenty-five right texts of two words and twenty wrong ones of three."""
    right = [f"number {n}" for n in range(25)]
    wrong = [f"the number {n}" for n in range(20)]
    return pd.DataFrame({"text": right + wrong, "inverted": right + ["nothing at all"] * 20})


def test_groups_are_scored_apart_in_the_order_of_the_categories(table, minilm):
    groups = pd.Categorical(["two"] * 25 + ["three"] * 20, ["three", "two"])
    scores = studies.score_groups(table, groups, minilm)
    assert scores["group"].unique().tolist() == ["three", "two"]
    two = scores[scores["group"] == "two"].drop(columns="group").reset_index(drop=True)
    pd.testing.assert_frame_equal(two, score(table["text"].tolist()[:25], table["inverted"].tolist()[:25], minilm))
    assert scores.set_index(["group", "metric"]).at[("three", "exact_match"), "value"] == 0


def test_a_group_that_is_too_small_is_left_out(table, minilm):
    groups = pd.Categorical(["many"] * 26 + ["few"] * 19)
    assert studies.score_groups(table, groups, minilm)["group"].unique().tolist() == ["many"]


def test_a_table_of_groups_shows_value_interval_and_number(table, minilm):
    groups = pd.Categorical(["two"] * 25 + ["three"] * 20, ["two", "three"])
    scores = studies.score_groups(table, groups, minilm)
    lines = studies.markdown_table(scores, ("group", "n"), "metric").splitlines()
    assert lines[0].startswith("| group | n | token f1 |") and len(lines) == 4
    assert lines[2].startswith("| two | 25 | 1.000 (1.000–1.000)")
    assert "| three | 20 | 0.000 (0.000–0.000)" in lines[3]


def test_the_script_scores_every_text_source_and_length_and_counts_tokens(
    tmp_path, minilm, sentences, monkeypatch, capsys
):
    monkeypatch.setattr(studies, "SMALLEST_GROUP", 2)
    rows = [
        {"text": f" {text}", "source": f"{'abb'[n % 3]}/{n}"} for n, text in enumerate(sentences)
    ]  # what follows the slash names a part of the source
    path = tmp_path / "sentences.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    few = tmp_path / "few.txt"
    few.write_text("\n".join(sentences[:4]), encoding="utf-8")
    command = ["score", "--text", str(path), str(few), "--out", str(tmp_path / "results.json"), "--steps", "2"]
    assert main(command) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    by_source = pd.DataFrame(results["by_source"])
    assert by_source.groupby("group", sort=False)["n"].first().to_dict() == {"b": 8, "a": 4}
    by_length = pd.DataFrame(results["by_length"])
    lengths = [len(ids) for ids in Inverter.load("minilm").tokenizer.encode(sentences)]
    counted = by_length[by_length["text"] == "sentences"].groupby("group")["n"].first()
    assert counted["9–12 tokens"] == sum(9 <= n <= 12 for n in lengths)
    overall = pd.DataFrame(results["scores"]).query("attacker == 'inverted'").set_index(["text", "metric"])
    assert 0 <= overall.at[("sentences", "length_within_one_token"), "value"] <= 1
    assert overall.loc["few", "n"].unique().tolist() == [4] and results["texts"] == ["sentences.jsonl", "few.txt"]
    assert "| token f1 | sentences |" in capsys.readouterr().out
    assert main([*command, "--pool", str(few)]) == 2 and "1 pools for 2 texts" in capsys.readouterr().err
    command[3] = str(path)
    assert main(command) == 2 and "two texts have one name (sentences, sentences)" in capsys.readouterr().err


def test_a_text_too_small_for_groups_is_scored_as_a_whole(tmp_path, sentences, capsys):
    path, out = tmp_path / "few.jsonl", tmp_path / "results.json"
    path.write_text("".join(json.dumps({"text": text, "source": 3}) + "\n" for text in sentences[:3]))
    assert main(["score", "--text", str(path), "--out", str(out), "--steps", "1"]) == 0
    found = json.loads(out.read_text())
    assert found["scores"] and not found["by_length"] and not found["by_source"]
    assert main(["score", "--text", str(path), "--limit", "0"]) == 2
    assert "--limit: must be an integer from 1" in capsys.readouterr().err


# --- controls


def test_everybody_gets_another_ones_row_once():
    for seed in range(5):
        other = studies.somebody_else(7, torch.Generator().manual_seed(seed))
        assert sorted(other) == list(range(7)) and (other != np.arange(7)).all()
    with pytest.raises(InputError, match="at least two texts"):
        studies.somebody_else(1)


def test_the_nearest_row_may_be_forbidden_to_be_the_own():
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    assert studies.nearest(vectors, vectors).tolist() == [0, 1, 2]
    assert studies.nearest(vectors, vectors, own_excluded=True).tolist() == [1, 0, 1]
