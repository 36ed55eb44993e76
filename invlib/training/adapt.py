"""Adapt: a checkpoint learns to listen to another encoder's vectors, from many pairs of text and vector.

Its first layers begin with a linear alignment; then `cond_proj` alone is trained, which takes minutes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from invlib import checkpoint
from invlib.config import Config, DataConfig, TrainingConfig, load_config
from invlib.door.files import reading
from invlib.door.vectors import directions
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.training.pairs import read_texts

TRAINING = TrainingConfig(
    batch_size=128,
    max_steps=200,
    lr=2e-4,
    min_lr_ratio=0.0,
    weight_decay=0.0,
    warmup_steps=10,
    log_every=20,
    eval_every=100,
    ema_decay=0.9,
    weighting="low_variance",
    trained="cond_proj.*",
    start_from="the checkpoint",
)


class KnownVectors(Encoder):
    """Stands for an encoder that is not here, such as a service: its vectors of the texts of one corpus."""

    prompt, precision = None, "of a file"

    def __init__(self, name: str, texts: Sequence[str], vectors: np.ndarray):
        self.name, self.embed_dim, self._vectors = name, vectors.shape[1], vectors
        self._row = {text: row for row, text in enumerate(texts)}

    @classmethod
    def read(cls, path: Path, corpus: Path) -> "KnownVectors":
        """Of an .npy file with a row for every text. Raises `InputError` where there are more of one than the other."""
        texts = read_texts(corpus)
        with reading(path, "is no array of vectors", "write it with numpy.save, a row for every text"):
            vectors = directions(np.load(path, allow_pickle=False), "vector")
            digest = hashlib.sha256(vectors.tobytes()).hexdigest()
        if len(vectors) != len(texts):
            raise InputError(
                f"{path} has {len(vectors)} vectors, {corpus} {len(texts)} texts; give one for each, in order"
            )
        return cls(f"{path.stem}-{digest[:12]}", texts, vectors)

    def encode(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        """The known vectors of known texts, [n, embed_dim]."""
        return self._vectors[[self._row[text] for text in texts]]


def adapting(
    name: str, encoder: str | None, vectors: Path | None, texts: Sequence[Path], out: Path
) -> tuple[Config, Encoder]:
    """The configuration of a run that adapts a checkpoint, and whose vectors it learns.

    Raises `InputError` unless there is one encoder or one file of vectors, whose texts are one file.
    """
    if (encoder is None) == (vectors is None) or (vectors is not None and len(texts) != 1):
        raise InputError("--adapt needs --encoder NAME, or --vectors FILE with one file of --text")
    known = Encoder.load(encoder) if vectors is None else KnownVectors.read(vectors, texts[0])
    path = checkpoint.locate(name)
    if not path.is_dir():
        raise InputError(f"{path} is no folder that training wrote; only such a checkpoint can be adapted")
    new = {"encoder_model": known.name, "embedding_cond_dim": known.embed_dim, "corrector_dim": 0}
    model = replace(load_config(path / "config.yaml").model, **new)  # a corrector knows its own encoder alone
    return Config(model, replace(TRAINING, start_from=name), DataConfig(str(out / "pairs"), val_split=0.02)), known
