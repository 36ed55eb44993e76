"""The sweep: its grid, its numbers, and that a finished cell is never computed twice."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import invlib
from invlib import perturb
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.metrics import cosine
from invlib.studies import sweep as module
from invlib.studies.leaks import Record, Secret
from invlib.studies.sweep import Bench, Cell, measure, sweep

ONE_STEP = {"1 step": {"num_steps": 1}}
NOISE = perturb.GaussianNoise(0.02)


@pytest.fixture
def run(inverter, sentences, tmp_path):
    def run(perturbations=(NOISE,), texts=sentences, **options):
        options = {"decodings": ONE_STEP, "cache": tmp_path / "cells", "progress": False, **options}
        return sweep(inverter, texts, perturbations, **options)

    return run


def value(table, attacker, metric, perturbation="none"):
    chosen = table.query("attacker == @attacker and metric == @metric and perturbation == @perturbation")
    (found,) = chosen["value"]
    return found


def test_the_grid_is_perturbation_by_strength_by_decoding_by_seed_with_controls_in_each(run):
    table = run([NOISE, perturb.Truncation(96, 384)], decodings={**ONE_STEP, "2 steps": {"num_steps": 2}}, seeds=(0, 1))
    cells = table[["perturbation", "strength", "decoding", "seed"]].drop_duplicates()
    assert len(cells) == 4 * 2 * 2, "no vector, none and two perturbations"
    attackers = table.groupby("perturbation")["attacker"].unique().map(sorted).to_dict()
    four = ["inverted", "nearest sentence", "shuffled embeddings", "word map"]
    assert attackers == {
        "no vector": ["unconditional prior"], "none": four, "Gaussian noise": four, "truncation": four
    }  # fmt: skip
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert list(table.columns[:7]) == ["perturbation", "strength", "measure", "decoding", "seed", "attacker", "metric"]


def test_the_figures_are_those_of_the_perturbed_vectors(run, inverter, sentences):
    table = run()
    vectors = inverter.encoder.encode(sentences)
    seen = perturb.apply(NOISE, vectors, torch.Generator().manual_seed(0))
    texts = inverter.invert(seen.vectors, num_steps=1).texts
    expected = invlib.metrics.score(sentences, texts, inverter.encoder).set_index("metric")["value"]
    for metric in ("token_f1", "rouge_l", "bleu", "exact_match", "cosine"):
        assert value(table, "inverted", metric, NOISE.name) == pytest.approx(expected[metric], abs=1e-5)
    assert value(table, "inverted", "vector_cosine", NOISE.name) == pytest.approx(seen.cosines.mean())
    assert value(table, "inverted", "vector_cosine") == pytest.approx(1)
    independent = Bench(inverter, sentences).independent
    own = cosine(independent.transform(texts), independent.transform(sentences)).mean()
    assert value(table, "inverted", "independent_cosine", NOISE.name) == pytest.approx(own)


def test_the_controls_do_not_know_the_text(run):
    table = run()
    for metric in ("token_f1", "cosine", "independent_cosine", "top_1"):
        best = max(value(table, attacker, metric) for attacker in ("shuffled embeddings", "nearest sentence"))
        assert value(table, "inverted", metric) > best + 0.1
        assert value(table, "inverted", metric) > value(table, "unconditional prior", metric, "no vector") + 0.1
    assert value(table, "inverted", "rank") < 2 < value(table, "shuffled embeddings", "rank")
    assert value(table, "nearest sentence", "exact_match") == 0, "the own sentence is not in its pool"


def test_a_finished_cell_is_never_computed_twice_and_a_stopped_sweep_goes_on(run, monkeypatch):
    done = []

    def counting(bench, cell):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(cell.labels()["perturbation"])
        return measure(bench, cell)

    monkeypatch.setattr(module, "measure", counting)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert done == ["no vector", "none"]
    monkeypatch.setattr(module, "measure", lambda bench, cell: done.append(cell) or measure(bench, cell))
    first = run()
    assert [cell.perturbation for cell in done[2:]] == [NOISE]
    monkeypatch.setattr(module, "measure", lambda bench, cell: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(run(), first)


@pytest.mark.parametrize(
    "change",
    [
        {"perturbations": [perturb.GaussianNoise(0.021)]},
        {"decodings": {"1 step": {"num_steps": 1, "guidance_scale": 2.0}}},
        {"decodings": {"1 step": lambda p: {"num_steps": 1, "temperature": p.strength}}},
        {"seeds": (1,)},
        {"texts": ["Another text.", "And one more.", "A third one, longer."]},
    ],
    ids=["strength", "option", "option of the perturbation", "seed", "texts"],
)
def test_whatever_a_cell_depends_on_makes_another_cell(run, monkeypatch, change):
    run(reference=False)
    monkeypatch.setattr(module, "measure", lambda bench, cell: pytest.fail("computed again"))
    run(reference=False)
    with pytest.raises(pytest.fail.Exception):
        run(reference=False, **change)


def test_other_weights_make_another_cell(inverter, sentences):
    weights = inverter.model.state_dict()
    changed = {**weights, "cond_proj.0.bias": weights["cond_proj.0.bias"] + 1}
    other = invlib.checkpoint.assemble(inverter.config, changed, Path("changed"))
    mine = Bench(inverter, sentences).identity
    theirs = Bench(invlib.Inverter(other, inverter.tokenizer, inverter.encoder), sentences).identity
    assert {key for key in mine if mine[key] != theirs[key]} == {"weights"}


def test_records_are_counted_for_their_secrets(inverter, sentences, tmp_path):
    records = [Record(text, (Secret("name", text.split()[1]),)) for text in sentences[:3]]
    bench = Bench(inverter, [*records, Record(sentences[4], ())])
    rows = {row["metric"]: row for row in bench.score(bench.texts, bench.vectors)}
    assert rows["leaked name"]["value"] == rows["leaked all"]["value"] == 1 and rows["leaked all"]["n"] == 3
    assert rows["leaked all"]["low"] < 1, "Wilson's"
    table = sweep(inverter, records, [], decodings=ONE_STEP, cache=tmp_path, progress=False)
    assert value(table, "shuffled embeddings", "leaked all") == 0


def test_an_empty_text_ranks_last_and_has_no_cosine(inverter, sentences):
    bench = Bench(inverter, sentences)
    vectors = bench.vectors.copy()
    vectors[0] = 0
    rows = {row["metric"]: row["value"] for row in bench.score(["", *sentences[1:]], vectors)}
    n = len(sentences)
    assert rows["cosine"] == pytest.approx((n - 1) / n)
    assert rows["rank"] == pytest.approx((n + n - 1) / n)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": ["One.", "Two."]}, "needs at least 3 texts, got 2"),
        ({"texts": ["One.", "Two.", " "]}, "text 2 is ' '"),
        ({"seeds": ()}, "at least one perturbation .*, one decoding and one seed"),
        ({"decodings": {"odd": {"num_steps": 1, "policy": lambda p: p}}}, "cannot name a cell"),
        ({"cache": "/dev/null/cells"}, "could not be written"),
    ],
)
def test_what_cannot_be_swept_is_said_in_one_line(run, options, message):
    with pytest.raises(InputError, match=message):
        run(**options)


@dataclasses.dataclass(frozen=True)
class Broken(perturb.Perturbation):
    """One that a user has written, and wrongly."""

    name, measure, strength = "broken", "nothing", 1

    def _store(self, vectors, random):
        return vectors * np.nan


def test_a_perturbation_that_returns_nan_ends_the_sweep_in_one_line(run):
    with pytest.raises(InputError, match="broken at strength 1 makes row 0 infinite or NaN"):
        run([Broken()])


def test_a_damaged_cell_is_named(run, tmp_path):
    run()
    path = next((tmp_path / "cells").glob("*.json"))
    path.write_text(path.read_text()[:50])
    with pytest.raises(InputError, match=f"{path.name} is not a finished cell .*; delete it"):
        run()


def test_a_cell_without_a_perturbation_does_not_hear_the_vector(inverter, sentences):
    bench = Bench(inverter, sentences)
    rows = measure(bench, Cell(None, "1 step", {"num_steps": 1, "length": 5}, 0))
    assert {row["attacker"] for row in rows} == {"unconditional prior"}
    (length,) = [row["value"] for row in rows if row["metric"] == "token_f1"]
    bench.vectors = bench.vectors[::-1].copy()
    again = measure(bench, Cell(None, "1 step", {"num_steps": 1, "length": 5}, 0))
    assert [row["value"] for row in again if row["metric"] == "token_f1"] == [length]


# --- the encoder and the independent embedder


@pytest.mark.parametrize("change", [{"prompt": "query: "}, {"dim": 100}, {"dtype": torch.bfloat16}])
def test_another_state_of_the_encoder_makes_another_cell(inverter, sentences, change):
    mine = Bench(inverter, sentences).identity
    other = invlib.Inverter(inverter.model, inverter.tokenizer, Encoder.load("minilm", **change))
    theirs = Bench(other, sentences).identity
    assert mine.pop("encoder") != theirs.pop("encoder") and mine == theirs


def test_the_independent_embedder_sees_words_and_no_order(inverter, sentences):
    bench = Bench(inverter, sentences)
    truth, turned, other, unknown = bench.independent.transform(
        [sentences[0], " ".join(reversed(sentences[0].split())), sentences[9], "zzz qqq"]
    )
    assert cosine(truth[None], turned[None]) == pytest.approx(1)
    assert cosine(truth[None], other[None]) < 0.5 and not unknown.any()
    rows = {row["metric"]: row["value"] for row in bench.score(["zzz", *sentences[1:]], bench.vectors)}
    assert rows["independent_cosine"] == pytest.approx((len(sentences) - 1) / len(sentences)), "0 without a known word"


def test_what_is_no_perturbation_is_told():
    with pytest.raises(InputError, match="a sweep takes perturbations .* got 0.02"):
        list(module._grid([0.02], ONE_STEP, (0,), True))
