"""The benchmark of the search: all ways do the same work, and only one of them rounds."""

import pandas as pd
import pytest

from tests.speed import searching


def test_the_exact_way_asks_the_model_itself(inverter):
    plain = searching.exact(inverter)
    assert plain.quick is plain.model is inverter.model
    vector = inverter.encoder.encode(["The keeper opened the old gate slowly."])[0]
    ways = zip(searching.WAYS, (plain, plain, inverter), strict=True)
    assert {searching.search(way, own, vector, 120) for way, own in ways} == {120}


def test_the_ratio_is_that_of_the_same_sentence():
    rows = [("exact", 6.0), ("quick", 2.0), ("exact", 9.0), ("quick", 3.0)]
    table = pd.DataFrame([{"way": way, "seconds": s, "share_of_peak": 0.1} for way, s in rows])
    assert searching.summary(table).set_index("way")["ratio"].to_dict() == {"exact": 1.0, "quick": 3.0}


def test_a_length_that_no_sentence_has_is_said_in_one_line(capsys):
    assert searching.main(["--length", "99"]) == 2
    assert "no sentence has 99 pieces" in capsys.readouterr().err


@pytest.mark.parametrize("queries", ["0", "-3"])
def test_a_search_without_queries_is_refused(queries, capsys):
    assert searching.main(["--queries", queries]) == 2
    assert capsys.readouterr().err.startswith("error: ")
