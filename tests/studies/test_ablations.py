"""Ablations: equal compute, one change at a time, and a table that is never computed twice."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from invlib.config import Config, ModelConfig, load_config
from invlib.inverter import Inverter
from invlib.model import ConditionalMDLM
from invlib.studies import ablations
from invlib.studies.__main__ import main
from invlib.studies.ablations import changed, nats_per_character

ROOT = Path(__file__).parents[2]
POST_NORM = ModelConfig(
    *(2304, 16, 32, 2, 4, 48, 384, 4, "minilm", "pruned"),
    gate=True,
    post_norm=True,
    length_head=True,
    length_dim=8,
    tie_embeddings=True,
    null_embedding=True,
    standardize=True,
)


def randomized(model: ConditionalMDLM) -> ConditionalMDLM:
    random = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=random)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[Config, Path]:
    """A base of a few thousand weights, in its file."""
    folder = tmp_path_factory.mktemp("ablations")
    values = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    values["model"].update(post_norm=True, length_dim=16, noise_condition=True)
    values["training"].update(mixed_precision=False, noise_share=0.2)
    values["data"]["data_dir"] = str(folder / "pairs")
    (folder / "base.yaml").write_text(yaml.safe_dump(values))
    return load_config(folder / "base.yaml"), folder / "base.yaml"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "sentences.txt"
    lines = [f"the {a} dog {v} the {b} river" for a in "abcdef" for b in "ghijkl" for v in ("sees", "finds", "likes")]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@torch.inference_mode()
def test_nats_per_character_are_those_of_a_straight_computation(minilm, pruned, sentences):
    model = randomized(ConditionalMDLM(dataclasses.replace(POST_NORM, max_seq_len=32)))
    texts, inverter = sentences[:3], Inverter(model, pruned, minilm)
    vectors, generator = minilm.encode(texts), torch.Generator().manual_seed(5)
    nats = 0.0
    for text, vector in zip(texts, vectors, strict=True):
        (ids,) = pruned.encode([text])
        u = torch.rand((), generator=generator, dtype=torch.float64)
        count = int(torch.ceil(u * len(ids)))
        chosen = torch.rand(1, len(ids), generator=generator)[0].argsort()[:count]
        xt = torch.tensor([ids])
        xt[0, chosen] = 4
        logits = model(xt, model.modulation(torch.from_numpy(vector[None])))
        logits[:, 4] = -torch.inf
        wanted = torch.tensor(ids)[(xt[0] == 4).nonzero()[:, 0]]
        nats += len(ids) * torch.nn.functional.cross_entropy(logits, wanted).item()
    expected = nats / sum(map(len, texts))
    assert nats_per_character(inverter, texts, vectors, seed=5) == pytest.approx(expected, rel=1e-4)


def test_every_variant_is_a_valid_change_of_the_bundled_configuration():
    bundled = load_config(ROOT / "configs/minilm.yaml")
    runs = {name: changed(bundled, keys) for name, (_, keys) in ablations.VARIANTS.items()}
    base_run = runs.pop("base")
    assert base_run.training.noise_share == 0 and not base_run.model.noise_condition
    assert all(run != base_run for run in runs.values())


def test_a_run_ends_with_its_compute_and_another_call_goes_on_with_what_is_missing(
    base, corpus, tmp_path, monkeypatch, capsys
):
    trained, train = [], ablations.train_variant
    monkeypatch.setattr(ablations, "VARIANTS", {"base": ("-", {}), "other": ("-", {"num_layers": 1})})
    monkeypatch.setattr(ablations, "train_variant", lambda name, *rest: (trained.append(name), train(name, *rest))[1])
    out, arguments = tmp_path / "ablations.csv", ["ablations", "--text", str(corpus), "--valid", str(corpus)]
    arguments += ["--config", str(base[1]), "--limit", "6", "--tflop", "0.001", "--out"]
    assert main([*arguments, str(out)]) == 0
    table = pd.read_csv(out)
    bundled = pd.read_csv(ROOT / "data/checkpoints/minilm/ablations.csv", nrows=0)
    assert list(table.columns) == list(bundled.columns)
    assert table["variant"].tolist() == ["base"] * 3 + ["other"] * 3
    for _, own in table.groupby("variant"):
        assert (own["tflop"] >= np.array([1, 2, 3]) * 0.001 / 3 - 5e-5).all() and own["samples"].is_monotonic_increasing
    last = table.groupby("variant")["samples"].last()
    assert last["other"] > last["base"], "a smaller model sees more for the same compute"
    table[table["variant"] == "base"].to_csv(out, index=False)
    assert main([*arguments, str(out)]) == 0
    assert trained == ["base", "other", "other"] and len(pd.read_csv(out)) == 6
    for change in (["--limit", "5"], ["--tflop", "0.5"]):
        assert main([*arguments, str(out), *change]) == 2
        assert "holds runs of 0 TFLOP scored on 6 sentences" in capsys.readouterr().err
