"""The benchmarks: what is compared is the same work, and the output says on what it was measured."""

from pathlib import Path

import pytest
import torch
import yaml

from invlib.config import load_config
from tests.speed import inversion, training

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "sentences.txt"
    lines = [
        f"the {a} dog {v} the {b}{' river' * (n % 3)}" for n, a in enumerate("abcdefgh") for b in "ghij" for v in "xy"
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["low_variance", "nelbo"])
def config(request, tmp_path_factory) -> Path:
    values = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    values["training"]["weighting"] = request.param
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_both_ways_of_training_have_the_same_loss(config, corpus, tmp_path):
    loaded = load_config(config)
    start, pairs = training._start(loaded, corpus.read_text().splitlines(), tmp_path)
    for weight in start.parameters():
        weight.data.add_(0.1)  # no zero left: the vector is heard
    ours, plain = training.losses_of_one_batch(start, loaded, pairs)
    assert plain == pytest.approx(ours, rel=1e-4)


@torch.no_grad()
def test_the_padding_of_the_straightforward_way_is_hidden_and_costs_nothing(config, corpus, tmp_path):
    loaded = load_config(config)
    start, pairs = training._start(loaded, corpus.read_text().splitlines(), tmp_path)
    batch = training.padded(pairs, 0, loaded, training.Accelerator(cpu=True))
    assert batch.x0.shape == (16, 16) and ((batch.x0 == 0) == (batch.xt == 0)).all()
    trainer = training.StraightforwardTrainer(start, loaded.training, training.Accelerator(cpu=True))
    lengths = (batch.x0 != 0).sum(dim=1)
    assert lengths.unique().numel() > 1
    whole = trainer._diffusion_loss(batch)
    parts = [
        trainer._diffusion_loss(
            training.Batch(
                *(batch.x0[i : i + 1, :n], batch.embedding[i : i + 1], None, batch.xt[i : i + 1, :n]),
                *(batch.dropped[i : i + 1], batch.embedding[i : i + 1], None, batch.any_length[i : i + 1]),
                size=1,
            )
        )
        for i, n in enumerate(lengths.tolist())
    ]
    assert float(whole) == pytest.approx(float(sum(parts)) / len(parts), rel=1e-4)


def test_the_training_benchmark_reports_machine_losses_ratio_and_share(config, corpus, capsys):
    arguments = ["--text", str(corpus), "--config", str(config), "--rounds", "2", "--steps", "2"]
    assert training.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("machine: ") and "torch" in lines[0]
    assert [line.partition(":")[0] for line in lines[1:5]] == ["loss of one batch", "ours", "straightforward", "ratio"]
    assert "2 rounds" in lines[4] and "% of the" in lines[5]


def test_the_inversion_benchmark_reports_what_a_person_waits_for(capsys):
    assert inversion.main(["--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "opening the checkpoint:" in out and "16 tokens in 8 steps: median" in out and "one step: median" in out


@pytest.mark.parametrize("module", [training, inversion])
def test_a_mistake_is_one_line(module, capsys, tmp_path):
    arguments = (
        ["--checkpoint", str(tmp_path / "none")] if module is inversion else ["--text", str(tmp_path / "none.txt")]
    )
    assert module.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: no ")
