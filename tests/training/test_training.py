"""Training: the whole command on a tiny model, killed and resumed, alone and in parallel."""

import dataclasses
import os
import shutil
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
from torch.utils._python_dispatch import TorchDispatchMode

from invlib.config import load_config
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.model import ConditionalMDLM
from invlib.training import __main__ as command
from invlib.training import loop as training
from invlib.training.batches import EqualLengthBatches, Mix, make_batch
from invlib.training.pairs import Pairs
from invlib.training.trainer import Trainer, learning_rate_factor

ROOT = Path(__file__).parents[2]
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
        path = folder / ("-".join(f"{k}{v}" for k, v in changes.items()).replace("/", "_") + "tiny.yaml")
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def train(config: Path, corpus: Path, out: Path) -> int:
    return command.main(["--config", str(config), "--text", str(corpus), "--out", str(out)])


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
    config = load_config(ROOT / "configs/tiny.yaml").training
    np.testing.assert_allclose(log["lr"], [config.lr * learning_rate_factor(k - 1, config) for k in log["step"]])
    assert load_file(uninterrupted / "model.safetensors")["token_embed.weight"].dtype == torch.bfloat16


def test_a_run_that_dies_between_checkpoints_resumes_to_the_same_weights(
    uninterrupted, tiny, corpus, tmp_path, monkeypatch
):
    update = Trainer.update

    def dies_in_step_7(trainer, *given):
        if trainer.step == 6:
            raise KeyboardInterrupt
        return update(trainer, *given)

    monkeypatch.setattr(Trainer, "update", dies_in_step_7)
    assert train(tiny(), corpus, tmp_path) == 130
    assert final_state(tmp_path)["step"] == 4
    monkeypatch.undo()
    assert train(tiny(), corpus, tmp_path) == 0
    assert_same_weights(final_state(uninterrupted), final_state(tmp_path), **EXACT)
    logs = [
        pd.read_csv(out / "log.csv")[["step", "samples", "lr", "loss", "token_f1"]] for out in (uninterrupted, tmp_path)
    ]
    pd.testing.assert_frame_equal(*logs)


def test_a_killed_process_resumes_to_the_same_weights(uninterrupted, tiny, corpus, tmp_path):
    command = [sys.executable, "-m", "invlib.training", "--config", str(tiny()), "--text", str(corpus)]
    # As many threads as here: how a sum is split is part of its bits.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([*command, "--out", str(tmp_path)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    while not (tmp_path / "state.pt").is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert train(tiny(), corpus, tmp_path) == 0
    assert_same_weights(final_state(uninterrupted), final_state(tmp_path), **EXACT)


def test_two_processes_train_the_same_model_as_one(uninterrupted, tiny, corpus, tmp_path):
    # Not `accelerate launch --cpu`: without MPI it starts a single process and says nothing.
    script = tmp_path / "two.py"
    script.write_text(
        "from accelerate import Accelerator\nfrom invlib.training import __main__ as training\n"
        "assert Accelerator().num_processes == 2\nraise SystemExit(training.main())\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    arguments = ["--config", str(tiny()), "--text", str(corpus), "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*launch, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
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


def test_another_validation_does_not_continue_a_run(uninterrupted, tiny, corpus, tmp_path, capsys):
    """With a text of its own the run would train on what it held out before."""
    values, config = yaml.safe_load(tiny().read_text()), tmp_path / "other.yaml"
    values["data"]["data_dir"] = str(tmp_path)
    config.write_text(yaml.safe_dump(values))
    arguments = ["--config", str(config), "--text", str(corpus), "--valid", str(corpus), "--out", str(uninterrupted)]
    assert command.main(arguments) == 2
    assert "validation: None → " in capsys.readouterr().err


def test_a_damaged_state_is_told_with_what_to_do(uninterrupted, tiny, corpus, tmp_path, capsys):
    shutil.copytree(uninterrupted, tmp_path / "run")
    with open(tmp_path / "run" / "state.pt", "r+b") as file:
        file.truncate(2000)
    assert train(tiny(), corpus, tmp_path / "run") == 2
    assert "state.pt is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("new_pairs", [False, True], ids=["same pairs folder", "new pairs folder"])
def test_another_corpus_does_not_continue_a_run(uninterrupted, tiny, tmp_path, capsys, new_pairs):
    other, config = tmp_path / "other.txt", tmp_path / "other.yaml"
    other.write_text("the river sees the teacher.\n" * 3)
    values = yaml.safe_load(tiny().read_text())
    values["data"]["data_dir"] = str(tmp_path) if new_pairs else values["data"]["data_dir"]
    config.write_text(yaml.safe_dump(values))
    assert train(config, other, uninterrupted) == 2
    message = capsys.readouterr().err
    assert "corpus_sha256" in message and ("holds a run with other settings" in message) == new_pairs


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
    batches = EqualLengthBatches(pairs.lengths, Mix([rows], [1.0], 0), batch_size=8)
    losses = [trainer.update([make_batch(pairs, batches, n, config, accelerator)])[0] for n in range(8)]
    trainer.step = 0  # keeps the learning rate up
    for n in range(8, 150):
        trainer.step = 4
        losses.append(trainer.update([make_batch(pairs, batches, n, config, accelerator)])[0])
    assert np.mean(losses[:3]) > 5
    assert np.median(losses[-30:]) < 0.5  # one that masks little weighs many times as much as its neighbours


@pytest.fixture
def beginning(tiny, uninterrupted):
    """Write a configuration; get its pairs, two batches of it, and a function that makes the same fresh trainer."""

    def begin(**changes):
        dropout = changes.pop("dropout", 0.0)
        config, accelerator = load_config(tiny(**changes)), Accelerator(cpu=True)
        pairs = Pairs(Path(config.data.data_dir) / "train")
        batches = EqualLengthBatches(pairs.lengths, Mix([np.arange(len(pairs))], [1.0], 0), config.training.batch_size)
        model_config = dataclasses.replace(config.model, dropout=dropout)

        def fresh() -> Trainer:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = ConditionalMDLM(model_config)
                for weight in model.parameters():
                    torch.nn.init.normal_(weight, std=0.1)
                return Trainer(model, config.training, accelerator)

        return pairs, [make_batch(pairs, batches, n, config, accelerator) for n in (0, 1)], fresh

    return begin


@pytest.mark.parametrize("weighting", ["nelbo", "low_variance"])
def test_the_losses_that_are_told_are_those_of_the_batch(beginning, weighting):
    _, (batch, _), fresh = beginning(weighting=weighting)
    model, masked = fresh().model, batch.xt == 4
    with torch.no_grad():
        logits = model(batch.xt, model.modulation(batch.embedding, batch.dropped)).index_fill(
            1, torch.tensor([4]), -torch.inf
        )
        token_loss = torch.zeros(masked.shape)
        token_loss[masked] = torch.nn.functional.cross_entropy(logits, batch.x0[masked], reduction="none")
        weight = 1 / masked.sum(dim=1) if weighting == "nelbo" else torch.full((len(masked),), 2 / masked.shape[1])
        right_length = model.length_logits(batch.any_embedding).log_softmax(dim=1)[
            range(len(masked)), batch.any_length - 1
        ]
    expected = (token_loss.sum(dim=1) * weight).mean().item(), -right_length.mean().item()
    assert fresh().update([batch]).tolist() == pytest.approx(expected, rel=1e-4)


def gradients_of(trainer, batches, monkeypatch) -> torch.Tensor:
    """What the optimisers are given, in one long vector."""
    seen = []
    step = trainer.optimizers[0].step
    with monkeypatch.context() as patch:
        patch.setattr(
            trainer.optimizers[0], "step", lambda: (seen.extend(w.grad.clone() for w in trainer.masters), step())
        )
        trainer.update(batches)
    return torch.cat([gradient.flatten() for gradient in seen])


def test_accumulated_gradients_are_the_mean_and_are_clipped(beginning, monkeypatch):
    _, (one, other), fresh = beginning(max_grad_norm=1e9)
    first, second, both = (gradients_of(fresh(), batches, monkeypatch) for batches in ([one], [other], [one, other]))
    torch.testing.assert_close(both, (first + second) / 2)
    _, _, clipping = beginning(max_grad_norm=0.01)
    assert gradients_of(clipping(), [one], monkeypatch).norm() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_average_follows_the_weights_and_the_worker_is_their_copy(beginning, bf16):
    trainer = beginning()[2]()
    if bf16:
        trainer = Trainer(
            trainer.model, dataclasses.replace(trainer.config, mixed_precision="bf16"), trainer.accelerator
        )
    batches = beginning()[1]
    expected = [weight.clone() for weight in trainer.ema.parameters()]
    for step in (1, 2):
        trainer.update([batches[0]])
        decay = (1 + step) / (10 + step)
        expected = [
            decay * old + (1 - decay) * new.detach() for old, new in zip(expected, trainer.masters, strict=True)
        ]
    for found, wanted in zip(trainer.ema.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    for weight, master in zip(trainer.worker.parameters(), trainer.masters, strict=True):
        assert torch.equal(weight, master.bfloat16() if bf16 else master)


def test_dropout_depends_on_the_step_and_leaves_the_global_generator_alone(beginning):
    _, (batch, _), fresh = beginning(dropout=0.5)
    before = torch.random.get_rng_state()
    losses = [fresh().update([batch])[0], fresh().update([batch])[0]]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert losses == [fresh().update([batch])[0]] * 2
    later = fresh()
    later.step = 1
    assert later.update([batch])[0] != losses[0]


def test_a_batch_pairs_every_sentence_with_its_own_vector_and_drops_some(beginning):
    pairs, batches, _ = beginning(condition_dropout=0.5)
    own = {
        tuple(ids[:n]): (v, n) for ids, n, v in zip(pairs.tokens.tolist(), pairs.lengths, pairs.embeddings, strict=True)
    }
    for batch in batches:
        for ids, vector in zip(batch.x0.tolist(), batch.embedding, strict=True):
            np.testing.assert_array_equal(own[tuple(ids)][0].astype(np.float32), vector)
        lengths = {v.astype(np.float32).tobytes(): n for v, n in own.values()}
        assert [lengths[v.numpy().tobytes()] for v in batch.any_embedding] == batch.any_length.tolist()
    assert 0.25 < torch.cat([batch.dropped for batch in batches]).float().mean() < 0.75


def test_a_batch_is_the_same_whether_its_pairs_lie_on_a_disk_or_on_the_device(beginning, tiny):
    pairs, batches, _ = beginning()
    config, device = load_config(tiny()), torch.device("cpu")
    cut = EqualLengthBatches(pairs.lengths, Mix([np.arange(len(pairs))], [1.0], 0), config.training.batch_size)
    again = make_batch(pairs.on(device), cut, 1, config, Accelerator(cpu=True))
    for field in dataclasses.fields(again):
        one, other = (getattr(batch, field.name) for batch in (batches[1], again))
        assert one is other is None or one == other if not torch.is_tensor(one) else torch.equal(one, other), field.name
    assert torch.equal(again.places, (again.xt == 4).flatten().nonzero()[:, 0])


class Questions(TorchDispatchMode):
    """Notes the operations whose result, or its size, the host waits for."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount", "repeat_interleave")

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        index = args[1] if name in ("index", "index_put_", "_index_put_impl_") else ()
        if name in self.WAITING or any(i is not None and i.dtype == torch.bool for i in index):
            self.asked.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("weighting", ["nelbo", "low_variance"])
def test_a_step_asks_the_device_for_nothing(beginning, tiny, weighting):
    pairs, _, fresh = beginning(weighting=weighting)
    loaded = load_config(tiny(weighting=weighting))
    training_config = dataclasses.replace(loaded.training, mixed_precision="bf16", noise_share=0.2)
    config = dataclasses.replace(
        loaded, training=training_config, model=dataclasses.replace(loaded.model, noise_condition=True)
    )
    trainer = Trainer(ConditionalMDLM(config.model), config.training, Accelerator(cpu=True))
    cut = EqualLengthBatches(pairs.lengths, Mix([np.arange(len(pairs))], [1.0], 0), config.training.batch_size)
    batch = make_batch(pairs.on(torch.device("cpu")), cut, 0, config, trainer.accelerator)
    trainer.update([batch])  # the first step of a kind is counted, which is slow in any case
    with Questions() as questions:
        trainer.update([batch])
    assert questions.asked == []
    with Questions() as questions:
        trainer.update([dataclasses.replace(batch, places=None)])
    assert questions.asked, "these would be seen"


def test_compiled_blocks_train_alike_and_a_new_length_compiles_nothing(beginning):
    _, (one, other), fresh = beginning()
    plain, compiled = fresh(), fresh()
    compiled.compile(one, backend="aot_eager")
    frames = torch._dynamo.utils.counters["frames"]["total"]
    assert one.x0.shape != other.x0.shape and frames > 0
    for batch in (one, other, one):  # first counted, then compiled
        torch.testing.assert_close(compiled.update([batch]), plain.update([batch]))
    assert torch._dynamo.utils.counters["frames"]["total"] == frames
    assert compiled.state_dict()["model"].keys() == plain.state_dict()["model"].keys()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at it
def test_where_nothing_can_be_compiled_training_says_so_and_goes_on(beginning, capsys):
    _, (batch, _), fresh = beginning()
    plain, other = fresh(), fresh()

    def broken(graph, inputs):
        raise RuntimeError("no compiler\nat all")

    other.compile(batch, backend=broken)
    told = capsys.readouterr().err
    assert told.startswith("the blocks are not compiled: ") and told.count("\n") == 1
    torch.testing.assert_close(other.update([batch]), plain.update([batch]))


def test_micro_batches_are_numbered_through_the_run(beginning, tiny, monkeypatch):
    pairs, _, fresh = beginning()
    config, seen = load_config(tiny(grad_accum=3)), []
    monkeypatch.setattr(
        training, "make_batch", lambda p, b, number, *rest: (seen.append(number), make_batch(p, b, number, *rest))[1]
    )
    trainer = fresh()
    trainer.step = config.training.max_steps - 2
    steps = [record["step"] for record in training.training_loop(trainer, pairs, np.arange(len(pairs)), config)]
    assert steps == [11, 12] and seen == [30, 31, 32, 33, 34, 35]


def test_muon_takes_the_hidden_matrices_and_only_matrices_decay(beginning):
    trainer = beginning()[2]()
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    adamw, muon = ([[names[id(w)] for w in group["params"]] for group in o.param_groups] for o in trainer.optimizers)
    assert sorted(muon[0]) == sorted(
        f"blocks.{n}.{name}"
        for n in (0, 1)
        for name in ("attn.in_proj_weight", "attn.out_proj.weight", "ff.0.weight", "ff.3.weight")
    )
    assert sorted(adamw[0] + adamw[1] + muon[0]) == sorted(names.values())
    decaying, free = trainer.optimizers[0].param_groups
    assert decaying["weight_decay"] > 0 and {w.ndim for w in decaying["params"]} == {2}
    assert free["weight_decay"] == 0 and {w.ndim for w in free["params"]} == {1}


@pytest.fixture
def started(monkeypatch):
    """What a started run would train with, without training."""
    seen = {}
    monkeypatch.setattr(
        training, "train", lambda run, *data, **options: seen.update(run=run, training=data[0], validation=data[1])
    )
    return seen


def test_held_out_sentences_are_not_trained_on(started, tiny, corpus, tmp_path, uninterrupted):
    assert train(tiny(), corpus, tmp_path) == 0
    rows, held = started["training"][1], started["validation"][1]
    assert len(held) == round(0.1 * 336) and sorted([*rows, *held]) == list(range(336))


def test_with_valid_the_whole_corpus_is_trained_on(started, tiny, corpus, tmp_path, uninterrupted):
    valid = tmp_path / "valid.txt"
    valid.write_text("a nurse paints the red garden.\n" * 2 + "the sailor finds a letter today.\n")
    arguments = ["--config", str(tiny()), "--text", str(corpus), "--out", str(tmp_path / "out"), "--valid", str(valid)]
    assert command.main(arguments) == 0
    assert started["training"][1].tolist() == list(range(336))
    assert len(started["validation"][0]) == len(started["validation"][1]) <= 3


def test_the_embedding_statistics_are_those_of_the_pairs(started, tiny, corpus, tmp_path, uninterrupted):
    assert train(tiny(), corpus, tmp_path) == 0
    vectors, model = started["training"][0].embeddings.astype(np.float32), started["run"].trainer.model
    np.testing.assert_allclose(model.embedding_mean, vectors.mean(axis=0), atol=1e-5)
    std = vectors.std(axis=0)  # the three dead coordinates are raised; see initial.without_dead
    np.testing.assert_allclose(model.embedding_std, std.clip(min=np.median(std) / 10), rtol=1e-3, atol=1e-5)


def test_a_token_table_of_another_width_is_refused(tiny, corpus, tmp_path, uninterrupted, capsys):
    assert train(tiny(tokens_from_encoder=True), corpus, tmp_path) == 2
    assert "needs hidden_dim 384" in capsys.readouterr().err


def test_validation_inverts_unseen_vectors_from_all_masks(tiny, uninterrupted, monkeypatch):
    pairs = Pairs(Path(load_config(tiny()).data.data_dir) / "train")
    inverter, rows, scored = Inverter.load(uninterrupted), np.arange(5, 40), []
    token_f1 = training.metrics.token_f1
    monkeypatch.setattr(training.metrics, "token_f1", lambda *both: (scored.append(both), token_f1(*both))[1])
    scores = training.validate(inverter.model, pairs, rows, inverter.tokenizer)
    references, texts = map(list, zip(*scored, strict=True))
    assert references == [inverter.tokenizer.decode(pairs.tokens[row, : pairs.lengths[row]]) for row in rows]
    assert texts == inverter.invert(pairs.embeddings[rows], num_steps=8).texts
    right = inverter.predict_lengths(pairs.embeddings[rows]) == pairs.lengths[rows]
    assert scores["length_right"] == pytest.approx(right.mean())
    table = training.metrics.per_text(references, texts)
    assert [scores[name] for name in ("token_f1", "exact_match")] == pytest.approx(
        table[["token_f1", "exact_match"]].mean().tolist()
    )


def test_the_length_head_can_be_trained_alone(tiny, corpus, uninterrupted, tmp_path):
    values, config = yaml.safe_load(tiny().read_text()), tmp_path / "length.yaml"
    changes = {"start_from": str(uninterrupted), "trained": "length_head.*", "weight_decay": 0.5, "max_steps": 6}
    config.write_text(yaml.safe_dump({**values, "training": values["training"] | changes}))
    assert train(config, corpus, tmp_path) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (uninterrupted, tmp_path))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("length_head.")}
    log = pd.read_csv(tmp_path / "log.csv")
    assert (log["loss"] == 0).all() and log["length_loss"].iloc[-1] < log["length_loss"].iloc[0]


def test_a_length_head_that_is_trained_alone_starts_anew(tiny, corpus, uninterrupted, tmp_path):
    changes = {"trained": "length_head.*", "lr": 1e-12, "max_steps": 1, "start_from": str(uninterrupted)}
    assert train(tiny(**changes), corpus, tmp_path) == 0
    before, after = (
        load_file(path / "model.safetensors")["length_head.0.weight"] for path in (uninterrupted, tmp_path)
    )
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize(
    ("training", "model", "message"),
    [
        ({"trained": "length_head.*"}, {}, "name it in start_from"),
        ({"adam_lr": 0.0}, {}, "adam_lr must be a finite number > 0"),
    ],
)
def test_what_cannot_be_trained_so_is_refused(tiny, tmp_path, training, model, message):
    values = yaml.safe_load(tiny().read_text())
    values["training"].update(training)
    values["model"].update(model)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(("length_only", "best"), [(False, 1), (True, 2)])
def test_the_best_average_is_what_stays(tiny, corpus, uninterrupted, tmp_path, monkeypatch, length_only, best):
    scores, averages = iter([(0.2, 0.2), (0.5, 0.3), (0.3, 0.4)]), []
    changes = {"trained": "length_head.*", "start_from": str(uninterrupted)} if length_only else {}

    def validate(model, *_):
        averages.append({name: value.clone() for name, value in model.state_dict().items()})
        return dict(zip(("token_f1", "length_right"), next(scores), strict=True))

    monkeypatch.setattr(training, "validate", validate)
    assert train(tiny(**changes), corpus, tmp_path) == 0
    kept = load_file(tmp_path / "model.safetensors")["length_head.0.weight"]
    is_kept = [torch.equal(kept, average["length_head.0.weight"].bfloat16()) for average in averages]
    assert is_kept == [number == best for number in range(3)]


def test_every_row_is_seen_once_an_epoch_in_batches_of_one_length():
    lengths = np.array([4] * 6 + [5] * 3 + [9] * 10)  # without the first row: one of length 4 is left over
    rows = np.arange(1, 19)
    batches = EqualLengthBatches(lengths, Mix([rows], [1.0], 0), batch_size=4)
    per_epoch = 2 + 1 + 3
    epochs = [[batches.rows(epoch * per_epoch + n) for n in range(per_epoch)] for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(np.concatenate(epoch)) == rows.tolist()
        assert all(len(set(lengths[batch])) == 1 for batch in epoch)
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    again = EqualLengthBatches(lengths, Mix([rows], [1.0], 0), batch_size=4)
    assert np.array_equal(again.rows(per_epoch + 1), epochs[1][1]), "a batch depends on its number alone"


def test_what_is_left_over_of_a_length_is_spread_over_its_batches():
    cut = EqualLengthBatches(np.full(9, 5), Mix([np.arange(9)], [1.0], 0), batch_size=4)
    assert sorted(len(cut.rows(number)) for number in range(3)) == [3, 3, 3]


def test_a_mix_shows_every_group_its_share_and_no_row_twice_before_all_of_its_group():
    groups = [np.arange(30), np.arange(30, 50), np.arange(50, 250)]
    mix = Mix(groups, [0.2, 0.2, 0.6], seed=1)
    epochs = [mix.rows(epoch) for epoch in range(6)]
    assert [len(epoch) for epoch in epochs] == [100] * 6, "20 rows of the group that is used up first are a fifth"
    for group, share in zip(groups, (20, 20, 60), strict=True):
        assert all(np.isin(epoch, group).sum() == share for epoch in epochs)
        seen = np.concatenate(epochs)
        times = np.bincount(seen[np.isin(seen, group)], minlength=250)[group]
        assert times.max() - times.min() <= 1
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(mix.rows(3), epochs[3])


def test_a_mix_by_source_takes_the_first_pattern_that_fits():
    sourced = object.__new__(Pairs)  # ten sentences of each of three sources, as far as a mix reads them
    sourced.source_names, sourced.sources = ["novels/a", "docs/b", "chat"], np.repeat([0, 1, 2], 10)
    mix = Mix.by_source(sourced, np.arange(30), {"novels/*": 0.25, "*": 0.75}, seed=0)
    assert [sorted(group) for group in mix.groups] == [list(range(10)), list(range(10, 30))]
    assert np.isin(mix.rows(0), np.arange(10)).mean() == pytest.approx(0.25, abs=0.02)
    with pytest.raises(InputError, match="no sentence has a source that fits 'film\\*'"):
        Mix.by_source(sourced, np.arange(30), {"film*": 0.5, "*": 0.5}, seed=0)


def test_a_run_may_be_given_more_text_but_not_other_text(uninterrupted, tiny, corpus, tmp_path, capsys):
    shutil.copytree(uninterrupted, tmp_path / "run")
    more = tmp_path / "more.txt"
    more.write_text("".join(f"the small {o} was seen by a {s}.\n" for s in SUBJECTS for o in OBJECTS))
    arguments = ["--config", str(tiny(max_steps=14)), "--out", str(tmp_path / "run"), "--text"]
    assert command.main([*arguments, str(corpus), str(more)]) == 0
    assert final_state(tmp_path / "run")["step"] == 14
    assert command.main([*arguments, str(more)]) == 2
    assert "was built with corpus_sha256" in capsys.readouterr().err


def test_a_cooldown_branches_off_and_leaves_the_run_where_it_was(uninterrupted, tiny, corpus, tmp_path, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    before, config = (out / "state.pt").read_bytes(), tiny()
    arguments = ["--config", str(config), "--text", str(corpus), "--out", str(out), "--cooldown", "6"]
    update = Trainer.update

    def stops_in_step_17(trainer, *given):
        if trainer.step == 16:
            raise KeyboardInterrupt
        return update(trainer, *given)

    monkeypatch.setattr(Trainer, "update", stops_in_step_17)
    assert command.main(arguments) == 130
    monkeypatch.undo()
    assert command.main(arguments) == 0, "it is finished first"
    assert (out / "state.pt").read_bytes() == before
    log = pd.read_csv(out / "cooldown" / "log.csv")
    assert log["step"].tolist() == [14, 16, 18]
    top = load_config(config).training
    expected = [top.lr * (1 - (1 - top.min_lr_ratio) * k / 6) for k in (2, 4, 6)]
    np.testing.assert_allclose(log["lr"], expected)
    assert isinstance(Inverter.load(out / "cooldown").invert(np.ones(384)).texts[0], str)


def test_adamw_may_have_a_rate_of_its_own(tiny):
    config = load_config(tiny(adam_lr=0.5)).training
    model = ConditionalMDLM(load_config(tiny()).model)
    adamw, muon = Trainer(model, config, Accelerator(cpu=True)).optimizers
    assert {group["initial_lr"] for group in adamw.param_groups} == {0.5}
    assert {group["initial_lr"] for group in muon.param_groups} == {config.lr}


def test_measured_mask_ratios_of_real_batches_are_uniform(tiny, uninterrupted):
    """What training really sees, not what a formula promises: k uniform on 1 … length."""
    config = load_config(tiny())
    pairs, accelerator = Pairs(Path(config.data.data_dir) / "train"), Accelerator(cpu=True)
    batches = EqualLengthBatches(pairs.lengths, Mix([np.arange(len(pairs))], [1.0], 0), batch_size=16)
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
