"""Step, Trajectory: what was seen at every step of an inversion."""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from invlib.door.files import reading, write_atomically
from invlib.door.options import whole

FILE_BYTES = 2**26  # of a saved trajectory, unpacked too


@dataclass(frozen=True)
class Step:
    """A batch after step `index` of `num_steps`; step 0 is all masks, step `num_steps` has none."""

    index: int
    num_steps: int
    tokens: Int[Tensor, "batch length"]
    uncovered: Bool[Tensor, "batch length"]  # became visible in this step
    confidence: Float[Tensor, "batch length"]  # probability of the shown token when uncovered; NaN: masked; given: 1
    top_ids: Int[Tensor, "batch length top"]  # the model's likeliest tokens in this step; -1: not asked
    top_probs: Float[Tensor, "batch length top"]
    model_calls: Int[Tensor, "batch"]  # forward passes so far


@dataclass(frozen=True)
class Trajectory:
    """One inversion, step by step; it knows its own words, so that nothing else is needed to show it.

    Rows are steps 0 … num_steps, columns the positions of the sentence.
    """

    tokens: Int[np.ndarray, "step length"]
    confidence: Float[np.ndarray, "step length"]  # NaN where the position is still masked
    top_ids: Int[np.ndarray, "step length top"]  # -1 where the model was not asked
    top_probs: Float[np.ndarray, "step length top"]
    mask_token_id: int
    pieces: dict[int, str]  # token id → what a person is shown
    text: str

    @classmethod
    def from_steps(
        cls, steps: Sequence[Step], row: int, length: int, *, mask_token_id: int, pieces: Callable, text: str
    ) -> "Trajectory":
        """The history of one row of a batch, cut to its own length; `pieces` says what is shown for token ids."""
        kinds = {"tokens": np.int32, "confidence": np.float32, "top_ids": np.int32, "top_probs": np.float32}
        seen = {
            name: np.stack([getattr(step, name)[row, :length].cpu().numpy() for step in steps]).astype(dtype)
            for name, dtype in kinds.items()
        }
        ids = np.union1d(seen["tokens"], seen["top_ids"])
        ids = ids[ids >= 0].tolist()
        return cls(**seen, mask_token_id=mask_token_id, pieces=dict(zip(ids, pieces(ids), strict=True)), text=text)

    def __len__(self) -> int:
        """Number of positions."""
        return self.tokens.shape[1]

    @property
    def num_steps(self) -> int:
        """Number of steps after the all-mask start."""
        return len(self.tokens) - 1

    @property
    def masked(self) -> Bool[np.ndarray, "step length"]:
        """Where the text is still hidden."""
        return self.tokens == self.mask_token_id

    @property
    def pinned(self) -> Bool[np.ndarray, "length"]:
        """What was given from outside: visible from the start. A negative token is none: a search puts one there."""
        return ~self.masked[0] & (self.tokens[0] >= 0)

    @property
    def uncovered(self) -> Bool[np.ndarray, "step length"]:
        """What became visible in each step."""
        return np.diff(self.masked.astype(int), axis=0, prepend=self.masked[:1]) < 0

    @property
    def remasked(self) -> Bool[np.ndarray, "step length"]:
        """What was visible and became hidden again in each step."""
        return np.diff(self.masked.astype(int), axis=0, prepend=self.masked[:1]) > 0

    @property
    def uncovered_at(self) -> Int[np.ndarray, "length"]:
        """The step in which each position last changed from hidden to visible; 0 where it was pinned."""
        return np.where(self.pinned, 0, self.num_steps - self.uncovered[::-1].argmax(axis=0))

    def words(self, step: int) -> list[str]:
        """What a person sees at `step`: one piece per position, [MASK] where the text is hidden."""
        whole(-len(self.tokens), self.num_steps).check("step", step)
        return ["[MASK]" if token == self.mask_token_id else self.pieces[int(token)] for token in self.tokens[step]]

    def alternatives(self, step: int, position: int) -> list[tuple[str, float]]:
        """The model's likeliest pieces for a position in `step`, with probabilities; empty if it was not asked."""
        whole(-len(self.tokens), self.num_steps).check("step", step)
        whole(-len(self), len(self) - 1).check("position", position)
        ids, probs = self.top_ids[step, position], self.top_probs[step, position]
        return [(self.pieces[int(i)], float(p)) for i, p in zip(ids, probs, strict=True) if i >= 0]

    def packed(self) -> bytes:
        """One .npz without pickled objects."""
        arrays = {name: value for name, value in vars(self).items() if name != "pieces"}
        ids, texts = np.array(list(self.pieces), np.int32), np.array(list(self.pieces.values()), np.str_)
        np.savez_compressed(file := io.BytesIO(), piece_ids=ids, piece_texts=texts, **arrays)
        return file.getvalue()

    def save(self, path: str | Path) -> None:
        """Write what `packed` gives."""
        write_atomically(Path(path), lambda partial: Path(partial).write_bytes(self.packed()))

    @classmethod
    def load(cls, path: str | Path) -> "Trajectory":
        """Read what `save` wrote. Raises `InputError` for a file that is missing or something else."""
        with reading(path, "is not a saved trajectory", "write one with Trajectory.save", most=FILE_BYTES):
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > FILE_BYTES:
                    raise ValueError("unpacked, it is too large")
            with np.load(path, allow_pickle=False) as file:
                values = {name: file[name] for name in file.files}
            ids, texts = values.pop("piece_ids").tolist(), values.pop("piece_texts").tolist()
            values |= {"mask_token_id": int(values["mask_token_id"]), "text": str(values["text"])}
            read = cls(**values, pieces=dict(zip(ids, texts, strict=True)))
            if not read._is_sound():
                raise ValueError("its arrays do not fit together")
            return read

    def _is_sound(self) -> bool:
        """Are the arrays of one shape, and is there a piece for every token?"""
        shape, known = self.tokens.shape, {self.mask_token_id, -1, *self.pieces}
        fits = len(shape) == 2 and min(shape) > 0 and self.confidence.shape == shape
        fits = fits and self.top_ids.shape == self.top_probs.shape and self.top_ids.shape[:-1] == shape
        return fits and known.issuperset(np.union1d(self.tokens, self.top_ids).tolist())
