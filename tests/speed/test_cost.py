"""What an inversion costs: the work is counted right, and the model finds the numbers that made a table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from invlib.checkpoint import BUNDLED
from invlib.config import load_config
from tests.speed import cost
from tests.speed.cost import Setting, explained, measure
from tests.speed.untrained import untrained

TINY = Path(__file__).parents[2] / "configs/tiny.yaml"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    axes = {"length": (2, 4), "steps": (2, 9), "batch": (1, 2), "candidates": (1, 3)}
    base = Setting(length=4, steps=2, batch=2)
    return measure(untrained(load_config(TINY).model), axes, base=base, repeats=1)


def test_one_axis_varies_at_a_time_and_calls_are_those_of_the_batch(table):
    assert list(zip(table["axis"], table["value"], strict=True)) == [
        *(("length", 2), ("length", 4), ("steps", 2), ("steps", 9)),
        *(("batch", 1), ("batch", 2), ("candidates", 1), ("candidates", 3)),
    ]
    assert table["calls"].tolist() == [2, 2, 2, 4, 2, 2, 2, 2], "four tokens need no more than four calls"
    assert (table["ms"] > 0).all()


def test_operations_grow_in_proportion_to_vectors_and_drafts(table):
    work = table.set_index(["axis", "value"])["gflops"]
    head_and_blocks = work["batch", 2] - work["batch", 1]
    assert head_and_blocks == pytest.approx(work["batch", 1])
    assert work["candidates", 1] == work["batch", 2] == work["length", 4] == work["steps", 2]
    assert 2.5 * work["candidates", 1] < work["candidates", 3] <= 3 * work["candidates", 1]
    assert work["length", 2] < work["length", 4] < work["steps", 9]


def test_the_model_recovers_what_a_call_and_an_operation_cost():
    work = pd.DataFrame({"calls": [1, 8, 8, 16], "gflops": [2.0, 10.0, 80.0, 20.0], "batch": [1, 1, 8, 2]})
    ms = (5 * work["calls"] + 3 * work["gflops"]) / work["batch"]
    table, per_call, per_gflop = explained(work.assign(ms=ms))
    assert (per_call, per_gflop) == (pytest.approx(5), pytest.approx(3))
    np.testing.assert_allclose(table["predicted"], ms)


def test_the_fit_minds_relative_errors():
    """Absolute ones would give the dear setting its way: 10 ms a GFLOP."""
    work = pd.DataFrame({"calls": [0, 0, 0], "gflops": [1.0, 1.0, 1000.0], "batch": 1, "ms": [5.0, 5.0, 10_000.0]})
    _, _, per_gflop = explained(work)
    assert 5 < per_gflop < 8


def test_the_command_writes_a_table_with_its_machine(tmp_path, capsys):
    out = tmp_path / "cost.csv"
    assert cost.main(["--repeats", "1", "--largest", "1", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("machine: ") and "ms a call + " in lines[-2]
    written = pd.read_csv(out)
    assert written["axis"].tolist() == ["steps", "batch", "candidates"]
    assert written["machine"].nunique() == 1 and "torch" in written["machine"].iloc[0]


def test_a_mistake_is_one_line(capsys):
    assert cost.main(["--repeats", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: argument --repeats")


def test_the_table_beside_the_bundled_weights_is_the_command_s():
    table = pd.read_csv(BUNDLED / "minilm" / "cost.csv")
    assert {axis: tuple(rows["value"]) for axis, rows in table.groupby("axis", sort=False)} == cost.AXES
    np.testing.assert_allclose(explained(table)[0]["predicted"], table["predicted"], rtol=1e-3)
