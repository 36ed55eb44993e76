"""The decoding benchmarks: both ways write the same tokens, and every figure is of the work that it names."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from invlib.config import load_config
from invlib.inverter import check_vectors
from tests.speed import decoding
from tests.speed.decoding import OURS, REFERENCE, Way, reference, summary
from tests.speed.untrained import untrained

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tiny.yaml")


@pytest.fixture(scope="module")
def inverter():
    """Like the published checkpoint: no gates, untied head, no length head."""
    plain = {"gate": False, "tie_embeddings": False, "length_head": False, "null_embedding": False}
    return untrained(dataclasses.replace(load_config(TINY).model, standardize=False, **plain))


@pytest.fixture(scope="module")
def vectors():
    return check_vectors(np.random.default_rng(1).standard_normal((3, 384)), 384)


def test_the_reference_way_and_ours_write_the_same_tokens_in_the_same_schedule(inverter, vectors):
    plain, ours = (Way(name, inverter, 1, 16).decode(vectors) for name in (REFERENCE, OURS))
    assert torch.equal(plain, ours)
    assert (plain != inverter.config.mask_token_id).all()
    assert plain.unique(dim=0).shape == (3, 16), "every vector is heard"
    assert torch.equal(reference(inverter.model, torch.from_numpy(vectors[1])), plain[1])


def test_sharp_weights_leave_no_choice_to_rounding(inverter, vectors):
    steps = list(inverter.steps(vectors, np.full(3, 16), num_steps=16, top_k=2))
    probabilities = torch.stack([step.top_probs for step in steps[1:]])
    asked = probabilities[..., 0] > 0
    assert (probabilities[..., 0] / probabilities[..., 1])[asked].quantile(0.05) > 1.005


def test_fewer_steps_and_bf16_are_compared_with_the_reference_and_cost_fewer_operations(inverter, vectors):
    ways = [Way(REFERENCE, inverter, 1, 16), Way(OURS, inverter, 1, 16), Way(OURS, inverter, 1, 2)]
    found = decoding.changes(ways, vectors)
    assert found["changed"].tolist()[:2] == [0, 0] and 0 < found["changed"].iloc[2] <= 1
    assert found["flops"].is_monotonic_decreasing and found["flops"].nunique() == 3
    config, tokens = inverter.config, 16 * 16  # positions of all calls
    head = 2 * config.hidden_dim * config.vocab_size
    saved = found["flops"].iloc[0] - found["flops"].iloc[1]
    listening = 2 * sum(p.numel() for n, p in inverter.model.named_parameters() if "proj.weight" in n and "adaln" in n)
    listening += 2 * inverter.model.final_norm.proj.weight.numel()
    listening += 2 * sum(p.numel() for n, p in inverter.model.named_parameters() if "cond_proj" in n and p.dim() == 2)
    visible = tokens - 16 * 17 // 2
    assert saved == visible * head + 15 * listening, "the head at visible positions, and the modulation but once"


def test_large_batches_take_part_in_fewer_rounds(inverter):
    ways = [Way(OURS, inverter, batch, 8) for batch in (1, 64, 256)]
    turns = [(turn, way.batch) for turn, way in decoding._turns(ways, 4)]
    assert [batch for _, batch in turns].count(64) == 4 and [batch for _, batch in turns].count(256) == 1
    assert [batch for turn, batch in turns if turn == 0] == [1, 64, 256]


def test_ratios_are_those_within_one_round():
    rows = [
        (0, REFERENCE, 1, 2.0),
        (0, OURS, 8, 8.0),
        (1, REFERENCE, 1, 1.0),
        (1, OURS, 8, 7.0),
        (2, REFERENCE, 1, 3.0),
    ]
    table = pd.DataFrame(rows, columns=["round", "way", "batch", "per_second"])
    found = summary(table.assign(precision="fp32", steps=8, share_of_peak=0.5)).set_index("way").loc[OURS]
    assert (found["ratio"], found["lowest_ratio"], found["highest_ratio"], found["rounds"]) == (5.5, 4, 7, 2)


def test_the_decoding_benchmark_reports_machine_changes_and_a_row_per_way(capsys, tmp_path):
    out = tmp_path / "decoding.csv"
    arguments = ["--config", TINY, "--batches", "1", "3", "--rounds", "2", "--compared", "2", "--steps", "4"]
    assert decoding.main([*arguments, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("machine: ") and "torch" in lines[0]
    assert "random" in lines[2] and "differ from the reference's, 2 vectors" in lines[3]
    table = pd.read_csv(out)
    assert table[["way", "batch", "precision", "steps"]].to_numpy().tolist() == [
        [REFERENCE, 1, "fp32", 16],
        [OURS, 1, "fp32", 16],
        [OURS, 1, "bf16", 4],
        [OURS, 3, "bf16", 4],
    ]
    assert (table["rounds"] == 2).all() and table["ratio"].iloc[0] == 1


def test_the_bundled_weights_are_measured_on_real_sentences(capsys):
    arguments = ["--checkpoint", "minilm", "--batches", "2", "--rounds", "1", "--compared", "2"]
    assert decoding.main(arguments) == 0
    assert "weights: minilm" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--batches", "0"], ["--config", "none.yaml"]])
def test_a_mistake_is_one_line(wrong, capsys):
    assert decoding.main(["--config", TINY, *wrong]) == 2
    assert capsys.readouterr().err.startswith("error: ")
