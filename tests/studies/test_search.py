"""The search's curve: honest at every budget, and a run that can be stopped."""

import pandas as pd
import pytest

from invlib.search import BestOf, SwapBeam
from invlib.studies import search as recovery
from invlib.studies.__main__ import main
from invlib.studies.results import commit_of_this_clone
from invlib.studies.search import best_within, curve, recover

SENTENCES = ["I am late.", "Plants need light and water."]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join([*SENTENCES, "too short"]), encoding="utf-8")
    return path


def test_the_best_within_a_budget_is_the_closest_of_the_first_queries():
    found = pd.DataFrame({"text": list("abcd"), "cosine": [0.1, 0.5, 0.3, 0.9], "seconds": [1.0, 2.0, 2.0, 3.0]})
    best = [("a", 1.0), ("b", 2.0), ("b", 2.0), ("d", 3.0), ("d", 3.0)]
    assert [best_within(found, queries) for queries in (1, 2, 3, 4, 99)] == best


def test_every_query_is_seen_in_its_order(inverter):
    strategies = [BestOf(5), SwapBeam(max_queries=40)]
    first, second = (recover(inverter, text, strategies, seed) for seed, text in enumerate(SENTENCES))
    assert len(first) <= 40 and len(second) <= 40
    assert first["text"][0] == inverter.invert(inverter.encoder.encode(SENTENCES[:1])).texts[0]
    assert first["text"].is_unique and first["seconds"].is_monotonic_increasing and first["seconds"].gt(0).all()


def test_the_curve_scores_what_was_best_at_each_budget(inverter):
    drafts, found = ["I am.", "Plants need light."], SENTENCES
    best = [{"1": (one, 0.5), "9": (other, 2.0)} for one, other in zip(drafts, found, strict=True)]
    table = curve(SENTENCES, best, inverter.encoder).set_index(["queries", "metric"])["value"]
    assert table[9, "exact_match"] == 1 and table[1, "exact_match"] == 0
    assert table[9, "cosine"] == pytest.approx(1, abs=1e-5) and table[1, "cosine"] < 0.99
    assert table[1, "seconds"] == 0.5 and table[9, "seconds"] == 2


def test_the_command_goes_on_where_it_was_stopped(corpus, tmp_path, monkeypatch, capsys):
    command = ["search", "--text", str(corpus), "--queries", "20", "--cache", str(tmp_path / "cells")]
    whole, done = recovery.recover, []

    def recover_one(inverter, text, *rest):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(text)
        return whole(inverter, text, *rest)

    monkeypatch.setattr(recovery, "recover", recover_one)
    assert main([*command, "--out", str(tmp_path / "a.csv")]) == 130
    assert f"the same command goes on from {tmp_path / 'cells'}" in capsys.readouterr().err
    monkeypatch.setattr(
        recovery, "recover", lambda inverter, text, *rest: done.append(text) or whole(inverter, text, *rest)
    )
    assert main([*command, "--out", str(tmp_path / "a.csv")]) == 0
    assert done == SENTENCES, "two words are too short, and nobody is done twice"
    command[-1] = str(tmp_path / "others")
    assert main([*command, "--out", str(tmp_path / "b.csv")]) == 0
    assert done == SENTENCES * 2
    one, other = (pd.read_csv(tmp_path / name) for name in ("a.csv", "b.csv"))
    one, other = (own[own["metric"] != "seconds"].reset_index(drop=True) for own in (one, other))
    pd.testing.assert_frame_equal(one.drop(columns="made"), other.drop(columns="made"))
    assert {*one["text"]} == {"sentences"} and {*one["group"]} == {"all"}, "two are too few for a length"
    assert sorted(one["queries"].unique()) == [1, 20] and one["made"].str.endswith("+00:00").all()
    assert one["commit"].unique().tolist() == [commit_of_this_clone()]
    command[4] = "19"
    main([*command, "--out", str(tmp_path / "c.csv")])
    assert done == SENTENCES * 3, "another budget is another search"


def test_the_first_sentences_may_be_searched_deeper_and_each_budget_tells_its_n(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(recovery, "DEEP", 24)
    monkeypatch.setattr(recovery, "FEWEST", 2)
    command = ["search", "--text", str(corpus), "--queries", "12", "--deep", "1", "--cache", str(tmp_path / "cells")]
    assert main([*command, "--out", str(tmp_path / "a.csv")]) == 0
    table = pd.read_csv(tmp_path / "a.csv").query("metric == 'exact_match'")
    whole, by_length = (own.set_index("queries")["n"].to_dict() for _, own in table.groupby(table["group"] != "all"))
    assert whole == {1: 2, 12: 2, 24: 1} and by_length == {1: 2, 12: 2}


def test_a_missing_corpus_is_said_in_one_line(tmp_path, capsys):
    assert main(["search", "--text", str(tmp_path / "absent.txt"), "--cache", str(tmp_path / "p")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
