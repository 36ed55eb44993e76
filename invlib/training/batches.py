"""Batches of equal length, masked. Everything random in them is a function of (seed, batch number)."""

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from invlib.config import Config
from invlib.masking import mask_tokens, stratified_counts
from invlib.training.pairs import Pairs


@dataclass(frozen=True)
class Batch:
    """Sequences of one length, masked; and as many vectors of sentences of any length, for the length head.

    The length head cannot learn from the sequences: all of one length, they would pull it there and back.
    """

    x0: Int[Tensor, "rows length"]
    embedding: Float[Tensor, "rows embed"]
    noise_level: Float[Tensor, "rows"] | None  # None where the training adds no noise
    xt: Int[Tensor, "rows length"]
    dropped: Bool[Tensor, "rows"]  # which conditions are replaced by the null embedding
    any_embedding: Float[Tensor, "rows embed"]
    any_noise_level: Float[Tensor, "rows"] | None
    any_length: Int[Tensor, "rows"]
    size: int  # rows over all processes: what the loss is averaged over


class EqualLengthBatches:
    """Batch number → rows. Every epoch is a new order of the same rows, cut into batches of equal length."""

    def __init__(self, lengths: np.ndarray, rows: np.ndarray, batch_size: int, seed: int):
        self._rows, self.lengths = rows, np.asarray(lengths)[rows]
        self.batch_size, self.seed = batch_size, seed
        self.per_epoch = sum(-(-int(n) // batch_size) for n in np.bincount(self.lengths) if n)
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])

    def rows(self, number: int) -> np.ndarray:
        """The rows of micro-batch `number`, counted from the start of the run."""
        epoch, index = divmod(number, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._shuffled(epoch))
        return self._rows[self._epoch[1][index]]

    def any_rows(self, uniform: np.ndarray) -> np.ndarray:
        """Rows of any length, one for each number in [0, 1)."""
        return np.sort(self._rows[(uniform * len(self._rows)).astype(np.int64)])

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        order = order[np.argsort(self.lengths[order], kind="stable")]
        ends = np.flatnonzero(np.diff(self.lengths[order])) + 1
        batches = [
            group[start : start + self.batch_size]
            for group in np.split(order, ends)
            for start in range(0, len(group), self.batch_size)
        ]
        random.shuffle(batches)
        return batches


def make_batch(
    pairs: Pairs, batches: EqualLengthBatches, number: int, config: Config, accelerator: Accelerator
) -> Batch:
    """This process's share of micro-batch `number`, masked. The whole batch is drawn alike on every process."""
    rows = np.sort(batches.rows(number))  # in file order: memory maps like it
    length = int(pairs.lengths[rows[0]])
    seed = int(np.random.SeedSequence([config.training.seed, number]).generate_state(1, np.uint64)[0])
    generator = torch.Generator().manual_seed(seed >> 1)
    x0 = torch.from_numpy(pairs.tokens[rows, :length].astype(np.int64))
    lengths = torch.full((len(rows),), length)
    # The rows are sorted: without a shuffle the same corner of the corpus would get the same mask ratio.
    counts = stratified_counts(lengths, generator)[torch.randperm(len(rows), generator=generator)]
    xt = mask_tokens(x0, lengths, counts, config.model.mask_token_id, generator)
    dropped = torch.rand(len(rows), generator=generator) < config.training.condition_dropout
    any_rows = batches.any_rows(torch.rand(len(rows), generator=generator).numpy())
    tensors = (
        x0,
        *_maybe_noisy(pairs.embeddings[rows], config, generator),
        xt,
        dropped,
        *_maybe_noisy(pairs.embeddings[any_rows], config, generator),
        torch.from_numpy(pairs.lengths[any_rows].astype(np.int64)),
    )
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    shares = (None if value is None else value[share].to(accelerator.device) for value in tensors)
    return Batch(*shares, size=len(rows))


def _maybe_noisy(
    stored: Float[np.ndarray, "rows embed"], config: Config, generator: torch.Generator
) -> tuple[Float[Tensor, "rows embed"], Float[Tensor, "rows"] | None]:
    """The vectors, `noise_share` of them noisy, and their levels: y = x + level · z / √d, brought to unit length."""
    embedding = torch.from_numpy(stored.astype(np.float32))
    if not config.training.noise_share:
        return embedding, None
    share, uniform = torch.rand(2, len(embedding), generator=generator)
    level = torch.where(share < config.training.noise_share, uniform * config.training.max_noise, 0.0)
    noise = torch.randn(embedding.shape, generator=generator) / embedding.shape[1] ** 0.5
    return F.normalize(embedding + level[:, None] * noise, dim=1), level
