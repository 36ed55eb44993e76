"""Training: the whole command on a tiny model, killed and resumed, alone and in parallel."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file

from invlib import training
from invlib.batches import EqualLengthBatches, make_batch
from invlib.config import load_config
from invlib.inverter import Inverter
from invlib.model import ConditionalMDLM
from invlib.pairs import Pairs
from invlib.trainer import Trainer, learning_rate_factor

ROOT = Path(__file__).parent.parent
SUBJECTS = ["dog", "cat", "child", "teacher", "farmer", "sailor", "baker", "nurse"]
VERBS = ["sees", "finds", "likes", "follows", "draws", "paints"]
OBJECTS = ["river", "mountain", "garden", "window", "bicycle", "lantern", "letter"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """336 sentences of 5 to 8 tokens, made here."""
    path = tmp_path_factory.mktemp("corpus") / "sentences.txt"
    lines = [
        " ".join(["the", *["old"] * (i % 3), s, v, "the", o]) + "."
        for i, (s, v, o) in enumerate((s, v, o) for s in SUBJECTS for v in VERBS for o in OBJECTS)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Write a variant of configs/tiny.yaml whose pairs live in one shared temporary folder."""
    folder = tmp_path_factory.mktemp("tiny")

    def write(**changes) -> Path:
        values = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
        values["training"].update(changes)
        # Pairs remember the precision of the encoder that made them.
        values["data"]["data_dir"] = str(folder / f"pairs-{values['training']['mixed_precision']}")
        path = folder / ("-".join(f"{k}{v}" for k, v in changes.items()) + "tiny.yaml")
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def train(config: Path, corpus: Path, out: Path) -> int:
    return training.main(["--config", str(config), "--text", str(corpus), "--out", str(out)])


def final_state(out: Path) -> dict:
    return torch.load(out / "state.pt", weights_only=True)["trainer"]


def assert_same_weights(one: dict, other: dict, **tolerance) -> None:
    for part in ("model", "ema"):
        for name, value in one[part].items():
            torch.testing.assert_close(other[part][name], value, **tolerance)


EXACT = {"atol": 0.0, "rtol": 0.0}


@pytest.fixture(scope="module")
def uninterrupted(tiny, corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert train(tiny(), corpus, out) == 0
    return out


def test_a_run_leaves_a_checkpoint_that_inverts(uninterrupted):
    inverter = Inverter.load(uninterrupted)
    vectors = inverter.encoder.encode(["the dog sees the river."])
    assert isinstance(inverter.invert(vectors, num_steps=3).texts[0], str)
    log = pd.read_csv(uninterrupted / "log.csv")
    assert log["step"].tolist() == [2, 4, 6, 8, 10, 12]
    assert log["token_f1"].notna().tolist() == [False, True, False, True, False, True]
    assert load_file(uninterrupted / "model.safetensors")["token_embed.weight"].dtype == torch.bfloat16


def test_a_run_that_dies_between_checkpoints_resumes_to_the_same_weights(
    uninterrupted, tiny, corpus, tmp_path, monkeypatch
):
    update = Trainer.update

    def dies_in_step_7(trainer, batches):
        if trainer.step == 6:
            raise KeyboardInterrupt
        return update(trainer, batches)

    monkeypatch.setattr(Trainer, "update", dies_in_step_7)
    assert train(tiny(), corpus, tmp_path) == 130
    assert final_state(tmp_path)["step"] == 4
    monkeypatch.undo()
    assert train(tiny(), corpus, tmp_path) == 0
    assert_same_weights(final_state(uninterrupted), final_state(tmp_path), **EXACT)
    logs = [pd.read_csv(out / "log.csv")[["step", "loss", "token_f1"]] for out in (uninterrupted, tmp_path)]
    pd.testing.assert_frame_equal(*logs)


def test_a_killed_process_resumes_to_the_same_weights(uninterrupted, tiny, corpus, tmp_path):
    command = [sys.executable, "-m", "invlib.training", "--config", str(tiny()), "--text", str(corpus)]
    process = subprocess.Popen([*command, "--out", str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (tmp_path / "state.pt").is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert train(tiny(), corpus, tmp_path) == 0
    assert_same_weights(final_state(uninterrupted), final_state(tmp_path), **EXACT)


def test_two_processes_train_the_same_model_as_one(uninterrupted, tiny, corpus, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--module",
        "invlib.training",
    ]
    arguments = ["--config", str(tiny()), "--text", str(corpus), "--out", str(tmp_path)]
    done = subprocess.run(
        [*launch, *arguments], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # The order of summation differs, and Muon amplifies rounding: close, not equal.
    assert_same_weights(final_state(uninterrupted), final_state(tmp_path), atol=2e-3, rtol=0)


def test_bf16_trains_on_fp32_masters_and_average(tiny, corpus, tmp_path):
    assert train(tiny(mixed_precision="bf16", max_steps=4), corpus, tmp_path) == 0
    state = final_state(tmp_path)
    assert {value.dtype for part in ("model", "ema") for value in state[part].values()} == {torch.float32}


def test_another_configuration_does_not_continue_a_run(uninterrupted, tiny, corpus, capsys):
    assert train(tiny(lr=0.5), corpus, uninterrupted) == 2
    assert "config.training.lr: 0.003 → 0.5" in capsys.readouterr().err


def test_another_corpus_does_not_continue_a_run(uninterrupted, tiny, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("one quite different sentence here.\n" * 3)
    assert train(tiny(), other, uninterrupted) == 2
    assert "corpus_sha256" in capsys.readouterr().err


def test_a_longer_run_may_continue(uninterrupted, tiny, corpus, tmp_path):
    assert train(tiny(max_steps=4), corpus, tmp_path) == 0
    assert train(tiny(max_steps=6), corpus, tmp_path) == 0
    assert final_state(tmp_path)["step"] == 6


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_batch_can_be_learned_by_heart(tiny, corpus, uninterrupted, optimizer):
    config = load_config(tiny(optimizer=optimizer, condition_dropout=0.0, lr=0.01))
    pairs = Pairs(Path(config.data.data_dir) / "train")
    rows = np.flatnonzero(pairs.lengths == 6)[:8]
    accelerator = Accelerator(cpu=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trainer = Trainer(ConditionalMDLM(config.model), config.training, accelerator)
    batches = EqualLengthBatches(pairs.lengths, rows, batch_size=8, seed=0)
    losses = [trainer.update([make_batch(pairs, batches, n, config, accelerator)])[0] for n in range(8)]
    trainer.step = 0  # keeps the learning rate up
    for n in range(8, 150):
        trainer.step = 4
        losses.append(trainer.update([make_batch(pairs, batches, n, config, accelerator)])[0])
    assert np.mean(losses[:3]) > 5
    assert np.mean(losses[-10:]) < 0.5


def test_every_row_is_seen_once_an_epoch_in_batches_of_one_length():
    lengths = np.array([4] * 7 + [5] * 3 + [9] * 10)
    rows = np.arange(1, 20)
    batches = EqualLengthBatches(lengths, rows, batch_size=4, seed=0)
    epochs = [[batches.rows(epoch * batches.per_epoch + n) for n in range(batches.per_epoch)] for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(np.concatenate(epoch)) == rows.tolist()
        assert all(len(set(lengths[batch])) == 1 for batch in epoch)
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    again = EqualLengthBatches(lengths, rows, batch_size=4, seed=0)
    assert np.array_equal(again.rows(batches.per_epoch + 1), epochs[1][1]), "a batch depends on its number alone"


def test_measured_mask_ratios_of_real_batches_are_uniform(tiny, uninterrupted):
    """What training really sees, not what a formula promises: k uniform on 1 … length."""
    config = load_config(tiny())
    pairs, accelerator = Pairs(Path(config.data.data_dir) / "train"), Accelerator(cpu=True)
    batches = EqualLengthBatches(pairs.lengths, np.arange(len(pairs)), batch_size=16, seed=0)
    ratios = []
    for number in range(300):
        xt = make_batch(pairs, batches, number, config, accelerator).xt
        ratios.extend((xt == config.model.mask_token_id).float().mean(dim=1).tolist())
    length = int(np.bincount(pairs.lengths).argmax())
    assert min(ratios) > 0 and max(ratios) == 1.0
    shares = np.histogram(ratios, bins=4, range=(1e-9, 1 + 1e-9))[0] / len(ratios)
    assert np.abs(shares - 0.25).max() < 0.08, (length, shares)


def test_the_learning_rate_warms_up_stays_and_decays(tiny):
    config = load_config(tiny(warmup_steps=10, max_steps=100, decay_share=0.2, min_lr_ratio=0.1)).training
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9:80] == [1.0] * 71
    assert factors[-1] == pytest.approx(0.1) and np.all(np.diff(factors[79:]) < 0)


def test_a_tokenizer_that_does_not_fit_is_refused(corpus, tmp_path, capsys):
    values = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    values["model"]["mask_token_id"] = 7
    values["data"]["data_dir"] = str(tmp_path / "pairs")
    config = tmp_path / "wrong.yaml"
    config.write_text(yaml.safe_dump(values))
    assert train(config, corpus, tmp_path / "out") == 2
    assert "set mask_token_id to 4" in capsys.readouterr().err


def test_a_missing_corpus_is_one_line(tiny, tmp_path, capsys):
    assert train(tiny(), tmp_path / "absent.txt", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert message.startswith("error: no corpus at") and message.count("\n") == 1
