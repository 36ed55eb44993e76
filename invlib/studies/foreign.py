"""Foreign encoders: functions texts → vectors of encoders that no checkpoint of ours was trained on."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from invlib.door.files import reading
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.perturb import GaussianNoise, SecretRotation, apply, unit

NOISE = 0.4  # σ√d of the rotated copy
Encode = Callable[[list[str]], np.ndarray]


def static_embedder() -> Encode:
    """WordLlama's 256 numbers for every token, averaged over a text: read from the files of its package (MIT).

    The package's own loader is left alone: it asks the network. Raises `InputError` where the package is missing.
    """
    spec = find_spec("wordllama")
    if spec is None:
        raise InputError("the static embedder is not installed; run: pip install wordllama")
    folder = Path(spec.submodule_search_locations[0])
    path = folder / "weights" / "l2_supercat_256.safetensors"
    with reading(path, "holds no table of tokens", "reinstall wordllama"):
        table = load_file(path)["embedding.weight"].astype(np.float32)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    return partial(_averaged, table, tokenizer)


def _averaged(table: np.ndarray, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    rows = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return unit(np.stack([table[row.ids].mean(axis=0) for row in rows]))


def pooled(encoder: Encoder, how: str) -> Encode:
    """The transformer of an encoder with another pooling, such as "max" or "cls"."""
    from sentence_transformers import SentenceTransformer  # only here: see Encoder.load
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    pooling = Pooling(encoder.model[0].get_embedding_dimension(), how)
    model = SentenceTransformer(modules=[encoder.model[0], pooling, Normalize()], device=str(encoder.model.device))
    return Encoder(model, name=f"{encoder.name}, {how}").encode


def rotated(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """The encoder's own vectors, noisy and turned by a key."""
    generator = torch.Generator().manual_seed(0)
    key = SecretRotation.draw(encoder.embed_dim, generator)
    noisy = apply(GaussianNoise(NOISE / encoder.embed_dim**0.5), encoder.encode(texts), generator).vectors
    return key.store(noisy)


def foreign_encoders(encoder: Encoder) -> dict[str, Encode]:
    """Those of the study, by name; three of them are made of the checkpoint's own encoder."""
    return {
        "wordllama": static_embedder(),
        "other pooling (max)": pooled(encoder, "max"),
        "other pooling (first token)": pooled(encoder, "cls"),
        "rotated, with noise": partial(rotated, encoder),
    }
