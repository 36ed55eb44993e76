"""The frontier of notebook 07: which attack reads most, what noise of the same recall would let through."""

import json

import pandas as pd
import pytest

from invlib.studies.frontier import KNOWING, NAIVE, Tables

NOISE = "Gaussian noise"


def rows(*points) -> pd.DataFrame:
    columns = ["perturbation", "strength", "attacker", "attack", "metric", "value"]
    table = pd.DataFrame(points, columns=columns)
    return table.assign(low=table["value"] - 0.01, high=table["value"] + 0.01)


@pytest.fixture
def tables() -> Tables:
    f1 = ("inverted", "naive", "token_f1")
    sweep = rows(
        ("none", 0, *f1, 0.6),
        ("no vector", 0, "unconditional prior", "naive", "token_f1", 0.1),
        (NOISE, 0.1, *f1, 0.2),
        (NOISE, 0.1, "inverted", "adapted", "token_f1", 0.3),
        (NOISE, 0.1, "inverted", "noise-aware", "token_f1", 0.35),
        ("truncation", 8, *f1, 0.15),
        ("truncation", 8, "inverted", "adapted", "token_f1", 0.5),
        ("secret rotation", 16, *f1, 0.12),
        ("secret rotation, known pairs", 1, "inverted", "known pairs", "token_f1", 0.2),
        ("secret rotation, known pairs", 9, "inverted", "known pairs", "token_f1", 0.6),
    )
    recall = [("none", 0, 1.0), (NOISE, 0.1, 0.5), ("truncation", 8, 0.75), ("secret rotation", 16, 1.0)]
    utility = pd.DataFrame(recall, columns=["perturbation", "strength", "value"])
    utility = utility.assign(low=utility["value"] - 0.02, high=utility["value"] + 0.02, metric="recall@10")
    return Tables(sweep, utility, {"texts": 3, "commit": "c" * 40, "made": "today"}, True)


def test_of_several_attacks_the_one_that_reads_most_counts_and_a_key_is_read_with_all_its_pairs(tables):
    known = tables.leakage("token_f1", KNOWING).set_index("perturbation")
    assert known["value"].to_dict() == {NOISE: 0.35, "truncation": 0.5, "secret rotation": 0.6}
    assert known["attack"].to_dict() == {
        NOISE: "noise-aware",
        "truncation": "adapted",
        "secret rotation": "known pairs",
    }
    assert known.loc["secret rotation", "strength"] == 16, "the strength under which its utility stands"


def test_noise_between_two_strengths_lies_on_the_line_from_the_clean_vectors_and_beyond_the_last_there_is_none(tables):
    assert tables.noise_at(0.75, NAIVE) == pytest.approx((0.4, 0.39, 0.41))  # half way from 0.6 to 0.2
    assert tables.noise_at(0.4, NAIVE) is None


def test_better_and_worse_are_said_only_where_the_intervals_do_not_meet(tables):
    found = tables.against_noise().set_index(["attacker", "defence"])["against noise"]
    assert found["naive", "truncation"] == "better" and found["naive", "secret rotation"] == "better"
    assert found["who knows it", "truncation"] == "worse" and found["who knows it", "secret rotation"] == "like noise"


def test_the_frontier_has_both_attackers_beside_what_the_search_keeps(tables):
    frontier = tables.frontier().query("perturbation == 'truncation'")
    assert frontier[["attacker", "recall@10", "value"]].to_numpy().tolist() == [
        ["naive", 0.75, 0.15],
        ["attackers who know the defence", 0.75, 0.5],
    ]
    beside = tables.beside("token_f1").loc[("truncation", 8)]
    assert list(beside) == ["0.750 (0.730–0.770)", "0.150 (0.140–0.160)", "0.500 (0.490–0.510)", "adapted"]


def test_no_pair_is_the_naive_attacker(tables):
    assert tables.pairs()[["pairs", "value"]].to_numpy().tolist() == [["0", 0.12], ["1", 0.2], ["9", 0.6]]


def test_a_slice_agrees_where_the_intervals_meet_and_what_the_table_lacks_is_said(tables):
    live = tables.sweep[tables.sweep["attacker"] == "inverted"].head(3).copy()
    live.loc[live.index[1], ["low", "value", "high"]] = [0.4, 0.5, 0.55]
    live.loc[live.index[2], "attack"] = "another"
    assert tables.agreement(live, ["token_f1"])["agrees"].tolist() == ["yes", "no", "not in it"]


def test_the_written_tables_are_read_with_the_weights_that_made_them(tables, small_inverter, tmp_path):
    tables.sweep.to_csv(tmp_path / "sweep.csv", index=False)
    tables.utility.to_csv(tmp_path / "utility.csv", index=False)
    (tmp_path / "about.json").write_text(json.dumps(tables.about | {"weights": "others"}))
    found = Tables.read(small_inverter, tmp_path)
    assert not found.are_these and str(found).endswith("the weights are NOT these")
    assert found.level("token_f1") == 0.6 and found.level("token_f1", "unconditional prior") == 0.1
