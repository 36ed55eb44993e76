"""Frozen, validated configuration, read from YAML. An unknown key is an error that names the nearest known one."""

import inspect
import math
import re
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from invlib.errors import InputError, nearest_name, require

UNUSED = ("num_workers",)  # keys of published configurations that say nothing here: accepted and ignored


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a `ConditionalMDLM`. Keys without defaults are those of the published Qwen3 checkpoint."""

    vocab_size: int
    max_seq_len: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    ff_dim: int
    embedding_cond_dim: int
    mask_token_id: int
    encoder_model: str
    decoder_tokenizer: str  # hub name, folder, or "pruned": the encoder's own, pruned to vocab_size
    dropout: float = 0.0
    gate: bool = False  # AdaLN-Zero: shift, scale and gate; without it shift and scale only
    post_norm: bool = False  # the blocks of a BERT encoder, so that training can start from its layers
    length_head: bool = False  # predict the number of tokens from the embedding
    length_dim: int = 0  # width of a length head that reads the vector itself; 0: a small one reads the condition
    tie_embeddings: bool = False  # output projection = token table
    null_embedding: bool = False  # a learned "no vector", for the unconditional prior
    standardize: bool = False  # centre and scale the embedding by training statistics
    noise_condition: bool = False  # the model may be told how noisy the vector is
    logit_temperature: float = 1.0  # what the logits are divided by

    def __post_init__(self) -> None:
        sizes = "vocab_size max_seq_len hidden_dim num_layers num_heads ff_dim embedding_cond_dim"
        _require(self, f"{sizes} logit_temperature", lambda value: 0 < value < math.inf, "positive")
        _require(self, "length_dim", lambda value: value >= 0, "0 or more")
        _require(self, "dropout", lambda value: 0 <= value < 1, "in [0, 1)")
        if self.hidden_dim % self.num_heads:
            raise InputError(f"hidden_dim {self.hidden_dim} is not divisible by num_heads {self.num_heads}; change one")
        mask, last = self.mask_token_id, self.vocab_size - 1
        if not 0 <= mask <= last:
            raise InputError(f"mask_token_id {mask} is outside the vocabulary; expected 0 … {last}")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained. `batch_size` counts sequences; one optimiser step sees `batch_size * grad_accum`."""

    batch_size: int
    max_steps: int
    lr: float
    adam_lr: float | None = None  # of what Muon does not train; None: the same
    grad_accum: int = 1
    min_lr_ratio: float = 0.1
    weight_decay: float = 0.01
    warmup_steps: int = 0
    decay_share: float = 1.0  # share of the steps over which the rate falls to min_lr_ratio, at the end
    max_grad_norm: float = 1.0
    log_every: int = 50
    eval_every: int = 500
    mixed_precision: bool | str = "bf16"  # true and "bf16" are the same; false and "no" are fp32
    ema_decay: float = 0.9999
    optimizer: str = "adamw"  # or "muon": Muon on the hidden matrices, AdamW on the rest
    tokens_from_encoder: bool = False  # start the token table from the encoder's own (same width)
    blocks_from_encoder: bool = False  # start positions, norms and blocks from a BERT encoder's own (post_norm)
    weighting: str = "nelbo"  # or "low_variance"; see losses.diffusion_loss
    condition_dropout: float = 0.0  # share of sequences whose vector is replaced by the null embedding
    noise_share: float = 0.0  # share of sequences whose vector gets Gaussian noise, and the model is told how much
    max_noise: float = 1.5  # noise levels are drawn uniformly up to this; see ConditionalMDLM.condition
    trained: str = "*"  # which weights, by a pattern of their names; "length_head.*" trains that head alone, anew
    start_from: str | None = None  # a checkpoint whose weights and tokenizer are the start
    seed: int = 0

    def __post_init__(self) -> None:
        positive = "batch_size max_steps lr adam_lr grad_accum max_grad_norm max_noise log_every eval_every"
        _require(self, positive, lambda value: 0 < value < math.inf, "positive")
        _require(self, "ema_decay condition_dropout noise_share", lambda value: 0 <= value < 1, "in [0, 1)")
        _require(self, "min_lr_ratio decay_share", lambda value: 0 <= value <= 1, "in [0, 1]")
        _require(self, "warmup_steps weight_decay", lambda value: 0 <= value < math.inf, "0 or more")
        choices = {"optimizer": ("adamw", "muon"), "weighting": ("nelbo", "low_variance")}
        for name, known in {**choices, "mixed_precision": (True, False, "bf16", "no")}.items():
            _require(self, name, known.__contains__, f"one of {known}")
        if self.trained != "*" and self.start_from is None:
            raise InputError(f"trained: {self.trained!r} trains some weights of a checkpoint; name it in start_from")

    @property
    def bf16(self) -> bool:
        """Whether the forward and backward pass run in bfloat16 (masters and EMA stay in fp32)."""
        return self.mixed_precision in (True, "bf16")


@dataclass(frozen=True)
class DataConfig:
    """Where the memory-mapped pairs live, which share of them validates, and how sources are mixed.

    mix: share of what is seen by pattern of the `source` field, e.g. {"novels/*": 0.2, "*": 0.8}; a source belongs to
      the first pattern that it matches. Empty: every sentence once an epoch.
    """

    data_dir: str = "data/pairs"
    val_split: float = 0.01
    mix: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self, "val_split", lambda value: 0 < value < 1, "between 0 and 1")
        shares = list(self.mix.values())
        if shares and not (min(shares) > 0 and math.isclose(sum(shares), 1, abs_tol=1e-6)):
            raise InputError(f"the shares of mix must be positive and add up to 1, got {self.mix}")


@dataclass(frozen=True)
class Config:
    """One YAML file: `model:`, and where it trains, `training:` and `data:`."""

    model: ModelConfig
    training: TrainingConfig | None = None
    data: DataConfig = field(default_factory=DataConfig)


def load_config(path: str | Path) -> Config:
    """Read and validate a YAML file. Raises `InputError` for a missing file, unknown key or wrong value."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no configuration at {path}; the ones that ship are in configs/")
    try:
        return from_dict(Config, yaml.load(path.read_text(encoding="utf-8"), Loader=_ConfigLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def from_dict(cls: type, values: Any, section: str = "") -> Any:
    """Build the frozen dataclass `cls` from nested plain values, checking names and types."""
    where = f"{section}: " if section else ""
    if not isinstance(values, dict):
        raise InputError(f"{where}expected a mapping of keys to values, got {values!r}")
    hints = get_type_hints(cls)
    values = {name: value for name, value in values.items() if name not in UNUSED}
    for name in values:
        if name not in hints:
            raise InputError(f"{where}unknown key {name!r}{nearest_name(name, hints)}")
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.default is parameter.empty and name not in values:
            raise InputError(f"{where}the key {name!r} is missing")
    return cls(**{name: _checked(name, hints[name], value, where) for name, value in values.items()})


def to_dict(config: Any) -> dict:
    """The inverse of `from_dict`, without what is None."""
    return {name: value for name, value in asdict(config).items() if value is not None}


def dump_config(config: Config) -> str:
    """YAML that `load_config` reads back."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


class _ConfigLoader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as a string; people who write it mean a number. A key given twice is an error."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"the key {key!r} is given twice")
        return super().construct_mapping(node, deep)


SCIENTIFIC = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_ConfigLoader.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))


def _checked(name: str, hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where}{name} must be a mapping, got {value!r}")
        return {key: _checked(f"{name}[{key!r}]", get_args(hint)[1], each, where) for key, each in value.items()}
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if is_dataclass(kind):
            return from_dict(kind, value, name)
        if kind is float and type(value) is int:
            return float(value)
        # bool is a subclass of int: `num_layers: true` must not pass as 1.
        if type(value) is kind:
            return value
    expected = " or ".join(kind.__name__ for kind in kinds)
    raise InputError(f"{where}{name} must be {expected}, got {value!r}")


def _require(config: Any, names: str, fits: Callable[[Any], bool], domain: str) -> None:
    for name in names.split():
        value = getattr(config, name)
        require(value is None or fits(value), name, domain, value)
