"""Inverter: from vectors back to sentences. Joins model, tokenizer, sampler and (where asked) the encoder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from invlib import checkpoint
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.metrics import cosine
from invlib.model import ConditionalMDLM
from invlib.sampler import Policy, denoise, row_streams, top_confidence
from invlib.tokenizer import Tokenizer
from invlib.trajectory import Step, Trajectory

TOP_K = 5  # alternatives kept per position and step
LONG = 512  # vectors from which on a progress bar is shown


@dataclass(frozen=True)
class Inversion:
    """What came back: one entry per vector, in the order of the vectors."""

    texts: list[str]
    cosines: np.ndarray | None  # [n] of the re-encoded text to the vector; None where no encoder was used
    model_calls: np.ndarray  # [n] forward passes of the denoiser
    encoder_queries: np.ndarray  # [n] texts encoded
    trajectories: list[Trajectory]  # empty where they were not kept


class Inverter:
    """Open one with `Inverter.load`, then `invert(vectors)`.

    `encoder` is opened when it is first used; inverting without it (`verify=False`) never asks for it.
    """

    def __init__(self, model: ConditionalMDLM, tokenizer: Tokenizer, encoder: Encoder | None = None):
        self.model, self.tokenizer, self.config = model, tokenizer, model.config
        if encoder is not None:
            self.encoder = encoder

    @classmethod
    def load(
        cls,
        name: str | Path = "minilm",
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        encoder: Encoder | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> "Inverter":
        """Open a checkpoint: "minilm" (bundled), a folder that training wrote, or the published .pt file.

        encoder, tokenizer: already open ones, instead of those that the checkpoint's configuration names.
        Raises `InputError` for a checkpoint that is absent, damaged, of other shapes, or that would run code.
        """
        path = checkpoint.locate(name)
        model, config = checkpoint.read(path)
        if tokenizer is None:
            tokenizer = Tokenizer.load(path if path.is_dir() else config.decoder_tokenizer)
        return cls(model.to(device=device, dtype=dtype), tokenizer, encoder)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder whose vectors this checkpoint inverts."""
        return Encoder.load(self.config.encoder_model, device=self.model.device)

    def invert(
        self,
        vectors: Any,
        *,
        num_steps: int = 8,
        policy: Policy = top_confidence,
        temperature: float = 0.0,
        length: int | Sequence[int] | None = None,
        conditional: bool = True,
        verify: bool = False,
        keep_trajectories: bool = True,
        batch_size: int = 64,
        generator: torch.Generator | None = None,
    ) -> Inversion:
        """Vectors → sentences, starting from all masks.

        vectors: one [embed_dim] or many [n, embed_dim]; numpy, torch or lists; integers become float32. Only the
          direction counts: every vector is scaled to unit length, as the encoder's are.
        length: number of tokens, for all or per vector. Default: what the model predicts from the vector; a
          checkpoint without a length head decodes all its positions.
        conditional: False ignores the vectors (but for the lengths): what the model writes by itself, the prior.
        verify: encode each text once and report its cosine to the vector; costs one encoder query a vector.

        Raises `InputError` for a wrong dimension, NaN, infinite or zero vectors, no vector at all, num_steps < 1,
        a negative temperature, or a length that the model does not have.
        """
        vectors = check_vectors(vectors, self.config.embedding_cond_dim)
        lengths = self._lengths(vectors, length)
        streams = row_streams(len(vectors), generator)
        options = {"num_steps": num_steps, "policy": policy, "temperature": temperature, "conditional": conditional}
        found: dict[int, tuple[str, int, Trajectory | None]] = {}
        for rows in _by_length(lengths, batch_size):
            batch = {"generator": [streams[row] for row in rows], "top_k": TOP_K if keep_trajectories else 0}
            steps = list(self.steps(vectors[rows], lengths[rows], **batch, **options))
            for place, row in enumerate(rows):
                found[row] = self._outcome(steps, place, int(lengths[row]), keep_trajectories)
        texts, calls, trajectories = zip(*(found[row] for row in range(len(vectors))), strict=True)
        cosines, queries = self._verified(vectors, texts) if verify else (None, np.zeros(len(texts), int))
        kept = list(trajectories) if keep_trajectories else []
        return Inversion(list(texts), cosines, np.array(calls), queries, kept)

    def steps(
        self,
        vectors: np.ndarray,
        lengths: np.ndarray,
        *,
        conditional: bool = True,
        **options: Any,
    ) -> Iterator[Step]:
        """The Steps of one batch, as they happen; options are those of `sampler.denoise`."""
        embedding = torch.from_numpy(vectors).to(self.model.device)
        null = None
        if not conditional:
            null = torch.ones(len(vectors), dtype=torch.bool, device=self.model.device)
        with torch.inference_mode():
            modulation = self.model.modulation(embedding, null)
        lengths = torch.as_tensor(lengths, device=self.model.device)

        def predict(xt: Tensor, rows: Tensor) -> Tensor:
            return self.model(xt, modulation.rows(rows), lengths=lengths[rows])

        return denoise(predict, lengths, mask_token_id=self.config.mask_token_id, **options)

    @torch.inference_mode()
    def predict_lengths(self, vectors: Any) -> np.ndarray:
        """Number of tokens that the model expects of each vector, [n]; max_seq_len without a length head."""
        vectors = check_vectors(vectors, self.config.embedding_cond_dim)
        if not self.config.length_head:
            return np.full(len(vectors), self.config.max_seq_len)
        embedding = torch.from_numpy(vectors).to(self.model.device)
        return self.model.length_logits(embedding).argmax(dim=1).cpu().numpy() + 1

    def _lengths(self, vectors: np.ndarray, length: int | Sequence[int] | None) -> np.ndarray:
        if length is None:
            return self.predict_lengths(vectors)
        lengths = np.asarray(length)
        if lengths.ndim == 0:
            lengths = np.full(len(vectors), length)
        top = self.config.max_seq_len
        fits = lengths.shape == (len(vectors),) and lengths.dtype.kind in "iu"
        if not fits or lengths.min() < 1 or lengths.max() > top:
            raise InputError(
                f"length must be an integer from 1 to {top}, or one for each of the {len(vectors)} vectors; "
                f"got {length!r}"
            )
        return lengths

    def _outcome(self, steps: list[Step], place: int, length: int, keep: bool) -> tuple[str, int, Trajectory | None]:
        """Text, model calls and, if kept, the trajectory of one row of a finished batch."""
        text = self.tokenizer.decode(steps[-1].tokens[place, :length])
        trajectory = None
        if keep:
            trajectory = Trajectory.from_steps(
                steps,
                place,
                length,
                mask_token_id=self.config.mask_token_id,
                pieces=self.tokenizer.pieces,
                text=text,
            )
        return text, int(steps[-1].model_calls[place]), trajectory

    def _verified(self, vectors: np.ndarray, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        written = [row for row, text in enumerate(texts) if text.strip()]
        cosines, queries = np.zeros(len(texts)), np.zeros(len(texts), int)
        if written:
            again = self.encoder.encode([texts[row] for row in written])
            cosines[written] = cosine(again, vectors[written])
            queries[written] = 1
        return cosines, queries


def check_vectors(vectors: Any, embed_dim: int) -> np.ndarray:
    """Vectors as float32 [n, embed_dim] of unit length, or an `InputError` that names the offending row."""
    if isinstance(vectors, Tensor):
        vectors = vectors.detach().to("cpu", torch.float32).numpy()
    try:
        array = np.asarray(vectors)
    except ValueError:
        raise InputError("the vectors have unequal lengths; give a rectangular array") from None
    if array.size == 0:
        raise InputError("there is no vector to invert; give at least one")
    if array.dtype.kind not in "fiu":
        raise InputError(f"vectors must be numbers, got dtype {array.dtype}")
    array = np.atleast_2d(array).astype(np.float32)
    if array.ndim != 2 or array.shape[1] != embed_dim:
        raise InputError(
            f"got vectors of shape {np.shape(vectors)}; this checkpoint inverts {embed_dim}-dimensional vectors, "
            f"[{embed_dim}] or [n, {embed_dim}]"
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise InputError(
            f"vector {int(np.flatnonzero(~finite)[0])} has NaN or infinite entries; remove it or repair its source"
        )
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    if not norms.all():
        raise InputError(f"vector {int(np.flatnonzero(norms == 0)[0])} is all zeros; it has no direction to invert")
    return array / norms


def _by_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Rows in batches of similar length, so that little padding is computed; a progress bar when long."""
    order = np.argsort(lengths, kind="stable")
    with tqdm(total=len(order), desc="invert", unit=" vectors", disable=len(order) < LONG) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            yield rows
            bar.update(len(rows))
