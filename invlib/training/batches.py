"""Batches of equal length, masked. Everything random in them is a function of (seed, batch number)."""

import bisect
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from invlib.config import Config
from invlib.corrector import Hypothesis
from invlib.errors import InputError
from invlib.masking import mask_tokens, stratified_counts
from invlib.training.pairs import Pairs, Rows


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
    hypothesis: Hypothesis | None = None  # of the sequences, where they are to be corrected
    any_hypothesis: Hypothesis | None = None
    places: Int[Tensor, "masked"] | None = None  # where xt, flattened, is masked; None: not known before it is asked


@dataclass(frozen=True)
class Drafts:
    """Texts to be corrected: a hypothesis for each of some rows of the pairs [drafts], where the training runs."""

    rows: Int[np.ndarray, "drafts"]
    hypotheses: Hypothesis

    def __len__(self) -> int:
        return len(self.rows)


class Mix:
    """The rows of every epoch: of each group its share, and all of a group before any of its rows comes twice.

    An epoch is as long as it can be without a repetition. Without shares there is one group, and an epoch is all of it.
    """

    def __init__(self, groups: Sequence[np.ndarray], shares: Sequence[float], seed: int):
        self.groups, self.seed = groups, seed
        size = min(len(group) / share for group, share in zip(groups, shares, strict=True))
        self.counts = [max(1, round(size * share)) for share in shares]

    @classmethod
    def by_source(cls, pairs: Pairs, rows: np.ndarray, mix: Mapping[str, float], seed: int) -> "Mix":
        """Groups of `rows` by the patterns of `mix`; a row of a source that fits none is not seen.

        Raises `InputError` for a pattern that no row fits.
        """
        if not mix:
            return cls([rows], [1.0], seed)
        first = [next((k for k, p in enumerate(mix) if fnmatch(name, p)), -1) for name in pairs.source_names]
        group_of_row = np.array(first)[pairs.sources[rows]]
        groups = [rows[group_of_row == k] for k in range(len(mix))]
        for pattern, group in zip(mix, groups, strict=True):
            if not len(group):
                raise InputError(f"no sentence has a source that fits {pattern!r} of mix first; take the pattern out")
        return cls(groups, list(mix.values()), seed)

    def rows(self, epoch: int) -> np.ndarray:
        """The rows of an epoch, group by group."""
        return np.concatenate([self._turn(k, epoch * n, n) for k, n in enumerate(self.counts)])

    def _turn(self, k: int, start: int, count: int) -> np.ndarray:
        """`count` rows of group k, from place `start` of its endless sequence of random orders."""
        group = self.groups[k]
        orders, places = np.divmod(np.arange(start, start + count), len(group))
        permutations = {n: np.random.default_rng([self.seed, k, n]).permutation(len(group)) for n in np.unique(orders)}
        return group[np.concatenate([order[places[orders == n]] for n, order in permutations.items()])]


class EqualLengthBatches:
    """Batch number → rows. Every epoch of the mix is cut into batches of equal length, in a random order."""

    def __init__(self, lengths: np.ndarray, mix: Mix, batch_size: int):
        self.lengths, self.mix, self.batch_size = lengths, mix, batch_size
        self._starts = [0]  # number of the first batch of each epoch that was met so far, and of the next
        self._batches_of = functools.lru_cache(maxsize=1)(self._cut)

    def rows(self, number: int) -> np.ndarray:
        """The rows of micro-batch `number`, counted from the start of the run."""
        epoch = self._epoch(number)
        return self._batches_of(epoch)[0][number - self._starts[epoch]]

    def any_rows(self, number: int, uniform: np.ndarray) -> np.ndarray:
        """Rows of any length of the epoch of micro-batch `number`, one for each number in [0, 1)."""
        rows = self._batches_of(self._epoch(number))[1]
        return np.sort(rows[(uniform * len(rows)).astype(np.int64)])

    def _epoch(self, number: int) -> int:
        while number >= self._starts[-1]:
            self._starts.append(self._starts[-1] + len(self._batches_of(len(self._starts) - 1)[0]))
        return bisect.bisect_right(self._starts, number) - 1

    def _cut(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        random = np.random.default_rng([self.mix.seed, epoch])
        rows = random.permutation(self.mix.rows(epoch))
        rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        groups = np.split(rows, np.flatnonzero(np.diff(self.lengths[rows])) + 1)
        # Nearly equal parts: a batch of the few that are left over would weigh as much as a whole one.
        batches = [part for group in groups for part in np.array_split(group, -(-len(group) // self.batch_size))]
        random.shuffle(batches)
        return batches, np.concatenate(batches)


def make_batch(
    pairs: Pairs,
    batches: EqualLengthBatches,
    number: int,
    config: Config,
    accelerator: Accelerator,
    drafts: Drafts | None = None,
) -> Batch:
    """This process's share of micro-batch `number`, masked. The whole batch is drawn alike on every process.

    drafts: what is to be corrected; the batches are then of these. A corrector never hears the null embedding.
    Nothing waits for an accelerator: the host knows how many tokens it has masked.
    """
    own = np.sort(batches.rows(number))  # in file order: memory maps like it
    rows = own if drafts is None else drafts.rows[own]
    length, device = int(pairs.lengths[rows[0]]), accelerator.device
    seed = int(np.random.SeedSequence([config.training.seed, number]).generate_state(1, np.uint64)[0]) >> 1
    host = torch.Generator().manual_seed(seed)
    large = host if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
    lengths = torch.full((len(rows),), length)
    # The rows are sorted: without a shuffle the same corner of the corpus would get the same mask ratio.
    counts = stratified_counts(lengths, host)[torch.randperm(len(rows), generator=host)]
    x0 = _taken(pairs.tokens, rows, device)[:, :length].long()
    xt = mask_tokens(x0, _sent(lengths, device), _sent(counts, device), config.model.mask_token_id, large)
    dropout = 0.0 if drafts else config.training.condition_dropout
    dropped = torch.rand(len(rows), generator=large, device=device) < dropout
    any_own = batches.any_rows(number, torch.rand(len(rows), generator=host).numpy())
    any_rows = any_own if drafts is None else drafts.rows[any_own]
    noisy = [_maybe_noisy(_taken(pairs.embeddings, own, device), config, large) for own in (rows, any_rows)]
    any_length = _sent(torch.from_numpy(pairs.lengths[any_rows].astype(np.int64)), device)
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    tensors = (x0, *noisy[0], xt, dropped, *noisy[1], any_length)
    shares = [None if value is None else value[share] for value in tensors]
    is_masked = (shares[3] == config.model.mask_token_id).flatten()
    # A stable sort, not `nonzero`, whose size only the device would know.
    places = is_masked.int().argsort(descending=True, stable=True)[: int(counts[share].sum())]
    seen = [drafts and drafts.hypotheses.rows(_sent(torch.from_numpy(each[share]), device)) for each in (own, any_own)]
    return Batch(*shares, len(rows), *seen, places)


def _taken(values: np.ndarray | Rows | Tensor, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows of what lies in memory, on disk, or on the device already."""
    if isinstance(values, Tensor):
        return values[_sent(torch.from_numpy(rows), values.device)]
    return _sent(torch.from_numpy(values[rows]), device)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for it: only from pinned memory a copy runs by itself."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _maybe_noisy(
    stored: Float[Tensor, "rows embed"], config: Config, generator: torch.Generator
) -> tuple[Float[Tensor, "rows embed"], Float[Tensor, "rows"] | None]:
    """The vectors, `noise_share` of them noisy, and their levels: y = x + level · z / √d, brought to unit length."""
    embedding, drawn = stored.float(), {"generator": generator, "device": stored.device}
    if not config.training.noise_share:
        return embedding, None
    share, uniform = torch.rand(2, len(embedding), **drawn)
    level = torch.where(share < config.training.noise_share, uniform * config.training.max_noise, 0.0)
    noise = torch.randn(embedding.shape, **drawn) / embedding.shape[1] ** 0.5
    return F.normalize(embedding + level[:, None] * noise, dim=1), level
