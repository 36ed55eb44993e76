"""Checkpoints: weights come back as they were, damage is one clear line, and no file ever runs a program."""

import dataclasses
import errno
import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from invlib import checkpoint
from invlib.config import Config, DataConfig, ModelConfig, load_config, to_dict
from invlib.errors import InputError
from invlib.model import ConditionalMDLM

ROOT = Path(__file__).resolve().parent.parent


def random_model(config: ModelConfig, seed: int = 0) -> ConditionalMDLM:
    """A model in which every weight matters: at its own start the modulation is zero."""
    model = ConditionalMDLM(config).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        value.normal_(std=0.2, generator=generator)
        if name == "embedding_std":
            value.abs_().add_(0.1)
    return model


def logits(model: ConditionalMDLM) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    embedding = torch.randn(3, model.config.embedding_cond_dim, generator=generator)
    tokens = torch.randint(5, model.config.vocab_size, (3, model.config.max_seq_len), generator=generator)
    tokens[:, ::2] = model.config.mask_token_id
    return model(tokens, model.modulation(embedding))


@pytest.fixture
def published_config(tiny_config) -> ModelConfig:
    """The published layout's shape: scale and shift only, a separate output projection, no options."""
    options = ("gate", "length_head", "tie_embeddings", "null_embedding", "standardize")
    return dataclasses.replace(tiny_config, **dict.fromkeys(options, False))


@pytest.fixture
def published(published_config) -> dict:
    """What the published training writes, with the averaged weights and a compiled model's names."""
    required = {field.name for field in dataclasses.fields(ModelConfig) if field.default is dataclasses.MISSING}
    values = {name: value for name, value in to_dict(published_config).items() if name in required}
    return {
        "config": {"model": {**values, "dropout": 0.0}, "training": {"lr": 1e-4, "anything": "else"}},
        "step": 200_000,
        "best_val_loss": 2.5,
        "ema_state_dict": random_model(published_config).state_dict(),
    }


@pytest.fixture
def folder(tiny_config, tmp_path) -> Path:
    checkpoint.write(tmp_path / "run", random_model(tiny_config), Config(tiny_config))
    return tmp_path / "run"


def save(contents, path: Path) -> Path:
    torch.save(contents, path)
    return path


# --- our own layout


def test_weights_that_were_written_are_read_equal_to_bf16(tiny_config, folder):
    original = random_model(tiny_config)
    model, config = checkpoint.read(folder)
    assert config == tiny_config and model.dtype == torch.bfloat16
    assert model.state_dict().keys() == original.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, original.state_dict()[name].bfloat16()), name
    assert torch.equal(logits(model), logits(original.bfloat16()))


def test_weights_written_in_float32_are_read_unchanged(tiny_config, tmp_path):
    original = random_model(tiny_config)
    checkpoint.write(tmp_path, original, Config(tiny_config), dtype=torch.float32)
    model, _ = checkpoint.read(tmp_path)
    assert torch.equal(logits(model), logits(original))


def test_a_read_model_is_ready_to_use_and_not_to_train(folder):
    model, _ = checkpoint.read(folder)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_writing_leaves_the_model_as_it_was(tiny_config, tmp_path):
    model = random_model(tiny_config)
    checkpoint.write(tmp_path, model, Config(tiny_config))
    assert model.dtype == torch.float32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "model.safetensors"]


# --- the published layout


@pytest.mark.parametrize("key", ["ema_state_dict", "ema_model", "model"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_the_published_layout_gives_the_same_logits(key, prefix, published, published_config, tmp_path):
    weights = published.pop("ema_state_dict")
    published[key] = {prefix + name: value for name, value in weights.items()}
    model, config = checkpoint.read(save(published, tmp_path / "qwen3_best.pt"))
    assert config == published_config
    assert torch.equal(logits(model), logits(random_model(published_config)))


def test_a_config_without_sections_is_understood_too(published, published_config, tmp_path):
    published["config"] = published["config"]["model"]
    _, config = checkpoint.read(save(published, tmp_path / "flat.pt"))
    assert config == published_config


@pytest.mark.parametrize("others", [("model",), ("ema_model",), ("model", "ema_model")])
def test_the_averaged_weights_go_first(others, published, published_config, tmp_path):
    for key in others:
        published[key] = random_model(published_config, seed=1).state_dict()
    model, _ = checkpoint.read(save(published, tmp_path / "both.pt"))
    assert torch.equal(logits(model), logits(random_model(published_config, seed=0)))


def test_weights_saved_on_a_gpu_are_read_without_one(published, published_config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        path = save(published, tmp_path / "gpu.pt")
    model, _ = checkpoint.read(path)
    assert model.device.type == "cpu"
    assert torch.equal(logits(model), logits(random_model(published_config)))


def test_the_absent_published_file_is_an_error_that_says_what_works_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError) as caught:
        checkpoint.read("~/checkpoints/qwen3_best.pt")
    for needed in ("no checkpoint at ~/checkpoints/qwen3_best.pt", "744 MB", 'Inverter.load("minilm")'):
        assert needed in str(caught.value)


def test_another_absent_file_is_an_error_that_says_what_may_be_given(tmp_path):
    with pytest.raises(InputError, match="no checkpoint at .*none.pt; bundled: .* give a folder or a .pt file"):
        checkpoint.read(tmp_path / "none.pt")


def test_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no model.safetensors"):
        checkpoint.read(tmp_path)


def test_a_folder_without_its_configuration_is_an_error(folder):
    (folder / "config.yaml").unlink()
    with pytest.raises(InputError, match="no configuration at .*config.yaml"):
        checkpoint.read(folder)


# --- damage


@pytest.mark.parametrize("share", [0, 0.0005, 0.1, 0.5, 0.99])
def test_a_truncated_pt_file_is_an_error(share, published, tmp_path):
    contents = save(published, tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(contents[: int(share * len(contents))])
    with pytest.raises(InputError, match="cut.pt cannot be read as a checkpoint .* truncated or something else"):
        checkpoint.read(tmp_path / "cut.pt")


@pytest.mark.parametrize("share", [0, 0.0005, 0.1, 0.5, 0.99])
def test_a_truncated_safetensors_file_is_an_error(share, folder):
    contents = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(contents[: int(share * len(contents))])
    with pytest.raises(InputError, match="model.safetensors cannot be read as a checkpoint"):
        checkpoint.read(folder)


def test_a_file_of_something_else_is_one_clear_line(tmp_path):
    (tmp_path / "text.pt").write_text("not a checkpoint\n")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as file:
        file.writestr("readme.txt", "not a checkpoint")
    for name in ("text.pt", "other.pt"):
        with pytest.raises(InputError, match=f"{name} cannot be read as a checkpoint") as caught:
            checkpoint.read(tmp_path / name)
        assert "\n" not in str(caught.value)


def without(weights: dict) -> dict:
    return {name: value for name, value in weights.items() if name != "blocks.1.ff.0.weight"}


def with_another(weights: dict) -> dict:
    return {**weights, "blocks.2.extra.weight": torch.zeros(1)}


def of_another_shape(weights: dict) -> dict:
    return {**weights, "blocks.1.ff.0.weight": torch.zeros(96, 32)}


MISFITS = [
    (without, "lacks 1 weights, e.g. 'blocks.1.ff.0.weight'"),
    (with_another, "has unexpected 1 weights, e.g. 'blocks.2.extra.weight'"),
    (of_another_shape, r"blocks.1.ff.0.weight has shape \(96, 32\), its configuration asks for \(64, 32\)"),
]


@pytest.mark.parametrize(("change", "complaint"), MISFITS)
def test_published_weights_that_do_not_fit_are_named(change, complaint, published, tmp_path):
    published["ema_state_dict"] = change(published["ema_state_dict"])
    with pytest.raises(InputError, match=complaint):
        checkpoint.read(save(published, tmp_path / "misfit.pt"))


@pytest.mark.parametrize(("change", "complaint"), MISFITS)
def test_our_weights_that_do_not_fit_are_named(change, complaint, folder):
    file = folder / "model.safetensors"
    save_file(change({name: value.clone() for name, value in load_file(file).items()}), file)
    with pytest.raises(InputError, match=complaint):
        checkpoint.read(folder)


def test_an_unknown_key_in_its_config_is_an_error_that_names_file_and_key(published, tmp_path):
    published["config"]["model"]["num_heds"] = 4
    complaint = "qwen3.pt, its config: model: unknown key 'num_heds'; did you mean 'num_heads'"
    with pytest.raises(InputError, match=complaint):
        checkpoint.read(save(published, tmp_path / "qwen3.pt"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda contents: contents.pop("config"), "has no 'config'"),
        (lambda contents: contents.update(config=None), "has no 'config'"),
        (lambda contents: contents.pop("ema_state_dict"), "has no weights; expected one of ema_state_dict, ema_model"),
        (lambda contents: contents.update(ema_state_dict={}), "has no weights"),
    ],
)
def test_a_file_without_config_or_weights_is_an_error(change, complaint, published, tmp_path):
    change(published)
    with pytest.raises(InputError, match=complaint):
        checkpoint.read(save(published, tmp_path / "part.pt"))


def test_bare_weights_are_an_error(published, tmp_path):
    with pytest.raises(InputError, match="has no 'config'"):
        checkpoint.read(save(published["ema_state_dict"], tmp_path / "bare.pt"))
    with pytest.raises(InputError, match="has no 'config'"):
        checkpoint.read(save(torch.zeros(3), tmp_path / "tensor.pt"))


# --- hostile files


class Payload:
    """An object whose unpickling writes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))


@pytest.fixture
def payload(tmp_path) -> Payload:
    """Armed: the test would be worth nothing if unpickling it did no harm."""
    payload = Payload(tmp_path / "harm")
    pickle.loads(pickle.dumps(payload))
    assert payload.mark.exists()
    payload.mark.unlink()
    return payload


def test_a_pickle_that_would_run_code_never_runs(payload, published, tmp_path):
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({**published, "step": payload}))
    with pytest.raises(InputError, match="raw.pt"):
        checkpoint.read(tmp_path / "raw.pt")
    assert not payload.mark.exists()


@pytest.mark.parametrize("place", ["step", "config", "ema_state_dict"])
def test_a_torch_file_that_would_run_code_is_refused(place, payload, published, tmp_path):
    path = save({**published, place: payload}, tmp_path / "hostile.pt")
    with pytest.raises(InputError, match="hostile.pt is refused: .* would run code"):
        checkpoint.read(path)
    assert not payload.mark.exists()


def test_an_old_torch_file_that_would_run_code_never_runs(payload, published, tmp_path):
    buffer = io.BytesIO()
    torch.save({**published, "step": payload}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="old.pt"):
        checkpoint.read(tmp_path / "old.pt")
    assert not payload.mark.exists()


def test_a_pickle_under_the_name_of_safetensors_never_runs(payload, folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        checkpoint.read(folder)
    assert not payload.mark.exists()


# --- writing


def test_where_the_pairs_lay_is_nobody_elses_business(tiny_config, tmp_path):
    mixed = DataConfig("private/place", mix={"novels/*": 0.2, "*": 0.8}, cuts=0.25)
    checkpoint.write(tmp_path, random_model(tiny_config), Config(tiny_config, data=mixed))
    assert "private" not in (tmp_path / "config.yaml").read_text()
    assert load_config(tmp_path / "config.yaml").data == dataclasses.replace(mixed, data_dir=DataConfig().data_dir)


def test_writing_replaces_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    checkpoint.write_atomically(path, lambda partial: partial.write_bytes(b"after"))
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail] . PytorchStreamWriter failed: No space left on device"),
    ],
)
def test_a_full_disk_leaves_the_previous_file_and_no_scrap(error, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"the weights of yesterday")

    def fills_the_disk(partial: Path):
        partial.write_bytes(b"half of")
        raise error

    with pytest.raises(InputError, match="could not be written: the disk is full; the previous file is untouched"):
        checkpoint.write_atomically(path, fills_the_disk)
    assert path.read_bytes() == b"the weights of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_whose_disk_is_full_keeps_its_best_weights(tiny_config, folder, monkeypatch):
    def fills_the_disk(weights, path, metadata):
        Path(path).write_bytes(b"half of")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fills_the_disk)
    with pytest.raises(InputError, match="the disk is full"):
        checkpoint.write(folder, random_model(tiny_config, seed=1), Config(tiny_config))
    model, _ = checkpoint.read(folder)
    assert torch.equal(logits(model), logits(random_model(tiny_config).bfloat16()))


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), OSError(), RuntimeError("two\nlines")])
def test_any_other_failure_is_one_line_with_its_reason(error, tmp_path):
    def fails(partial: Path):
        raise error

    with pytest.raises(InputError, match="could not be written: ") as caught:
        checkpoint.write_atomically(tmp_path / "file", fails)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# --- memory

READ_AND_TOUCH = """
import sys
from invlib import checkpoint

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

checkpoint.read(sys.argv[2])  # a tiny one: what torch itself loads at the first opening is no part of the file
before = peak()
model, _ = checkpoint.read(sys.argv[1])
for value in model.state_dict().values():
    assert value.max() == 1  # touches every page
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_reading_takes_little_more_memory_than_the_file_has_bytes(published, published_config, tmp_path):
    large = dataclasses.replace(published_config, vocab_size=9000, hidden_dim=512, ff_dim=2048, num_layers=6)
    with torch.device("meta"):
        names = {name: value.shape for name, value in ConditionalMDLM(large).state_dict().items()}
    weights = {name: torch.ones(shape) for name, shape in names.items()}
    path = save({"config": {"model": to_dict(large)}, "model": weights}, tmp_path / "large.pt")
    size = path.stat().st_size
    assert 120e6 < size < 180e6
    # Not resource.ru_maxrss: a child process starts with its parent's, which has a torch in it too.
    command = [sys.executable, "-c", READ_AND_TOUCH, str(path), str(save(published, tmp_path / "tiny.pt"))]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    path.unlink()
    assert 0.9 * size < int(found.stdout) < 1.3 * size


def test_a_validation_loss_kept_as_a_numpy_scalar_is_no_program(published, tmp_path):
    torch.save({**published, "best_val_loss": np.float64(1.3)}, tmp_path / "best.pt")
    assert isinstance(checkpoint.read(tmp_path / "best.pt")[0], ConditionalMDLM)


@pytest.mark.parametrize(
    "weights", [[1], {"a": 1}, {0: torch.zeros(1)}, {"token_embed.weight": torch.zeros(2, dtype=torch.int64)}]
)
def test_weights_that_are_none_are_one_clear_line(weights, published, tmp_path):
    torch.save({**published, "ema_state_dict": weights}, tmp_path / "best.pt")
    with pytest.raises(InputError, match="ema_state_dict|declares 19,072 or more"):
        checkpoint.read(tmp_path / "best.pt")


def test_a_wrong_value_in_its_config_names_the_file_and_the_section(published, tmp_path):
    published["config"]["model"]["mask_token_id"] = 10_000
    torch.save(published, tmp_path / "best.pt")
    with pytest.raises(InputError, match=r"best\.pt, its config: mask_token_id 10000"):
        checkpoint.read(tmp_path / "best.pt")


def test_a_file_in_the_place_of_the_folder_is_one_clear_line(tiny_config, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken"):
        checkpoint.write(tmp_path / "taken", random_model(tiny_config), Config(tiny_config))


# --- the published inverters of other encoders, at full size

OPEN_AND_DECODE = """
import sys
import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordLevel
from invlib import Inverter
from invlib.tokenizer import Tokenizer

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

pieces = {str(number): number for number in range(int(sys.argv[2]))}
tokenizer = Tokenizer(FastTokenizer(WordLevel(pieces, unk_token="0")), mask_token_id=None, unk_token_id=0)
before = peak()
inverter = Inverter.load(sys.argv[1], dtype=torch.bfloat16, tokenizer=tokenizer)
text = inverter.invert(torch.ones(inverter.config.embedding_cond_dim), num_steps=2).texts[0]
print(peak() - before, len(text.split()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", ["v2_embeddinggemma", "v2_jinav3"])
def test_a_published_inverter_of_full_size_opens_within_its_bytes_and_decodes(name, tmp_path):
    config = load_config(ROOT / "configs" / f"{name}.yaml").model
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in ConditionalMDLM(config).state_dict().items()}
    few = torch.randn(1000, config.hidden_dim, dtype=torch.bfloat16)
    weights = {}
    for weight, shape in shapes.items():
        table = few.repeat(-(-shape[0] // len(few)), 1)[: shape[0]].contiguous() if len(shape) == 2 else None
        weights[weight] = table if shape[0] == config.vocab_size else torch.randn(shape).mul(0.02).bfloat16()
    path = save({"config": {"model": to_dict(config)}, "ema_state_dict": weights}, tmp_path / "embeddinggemma_best.pt")
    size = path.stat().st_size
    assert 2 * sum(shape.numel() for shape in shapes.values()) <= size
    command = [sys.executable, "-c", OPEN_AND_DECODE, str(path), str(config.mask_token_id)]
    taken, words = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    path.unlink()
    assert int(words) == config.max_seq_len
    assert int(taken) < 1.3 * size + 200e6  # and what torch itself needs to decode


def test_the_configurations_of_named_encoders_are_those_of_their_inverters():
    dims = {"v2_qwen3": 1024, "v2_embeddinggemma": 768, "v2_jinav3": 1024}
    for (name, dim), (hub, *_) in zip(dims.items(), checkpoint.PUBLISHED.values(), strict=True):
        config = load_config(ROOT / "configs" / f"{name}.yaml").model
        assert (config.embedding_cond_dim, config.encoder_model) == (dim, hub[0])
        assert config.mask_token_id == config.vocab_size - 1 and config.decoder_tokenizer == hub[-1]
