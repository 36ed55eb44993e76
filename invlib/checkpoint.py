"""Read and write weights. Weights are data: safetensors, or `torch.save`'s format without its programs."""

import dataclasses
import hashlib
import json
import math
import os
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from invlib.config import Config, DataConfig, ModelConfig, dump_config, from_dict, load_config
from invlib.door import torchfile
from invlib.door.files import check_sums, reading, write_atomically, write_text
from invlib.door.options import NAME
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from invlib.tokenizer import SPECIAL_PIECES, Tokenizer

PACKAGE = Path(__file__).resolve().parent
# A wheel carries the bundled checkpoints inside the package; a clone has them in data/.
INSIDE = PACKAGE / "checkpoints"
BUNDLED = INSIDE if INSIDE.is_dir() else PACKAGE.parent / "data" / "checkpoints"
SENTENCES = (PACKAGE if INSIDE.is_dir() else PACKAGE.parent / "data") / "sentences" / "sentences.jsonl"
# By the encoder's short name: its name on the hub (and the tokenizer's), the inverter's file, what it is called.
PUBLISHED = {
    "qwen3": (["Qwen/Qwen3-Embedding-0.6B"], "qwen3_best.pt", "Qwen3 inverter (744 MB)"),
    "embeddinggemma": (["unsloth/embeddinggemma-300m"], "embeddinggemma_best.pt", "EmbeddingGemma inverter"),
    "jina-v3": (["jinaai/jina-embeddings-v3", "xlm-roberta-base"], "jinav3_best.pt", "jina-embeddings-v3 inverter"),
}
WEIGHT_KEYS = ("ema_state_dict", "ema_model", "model")  # of the published layout, the averaged weights first
UNREADABLE = ("cannot be read as a checkpoint", "truncated or something else: fetch it again")
PRECISIONS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
PADDING = 1024  # rows that a hub model's table may have behind its tokenizer's pieces
HEADER_BYTES = 2**24  # of safetensors: names and shapes of far more weights than a model has


def locate(name: str | Path) -> Path:
    """The folder or file that `name` means: a bundled checkpoint's name, a folder, or a .pt file.

    Raises `InputError`, with what to do, when there is none.
    """
    NAME.check("a checkpoint", name)
    bundled, path = BUNDLED / str(name), Path(name).expanduser()
    if os.sep not in str(name) and bundled.name == name and (bundled / "model.safetensors").is_file():
        return bundled
    if path.is_dir() and not (path / "model.safetensors").is_file():
        raise InputError(f"{path} holds no model.safetensors; expected a folder that training wrote")
    if path.exists():
        return path
    for _, file, told in PUBLISHED.values():
        if path.name == file:
            works = 'Inverter.load("minilm") works at once, without a download'
            raise InputError(f"no checkpoint at {name}; the published {told} is expected there. {works}")
    known = sorted(p.parent.name for p in BUNDLED.glob("*/model.safetensors"))
    raise InputError(f"no checkpoint at {path}; bundled: {known}, or give a folder or a .pt file")


def read(path: str | Path) -> tuple[ConditionalMDLM, ModelConfig]:
    """A model in evaluation mode and its configuration, from a folder or from a file in the published layout.

    Weights are memory-mapped and used in place, so loading needs little more memory than the file has bytes.
    Raises `InputError` for a file that is missing, truncated, of other shapes, or that would run code.
    """
    path = locate(path)
    if path.is_dir():
        check_sums(path)
        config, file = load_config(path / "config.yaml").model, path / "model.safetensors"
        with reading(file, *UNREADABLE), open(file, "rb") as opened:
            if int.from_bytes(opened.read(8), "little") > HEADER_BYTES:
                raise ValueError("its header is too large")
            weights = load_file(file)
            with safe_open(file, "pt") as told:
                made = (told.metadata() or {}).get("fingerprint")
        if made not in (None, config.fingerprint):
            raise InputError(f"{path / 'config.yaml'} is not what {file.name} was trained with; restore the one it had")
    else:
        with reading(path, *UNREADABLE):
            config, weights = _published(_unpickled(path), path)
    return assemble(config, weights, path), config


def assemble(config: ModelConfig, weights: dict[str, Tensor], path: Path) -> ConditionalMDLM:
    """A model around these very tensors, strictly: every name and shape must fit, and every number be finite."""
    held = sum(value.numel() for value in weights.values())
    if config.fewest_weights > held:  # before a model of that size is built
        raise InputError(f"{path} holds {held:,} weights, its configuration declares {config.fewest_weights:,} or more")
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
        if (wrong := _damage(name, weights[name])) is not None:
            raise InputError(f"{path}: {name} holds {wrong}; the file is damaged, fetch it again")
    model.load_state_dict(weights, strict=True, assign=True)
    return model.requires_grad_(False).eval()


def _damage(name: str, value: Tensor) -> str | None:
    """What is wrong with the numbers of a weight; None where nothing is."""
    if value.dtype not in PRECISIONS:
        return f"numbers of {value.dtype}, expected floating-point ones"
    low, high = torch.stack(value.aminmax()).float().tolist()
    if not -math.inf < low <= high < math.inf:
        return "NaN or infinite numbers"
    return f"{low:g}, expected numbers above 0" if name == "embedding_std" and low <= 0 else None


def check_tokenizer(config: ModelConfig, tokenizer: Tokenizer, path: str | Path) -> None:
    """Raise `InputError` unless the tokenizer is the one that a model of this configuration was trained with.

    Size, [MASK] and special pieces are always looked at; every piece where the configuration has a fingerprint.
    """
    found, wanted, mask = tokenizer.vocab_size, config.vocab_size, config.mask_token_id
    pruned, room = config.decoder_tokenizer == "pruned", 0 if config.decoder_tokenizer == "pruned" else PADDING
    if not found <= wanted <= found + room:
        raise InputError(f"{path}: the tokenizer has {found} pieces, vocab_size is {wanted}; set vocab_size to {found}")
    own = tokenizer.mask_token_id
    if own != mask and (pruned or tokenizer.is_ordinary(mask) or (own is not None and mask < found)):
        told = "the tokenizer has no [MASK]; it is another's" if own is None else f"set mask_token_id to {own}"
        raise InputError(f"{path}: mask_token_id is {mask}, piece {own} of the tokenizer is [MASK]; {told}")
    if pruned and tuple(tokenizer.pieces(range(len(SPECIAL_PIECES)))) != SPECIAL_PIECES:
        raise InputError(f"{path}: the tokenizer does not begin with {', '.join(SPECIAL_PIECES)}; it is another's")
    if config.fingerprint not in (None, identity(config, tokenizer)):
        raise InputError(f"{path}: the fingerprint of tokenizer and num_heads differs from config.yaml's; restore both")


def identity(config: ModelConfig, tokenizer: Tokenizer) -> str:
    """SHA-256 of what no weight's shape shows: the number of heads, and every piece with its id."""
    pieces = sorted(tokenizer.backend.get_vocab().items(), key=itemgetter(1))
    return hashlib.sha256(json.dumps([config.num_heads, config.mask_token_id, pieces]).encode()).hexdigest()


def fingerprint(model: ConditionalMDLM) -> str:
    """SHA-256 of the weights as they are stored (bf16), the same whatever precision they were opened in."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def write(
    folder: str | Path,
    model: ConditionalMDLM,
    config: Config,
    tokenizer: Tokenizer | None = None,
    *,
    dtype=torch.bfloat16,
) -> None:
    """Write `model.safetensors` and `config.yaml`; a failure (disk full) leaves the previous ones in place.

    tokenizer: whose fingerprint both files bear. Where the pairs lay is left out: it concerns only the machine that
    trained.
    """
    data = dataclasses.replace(config.data, data_dir=DataConfig().data_dir)
    folder, config = Path(folder), dataclasses.replace(config, data=data)
    if tokenizer is not None:
        told = dataclasses.replace(config.model, fingerprint=identity(config.model, tokenizer))
        config = dataclasses.replace(config, model=told)
    about = {"fingerprint": config.model.fingerprint} if config.model.fingerprint else None
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    write_atomically(folder / "model.safetensors", lambda path: save_file(weights, path, metadata=about))
    write_text(folder / "config.yaml", dump_config(config))


def _unpickled(path: Path) -> Any:
    try:
        return torchfile.read(path)
    except torchfile.Refused as error:
        told = f"it holds more than weights and would run code ({error})"
        raise InputError(f"{path} is refused: {told}; ask for a safetensors file") from error


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
    if not named or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{path}: {key!r} is not a dictionary of tensors by name; it holds no model")
    unique = {name.removeprefix("_orig_mod."): value for name, value in weights.items()}
    if len(unique) < len(weights) or sum(value.nbytes for value in unique.values()) > path.stat().st_size:
        raise InputError(f"{path}: {key!r} holds a weight twice; keep one of each name")
    return config, unique
