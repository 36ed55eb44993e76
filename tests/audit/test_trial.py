"""The trial of the origin rule: the limit that is found, and errors that are counted."""

import pandas as pd
import pytest

trial = pytest.importorskip("invlib.audit.trial", reason="needs the static embedder of studies.foreign")


def rows(genuine, over, way="some", domain="one"):
    about = {"way": way, "domain": domain, "genuine": genuine}
    return pd.DataFrame({"loop": 0.5, "control": [0.5 - one for one in over]}).assign(**about)


def test_the_limit_lets_one_strange_row_of_a_hundred_through():
    strange = rows(False, [0.3] * 200).assign(loop=[0.6, *[0.305] * 4, *[0.1] * 195])
    assert trial.limit(strange) == pytest.approx(0.31)
    lost = strange.assign(control=strange["loop"])
    assert trial.limit(lost) == 0, "a row whose text leads to the others as well passes no limit"


def test_errors_are_counted_by_row_and_by_store():
    known = pd.concat([rows(True, [0.3] * 9 + [0.0]), rows(False, [0.3] * 5 + [0.0] * 5, domain="two")])
    found = trial.errors(known).set_index(["vectors", "judged"])
    assert found.loc[("genuine", "rows"), "wrong"].startswith("0.100 (") and found.loc[("genuine", "rows"), "n"] == 10
    assert found.loc[("strange", "rows"), "wrong"].startswith("0.500 (")
    assert found.loc[("strange", "stores"), "wrong"].startswith("1.000 (")
    assert found.loc[("genuine", "stores"), "wrong"].startswith("0.000 (")
