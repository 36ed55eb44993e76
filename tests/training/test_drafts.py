"""Drafts that a corrector learns from: what they are, and that a training with them can be killed and goes on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from invlib.config import TrainingConfig, load_config
from invlib.model import ConditionalMDLM
from invlib.tokenizer import Tokenizer
from invlib.training import __main__ as command
from invlib.training import loop
from invlib.training.batches import Batch
from invlib.training.drafts import NOISE, Drafting
from invlib.training.packed import PackedPairs, read_encoder
from tests.training.test_packed import OTHERS, ROOT, TALES, lines


def written(folder: Path, **changes) -> Path:
    """A variant of configs/tiny.yaml with a corrector, in a folder."""
    values = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    values["model"] |= {"corrector_dim": 12, "length_head": True, "noise_condition": True}
    values["training"] |= {"batch_size": 4, "max_steps": 6, "eval_every": 2, "drafts": 10} | changes
    values["data"] = {"data_dir": str(folder / "pairs")}
    path = folder / "corrected.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drafts")
    lines(folder / "texts.jsonl", TALES + OTHERS, "a")
    return folder


def train(place: Path, config: Path, out: Path) -> int:
    return command.main(["--config", str(config), "--text", str(place / "texts.jsonl"), "--out", str(out)])


@pytest.fixture(scope="module")
def kit(place) -> Path:
    """The texts, packed."""
    valid = lines(place / "valid.jsonl", ["the sea sees the sky and the dog."], "a")
    texts = ["--text", str(place / "texts.jsonl"), "--valid", str(valid), "--out", str(place / "kit")]
    assert command.main(["pack", "--config", str(written(place)), *texts]) == 0
    return place / "kit"


def draw(kit: Path, place: Path, number: int, rounds: int, folder: Path, **changes):
    """Drafts of a model drawn at random, and the pairs."""
    encoder, tokenizer = read_encoder(kit / "first", torch.device("cpu")), Tokenizer.load(kit / "first")
    pairs = PackedPairs.build(place / "packed", kit / "second", encoder, tokenizer, 16)
    config = load_config(place / "corrected.yaml")
    torch.manual_seed(0)
    model = ConditionalMDLM(dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size))
    training = dataclasses.replace(config.training, **changes)
    drafting = Drafting(pairs, encoder, tokenizer, folder, training)
    return drafting(model, np.arange(len(pairs)), number, rounds), pairs, encoder, tokenizer


def test_a_hypothesis_is_what_the_encoder_sees_in_the_text(kit, place, tmp_path):
    drafts, pairs, encoder, tokenizer = draw(kit, place, 0, 1, tmp_path)
    heard = drafts.hypotheses
    rows = zip(heard.tokens.tolist(), heard.lengths.tolist(), strict=True)
    texts = [tokenizer.decode(ids[:n]) or "[UNK]" for ids, n in rows]
    expected = encoder.encode(texts)
    assert (expected * heard.vectors.numpy()).sum(axis=1).min() > 1 - 2e-3
    assert len(set(drafts.rows.tolist())) == len(drafts) == 10 and drafts.rows.max() < len(pairs)
    mask = tokenizer.mask_token_id
    assert all(
        ids[n:] == [mask] * (16 - n) for ids, n in zip(heard.tokens.tolist(), heard.lengths.tolist(), strict=True)
    )


def test_later_drafts_are_others_and_a_kept_file_is_the_same_drafts(kit, place, tmp_path):
    first, later = (draw(kit, place, number, 0, tmp_path)[0] for number in (0, 1))
    assert first.rows.tolist() != later.rows.tolist()
    again = draw(kit, place, 0, 0, tmp_path, seed=77)[0]  # read, not drawn: the seed says nothing
    assert again.rows.tolist() == first.rows.tolist()
    for one, same in zip(vars(first.hypotheses).values(), vars(again.hypotheses).values(), strict=True):
        assert torch.equal(one, same)


def test_vectors_of_drafts_are_noisier_than_the_training_hears_them(kit, place, tmp_path, monkeypatch):
    heard = []
    written = Drafting._written

    def listening(self, model, vectors, level, hypothesis, generator):
        heard.append((vectors, level, hypothesis))
        return written(self, model, vectors, level, hypothesis, generator)

    monkeypatch.setattr(Drafting, "_written", listening)
    drafts, pairs, *_ = draw(kit, place, 0, 2, tmp_path)
    (vectors, level, nothing), *rewritten = heard
    clean = torch.from_numpy(pairs.embeddings[drafts.rows].astype(np.float32))
    distance = (vectors - clean).norm(dim=1)
    assert nothing is None and level.min() > 0 and level.max() <= NOISE
    assert torch.corrcoef(torch.stack([distance, level]))[0, 1] > 0.9
    assert len(rewritten) == 2 and all(0 < len(each[0]) < len(drafts) and each[2] is not None for each in rewritten)


def test_every_other_micro_batch_is_of_drafts(place, tmp_path, monkeypatch):
    seen: list[Batch] = []
    make = loop.make_batch
    monkeypatch.setattr(loop, "make_batch", lambda *given: seen.append(make(*given)) or seen[-1])
    assert train(place, written(place), tmp_path / "run") == 0
    corrected = [batch for batch in seen if batch.hypothesis is not None]
    assert len(seen) == 6 and len(corrected) == 3
    for batch in corrected:
        assert len(batch.hypothesis.lengths) == len(batch.x0) and not batch.dropped.any()
        assert len(batch.any_hypothesis.lengths) == len(batch.any_length)
    assert sorted(path.name for path in (tmp_path / "run").glob("drafts-*")) == ["drafts-0.npz", "drafts-1.npz"]
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert weights["corrector.to_condition.weight"].abs().sum() > 0, "it has learnt"


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(place, tmp_path, monkeypatch):
    assert train(place, written(place), tmp_path / "whole") == 0
    steps = iter(range(100))

    def dying(self, *given):
        if next(steps) == 5:
            raise KeyboardInterrupt
        return update(self, *given)

    update = loop.Trainer.update
    monkeypatch.setattr(loop.Trainer, "update", dying)
    assert train(place, written(place), tmp_path / "stopped") != 0
    monkeypatch.setattr(loop.Trainer, "update", update)
    assert train(place, written(place), tmp_path / "stopped") == 0
    one, other = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_damaged_drafts_are_one_line(place, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "drafts-0.npz").write_bytes(b"PK\x03\x04 no")
    assert train(place, written(place), tmp_path / "run") == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ") and "drafts-0.npz is damaged" in told and "delete it" in told


def test_drafts_need_a_corrector(place, tmp_path, capsys):
    values = yaml.safe_load(written(place).read_text())
    del values["model"]["corrector_dim"]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    assert train(place, tmp_path / "c.yaml", tmp_path / "run") == 2
    assert "error: drafts are for a corrector; set corrector_dim" in capsys.readouterr().err
    assert TrainingConfig(4, 1, 1e-3).drafts == 0
