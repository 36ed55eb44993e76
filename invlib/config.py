"""Frozen, validated configuration, read from YAML. An unknown key is an error that names the nearest known one."""

import inspect
import math
import re
import types
from collections import Counter
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from invlib.door.files import reading
from invlib.door.options import FLAG, NAME, NOT_NEGATIVE, POSITIVE, SEED, SHARE, Checked, number, one_of, whole, within
from invlib.errors import InputError, nearest_name, shown

UNUSED = ("num_workers",)  # keys of published configurations that say nothing here: accepted and ignored
FILE_BYTES = 2**16  # of a configuration; what is larger is something else
WIDTH, COUNT, PART = whole(1, 2**16), whole(1, 2**31 - 1), number(0, 1, below=True)


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The shape of a `ConditionalMDLM`. Keys without defaults are those of the published Qwen3 checkpoint."""

    vocab_size: int = within(whole(2, 2**24))
    max_seq_len: int = within(WIDTH)
    hidden_dim: int = within(WIDTH)
    num_layers: int = within(whole(1, 512))
    num_heads: int = within(WIDTH)
    ff_dim: int = within(whole(1, 2**20))
    embedding_cond_dim: int = within(WIDTH)
    mask_token_id: int = within(whole(0, 2**24))
    encoder_model: str
    decoder_tokenizer: str  # hub name, folder, or "pruned": the encoder's own, pruned to vocab_size
    dropout: float = within(PART, default=0.0)
    gate: bool = within(FLAG, default=False)  # AdaLN-Zero: shift, scale and gate; without it shift and scale only
    post_norm: bool = within(FLAG, default=False)  # a BERT encoder's blocks, so that training can start from its layers
    length_head: bool = within(FLAG, default=False)  # predict the number of tokens from the embedding
    length_dim: int = within(whole(0, 2**16), default=0)  # of a length head that reads the vector; 0: the condition
    tie_embeddings: bool = within(FLAG, default=False)  # output projection = token table
    null_embedding: bool = within(FLAG, default=False)  # a learned "no vector", for the unconditional prior
    standardize: bool = within(FLAG, default=False)  # centre and scale the embedding by training statistics
    noise_condition: bool = within(FLAG, default=False)  # the model may be told how noisy the vector is
    corrector_dim: int = within(whole(0, 2**16), default=0)  # of a corrector, which hears the last try; 0: none
    logit_temperature: float = within(POSITIVE, default=1.0)  # what the logits are divided by
    fingerprint: str | None = None  # of the tokenizer it was trained with; see checkpoint.identity

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_dim % self.num_heads:
            raise InputError(f"hidden_dim {self.hidden_dim} is not divisible by num_heads {self.num_heads}; change one")
        mask, last = self.mask_token_id, self.vocab_size - 1
        if mask > last:
            raise InputError(f"mask_token_id {mask} is outside the vocabulary; expected 0 … {last}")

    @property
    def fewest_weights(self) -> int:
        """A model of this shape has at least as many: tables, attention and feed-forward."""
        rows = self.vocab_size + self.max_seq_len + self.embedding_cond_dim
        return self.hidden_dim * (rows + self.num_layers * (4 * self.hidden_dim + 2 * self.ff_dim))


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How a model is trained. `batch_size` counts sequences; one optimiser step sees `batch_size * grad_accum`."""

    batch_size: int = within(whole(1, 2**20))
    max_steps: int = within(COUNT)
    lr: float = within(POSITIVE)
    adam_lr: float | None = within(POSITIVE.or_none(), default=None)  # of what Muon does not train; None: the same
    grad_accum: int = within(whole(1, 2**16), default=1)
    min_lr_ratio: float = within(SHARE, default=0.1)
    weight_decay: float = within(NOT_NEGATIVE, default=0.01)
    warmup_steps: int = within(whole(0, 2**31 - 1), default=0)
    decay_share: float = within(SHARE, default=1.0)  # of the steps, at the end: the rate falls to min_lr_ratio
    max_grad_norm: float = within(POSITIVE, default=1.0)
    log_every: int = within(COUNT, default=50)
    eval_every: int = within(COUNT, default=500)
    mixed_precision: bool | str = within(one_of(True, False, "bf16", "no"), default="bf16")  # true: "bf16"
    ema_decay: float = within(PART, default=0.9999)
    optimizer: str = within(one_of("adamw", "muon"), default="adamw")  # Muon: on the hidden matrices, AdamW on the rest
    tokens_from_encoder: bool = within(FLAG, default=False)  # start the token table from the encoder's (same width)
    blocks_from_encoder: bool = within(FLAG, default=False)  # positions, norms and blocks from a BERT's own (post_norm)
    weighting: str = within(one_of("nelbo", "low_variance"), default="nelbo")  # see losses.diffusion_loss
    condition_dropout: float = within(PART, default=0.0)  # share of the vectors replaced by the null embedding
    noise_share: float = within(PART, default=0.0)  # share of vectors with noise; the model is told how much
    drafts: int = within(whole(0, 2**31 - 1), default=0)  # that a corrector learns from, see training.drafts
    max_noise: float = within(POSITIVE, default=1.5)  # levels are uniform up to this; see ConditionalMDLM.condition
    trained: str = "*"  # which weights, by a pattern of their names; "length_head.*" trains that head alone, anew
    start_from: str | None = None  # a checkpoint whose weights and tokenizer are the start
    seed: int = within(SEED, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trained != "*" and self.start_from is None:
            raise InputError(f"trained: {self.trained!r} trains some weights of a checkpoint; name it in start_from")

    @property
    def bf16(self) -> bool:
        """Whether the forward and backward pass run in bfloat16 (masters and EMA stay in fp32)."""
        return self.mixed_precision in (True, "bf16")


@dataclass(frozen=True)
class DataConfig(Checked):
    """Where the memory-mapped pairs live, which share of them validates, and how sources are mixed.

    mix: share of what is seen by pattern of the `source` field, e.g. {"novels/*": 0.2, "*": 0.8}; a source belongs to
      the first pattern that it matches. Empty: every sentence once an epoch.
    cuts: share of what is seen that is a span of a sentence, see `training.cuts`; the mix divides the rest.
    """

    data_dir: str = "data/pairs"
    val_split: float = within(number(0, 1, above=True, below=True), default=0.01)
    mix: dict[str, float] = field(default_factory=dict)
    cuts: float = within(PART, default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = list(self.mix.values())
        if shares and not (min(shares) > 0 and math.isclose(sum(shares), 1, abs_tol=1e-6)):
            raise InputError(f"the shares of mix must be positive and add up to 1, got {shown(self.mix)}")


@dataclass(frozen=True)
class Config:
    """One YAML file: `model:`, and where it trains, `training:` and `data:`."""

    model: ModelConfig
    training: TrainingConfig | None = None
    data: DataConfig = field(default_factory=DataConfig)


def load_config(path: str | Path) -> Config:
    """Read and validate a YAML file. Raises `InputError` for a missing file, unknown key or wrong value."""
    NAME.check("a configuration", path)
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no configuration at {path}; the ones that ship are in configs/")
    with reading(path, "is not readable YAML", "compare it with those in configs/", most=FILE_BYTES):
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_ConfigLoader)
    try:
        return from_dict(Config, values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def from_dict(cls: type, values: Any, section: str = "") -> Any:
    """Build the frozen dataclass `cls` from nested plain values, checking names and types."""
    where = f"{section}: " if section else ""
    if not isinstance(values, dict):
        raise InputError(f"{where}expected a mapping of keys to values, got {shown(values)}")
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
    """YAML 1.1 reads `1e-4` as a string; people who write it mean a number. A key given twice is an error.

    So is an alias: a few of them, one within the other, stand for more than any memory holds.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        counts = Counter(self.construct_object(key, deep=True) for key, _ in node.value)
        for key, count in counts.most_common(1):
            if count > 1:
                raise InputError(f"the key {shown(key)} is given twice")
        return super().construct_mapping(node, deep)


SCIENTIFIC = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_ConfigLoader.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))


def _checked(name: str, hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where}{name} must be a mapping, got {shown(value)}")
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
    raise InputError(f"{where}{name} must be {expected}, got {shown(value)}")
