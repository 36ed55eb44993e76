"""Read and write weights. Weights are data: safetensors, or `torch.load(weights_only=True)`, never a program."""

import dataclasses
import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from invlib.config import Config, DataConfig, ModelConfig, dump_config, from_dict, load_config
from invlib.errors import InputError, first_line
from invlib.model import ConditionalMDLM

PACKAGE = Path(__file__).resolve().parent
# A wheel carries the bundled checkpoints inside the package; a clone has them in data/.
INSIDE = PACKAGE / "checkpoints"
BUNDLED = INSIDE if INSIDE.is_dir() else PACKAGE.parent / "data" / "checkpoints"
PUBLISHED_NAME = "qwen3_best.pt"
# A validation loss kept as a numpy scalar is a number, not a program; numpy 1 wrote its maker under another name.
_SCALAR = np.float64(0).__reduce__()[0]
_DTYPES = [type(np.dtype(name)) for name in ("float32", "float64", "int64")]
NUMPY_SCALARS = [_SCALAR, (_SCALAR, "numpy.core.multiarray.scalar"), np.dtype, *_DTYPES]
WEIGHT_KEYS = ("ema_state_dict", "ema_model", "model")  # of the published layout, the averaged weights first


def locate(name: str | Path) -> Path:
    """The folder or file that `name` means: a bundled checkpoint's name, a folder, or a .pt file.

    Raises `InputError`, with what to do, when there is none.
    """
    bundled = BUNDLED / str(name)
    if os.sep not in str(name) and (bundled / "model.safetensors").is_file():
        return bundled
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "model.safetensors").is_file():
        raise InputError(f"{path} holds no model.safetensors; expected a folder that training wrote")
    if path.exists():
        return path
    if path.name == PUBLISHED_NAME:
        raise InputError(
            f"no checkpoint at {name}; the published Qwen3 inverter (744 MB) is expected there. "
            'Inverter.load("minilm") works at once, without a download'
        )
    known = sorted(p.parent.name for p in BUNDLED.glob("*/model.safetensors"))
    raise InputError(f"no checkpoint at {path}; bundled: {known}, or give a folder or a .pt file")


def read(path: str | Path) -> tuple[ConditionalMDLM, ModelConfig]:
    """A model in evaluation mode and its configuration, from a folder or from a file in the published layout.

    Weights are memory-mapped and used in place, so loading needs little more memory than the file has bytes.
    Raises `InputError` for a file that is missing, truncated, of other shapes, or that would run code.
    """
    path = locate(path)
    if path.is_dir():
        config, file = load_config(path / "config.yaml").model, path / "model.safetensors"
        with _guarded(file):
            weights = load_file(file)
    else:
        with _guarded(path), torch.serialization.safe_globals(NUMPY_SCALARS):
            contents = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
        config, weights = _published(contents, path)
    return assemble(config, weights, path), config


def assemble(config: ModelConfig, weights: dict[str, Tensor], path: Path) -> ConditionalMDLM:
    """A model around these very tensors, strictly: every name and shape must fit."""
    with torch.device("meta"):
        model = ConditionalMDLM(config)
    expected, found = ({n: tuple(v.shape) for n, v in values.items()} for values in (model.state_dict(), weights))
    lacking, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    for what, names in (("lacks", lacking), ("has unexpected", unexpected)):
        if names:
            raise InputError(f"{path} {what} {len(names)} weights, e.g. {min(names)!r}; its configuration is another's")
    for name, shape in expected.items():
        if found[name] != shape:
            raise InputError(f"{path}: {name} has shape {found[name]}, its configuration asks for {shape}")
    model.load_state_dict(weights, strict=True, assign=True)
    return model.requires_grad_(False).eval()


def fingerprint(model: ConditionalMDLM) -> str:
    """SHA-256 of the weights as they are stored (bf16), the same whatever precision they were opened in."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def write(folder: str | Path, model: ConditionalMDLM, config: Config, *, dtype=torch.bfloat16) -> None:
    """Write `model.safetensors` and `config.yaml`; a failure (disk full) leaves the previous ones in place.

    The data section is left out: where the pairs lay concerns only the machine that trained.
    """
    folder, config = Path(folder), dataclasses.replace(config, data=DataConfig())
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    write_atomically(folder / "model.safetensors", lambda path: save_file(weights, path))
    write_atomically(folder / "config.yaml", lambda path: Path(path).write_text(dump_config(config)))


def write_atomically(path: Path, write_to: Callable[[Path], Any]) -> None:
    """Write beside `path`, in a folder that is made where it is missing, flush to disk, then replace it in one step.

    Raises `InputError` when the disk is full or the folder cannot be written; `path` is then as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch and safetensors wrap the OSError
        if partial.is_file():  # its folder may be none
            partial.unlink()
        reason = "the disk is full" if "No space left" in str(error) else first_line(error)
        told = f"{path} could not be written: {reason}; the previous file is untouched, make room and run again"
        raise InputError(told) from error


def _published(contents: Any, path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and weights of a dictionary with `config`, `step`, `best_val_loss` and weights."""
    if not isinstance(contents, dict) or not isinstance(contents.get("config"), dict):
        raise InputError(f"{path} has no 'config'; expected a training checkpoint of an inverter")
    values, key = contents["config"], next((key for key in WEIGHT_KEYS if contents.get(key)), None)
    if key is None:
        raise InputError(f"{path} has no weights; expected one of {', '.join(WEIGHT_KEYS)}")
    try:
        config = from_dict(ModelConfig, values.get("model", values), "model")
    except InputError as error:
        raise InputError(f"{path}, its config: {error}") from None
    weights = contents[key]
    named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not named or not all(isinstance(value, Tensor) and value.is_floating_point() for value in weights.values()):
        raise InputError(f"{path}: {key!r} is not a dictionary of floating-point tensors by name; it holds no model")
    return config, {name.removeprefix("_orig_mod."): value for name, value in weights.items()}


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except pickle.UnpicklingError as error:
        told = f"{path} is refused: it holds more than weights and would run code; ask for a safetensors file"
        raise InputError(told) from error
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        told = f"{path} cannot be read as a checkpoint ({first_line(error)}), truncated or something else; fetch it"
        raise InputError(told) from error
