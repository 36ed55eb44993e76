"""Mismatch: the same texts through the same weights, but not as the attacked encoder reads them.

Tools get this wrong in the field (another pooling, no normalisation, a forgotten prompt), and then the vector that is
inverted is not the one that was stored.
"""

from collections.abc import Sequence

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from invlib.encoder import Encoder, check_texts
from invlib.errors import InputError


def with_pooling(encoder: Encoder, mode: str) -> Encoder:
    """The encoder with another pooling: "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean" or "lasttoken".

    The weights are shared. Raises `InputError` for an unknown mode, or an encoder without a pooling module.
    """
    if mode not in Pooling.POOLING_MODES:
        raise InputError(f"pooling must be one of {', '.join(Pooling.POOLING_MODES)}; got {mode!r}")
    modules = [_pooling_like(module, mode) if isinstance(module, Pooling) else module for module in encoder.model]
    if not any(isinstance(module, Pooling) for module in modules):
        raise InputError(f"the encoder {encoder.name!r} has no pooling module to exchange")
    return _copy(encoder, modules, f"{encoder.name}, {mode} pooling", encoder.prompt)


def with_prompt(encoder: Encoder, prompt: str) -> Encoder:
    """The encoder with another text before each text; "" for none, even where the model has a default prompt."""
    return _copy(encoder, list(encoder.model), f"{encoder.name}, prompt {prompt!r}", prompt)


def raw_vectors(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    """Texts → float32 [n, embed_dim] without normalisation: what a store holds when that step was forgotten.

    Counts as queries. Raises the `InputError`s of `Encoder.encode`.
    """
    texts = check_texts(texts)
    bare = [module for module in encoder.model if not isinstance(module, Normalize)]
    model = _copy(encoder, bare, encoder.name, encoder.prompt).model
    vectors = model.encode(texts, prompt=encoder.prompt, truncate_dim=encoder.dim, show_progress_bar=False)
    encoder.queries += len(texts)
    return vectors.astype(np.float32)


def _pooling_like(module: Pooling, mode: str) -> Pooling:
    return Pooling(module.embedding_dimension, mode, include_prompt=module.include_prompt)


def _copy(encoder: Encoder, modules: list, name: str, prompt: str | None) -> Encoder:
    model = SentenceTransformer(modules=modules, device=str(encoder.model.device), prompts=encoder.model.prompts)
    copy = Encoder(model, name=name, dim=encoder.dim)
    copy.prompt = prompt  # literal: the constructor would read "query" as the name of one
    return copy
