"""denoise(): from masks to text, as a generator of Steps, under one of the `policies`."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from invlib.door.files import guarded
from invlib.door.options import FUNCTION, GENERATOR, NOT_NEGATIVE, SHARE, Checked, Domain, whole, within
from invlib.errors import InputError, options_of
from invlib.masking import length_mask, log_probs_by_rows, subs_logits
from invlib.policies import Prediction, StepContext, is_looking_back, top_confidence
from invlib.trajectory import Step

BLOCK = 128  # tokens that are summed in one go

# (xt [rows, length], which rows of the batch these are, at which positions) → logits there, row-major.
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
Grid = Callable[[float], float]


def linear_grid(progress: float) -> float:
    """Time after a share of the steps: as many tokens in every step."""
    return 1 - progress


def cosine_grid(progress: float) -> float:
    """Time after a share of the steps: few tokens first, while little is known (MaskGIT, Chang et al. 2022)."""
    return math.cos(math.pi / 2 * progress)


@dataclass(frozen=True)
class Sampling(Checked):
    """How masks become tokens.

    policy: which positions are visible after the next step; one of `invlib.policies`.
    grid: share of the steps done → time t. temperature: 0 writes the likeliest token, 1 samples from the model.
    order_noise: how random the order of the confidence policies is; for drafts that differ.
    """

    num_steps: int = within(whole(1, 4096), default=8)
    policy: Any = within(Domain("a function such as invlib.policies.top_confidence", callable), default=top_confidence)
    grid: Grid = within(FUNCTION, default=linear_grid)
    temperature: float = within(NOT_NEGATIVE, default=0.0)
    order_noise: float = within(NOT_NEGATIVE, default=0.0)


def denoise(
    predict: Predict,
    lengths: Int[Tensor, "batch"],
    *,
    mask_token_id: int,
    start: Int[Tensor, "batch length"] | None = None,
    pinned: Bool[Tensor, "batch length"] | None = None,
    top_k: int = 5,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    **options: Any,
) -> Iterator[Step]:
    """Uncover sequences of the given lengths; yields num_steps + 1 Steps, the start first (Sahoo et al. 2024, §3).

    start: tokens to begin with (default: all masks). pinned: which of its tokens no policy changes (default: all).
    generator: seeds one stream per row, so that a batch of two equals two batches of one; or those streams.
    options: fields of `Sampling`. Raises `InputError` for what is outside their domain, a start without a mask, no row.
    """
    (how,), inside = options_of((Sampling,), options), _inside(lengths)
    streams, xt = row_streams(len(lengths), generator), _started(start, inside, mask_token_id)
    given = xt != mask_token_id
    pinned = given if pinned is None else given & pinned | ~inside
    free, everything = (~given).sum(dim=1), torch.ones_like(given)
    committed = torch.full(xt.shape, torch.nan, device=xt.device).masked_fill(given & inside, 1.0)
    ask = Remembered(predict, len(lengths), xt.device)
    yield _step((0, how.num_steps), xt, ~everything, committed, None, ask.calls, top_k)
    for index in range(1, how.num_steps + 1):
        masked = xt == mask_token_id
        asked = inside & (free > 0)[:, None] if is_looking_back(how.policy) else masked
        logits = ask(xt, asked)
        x0, confidence = _propose(logits, xt, asked, mask_token_id, how.temperature, streams)
        prediction = Prediction(masked, pinned, asked, logits, mask_token_id, x0, confidence, committed)
        with guarded("policy or grid failed", "they take (prediction, context), and the share of the steps done"):
            t, s = how.grid((index - 1) / how.num_steps), how.grid(index / how.num_steps)
            SHARE.check("what grid returns", s)
            context = StepContext(t, s, free, lambda: _uniform(streams, lengths), how.order_noise)
            visible = everything if index == how.num_steps else how.policy(prediction, context) | pinned
        uncovered, xt = masked & visible, torch.where(visible, x0, mask_token_id)
        committed = torch.where(uncovered, confidence, committed).masked_fill(~visible, torch.nan)
        yield _step((index, how.num_steps), xt, uncovered, committed, prediction, ask.calls, top_k)
        del prediction, logits  # before the model writes the next ones: they are the largest thing here


class Remembered:
    """`predict`, asked only about rows that changed: the model takes no time input. `calls`: forward passes by row."""

    def __init__(self, predict: Predict, batch: int, device: torch.device):
        self.predict, self.calls = predict, torch.zeros(batch, dtype=torch.long, device=device)
        self._xt = self._logits = None

    @torch.no_grad()
    def __call__(self, xt: Tensor, asked: Tensor) -> Tensor:
        """Logits at the asked positions, row-major."""
        row = asked.nonzero()[:, 0]
        changed = torch.ones(len(xt), dtype=torch.bool, device=xt.device)
        if self._xt is not None:
            changed = (xt != self._xt).any(dim=1)
            self._logits = self._logits[~changed[self._row]]  # those of changed rows go before new ones come
        stale = changed & asked.any(dim=1)
        self.calls = self.calls + stale
        fresh = stale[row]
        if fresh.any():
            new = self.predict(xt[stale], stale.nonzero()[:, 0], asked[stale])
            old, self._logits = self._logits, new if fresh.all() else new.new_empty(len(row), new.shape[1])
            if not fresh.all():
                self._logits[fresh], self._logits[~fresh] = new, old
        self._xt, self._row = xt, row
        return self._logits


def guided(
    conditional: Predict, unconditional: Predict, lengths: Int[Tensor, "batch"], scale: float, mask_token_id: int
) -> Predict:
    """uncond + w (cond - uncond) on log-probabilities, w going from 1, all masked, to `scale`, none masked."""

    def predict(xt: Tensor, rows: Tensor, at: Tensor) -> Tensor:
        cond, uncond = (
            subs_logits(part(xt, rows, at).float(), mask_token_id).log_softmax(dim=-1)
            for part in (conditional, unconditional)
        )
        visible = 1 - (xt == mask_token_id).sum(dim=1) / lengths[rows]
        w = 1 + (scale - 1) * visible[at.nonzero()[:, 0], None]
        return uncond + w * (cond - uncond)  # NaN at [MASK], which is forbidden anyway

    return predict


def row_streams(batch: int, generator: torch.Generator | Sequence[torch.Generator] | None) -> list[torch.Generator]:
    """One stream of random numbers per row, each seeded by one draw from `generator`; ready streams stay."""
    if isinstance(generator, Sequence):
        return list(generator)
    GENERATOR.check("generator", generator)
    seeds = torch.randint(2**62, (batch,), generator=generator)
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def _inside(lengths: Tensor) -> Tensor:
    if len(lengths) == 0 or int(lengths.min()) < 1:
        raise InputError("every sequence needs a length of at least 1")
    return length_mask(lengths, int(lengths.max()))


def _started(start: Tensor | None, inside: Tensor, mask_token_id: int) -> Tensor:
    padding = 0 if mask_token_id else 1  # any token but the mask
    if start is None:
        return torch.where(inside, mask_token_id, padding)
    if start.shape != inside.shape or not (inside & (start == mask_token_id)).any():
        raise InputError(
            f"start must have the shape {tuple(inside.shape)} and a masked position, got {tuple(start.shape)} with "
            f"{int((start == mask_token_id).sum())} masked; mask what is to be written"
        )
    return torch.where(inside, start, padding)


def _propose(
    logits: Tensor, xt: Tensor, asked: Tensor, mask_token_id: int, temperature: float, streams: list[torch.Generator]
) -> tuple[Int[Tensor, "batch length"], Float[Tensor, "batch length"]]:
    """The token of each asked position, chosen where it is masked, and its probability; NaN where not asked."""
    uniform = _uniform_where(xt == mask_token_id, streams)[asked] if temperature else None
    shown = xt[asked]
    written, probability = shown.clone(), torch.empty(len(shown), device=xt.device)
    for rows, log_probs in log_probs_by_rows(logits, mask_token_id):
        chosen = _sampled(log_probs, temperature, uniform[rows]) if temperature else _likeliest(log_probs)
        written[rows] = torch.where(shown[rows] == mask_token_id, chosen, shown[rows])
        probability[rows] = log_probs.gather(1, written[rows, None])[:, 0].exp()
    if probability.isnan().any():
        raise InputError("the model answers NaN: its weights are damaged, or too large for their precision")
    nowhere = torch.full(xt.shape, torch.nan, device=xt.device)
    return xt.masked_scatter(asked, written), nowhere.masked_scatter(asked, probability)


def _likeliest(log_probs: Tensor) -> Tensor:
    """The first of the most probable tokens of each row. On a CPU numpy's argmax takes a fifth of torch's time."""
    if log_probs.device.type != "cpu":
        return log_probs.argmax(dim=1)
    return torch.from_numpy(log_probs.numpy().argmax(axis=1))


def _sampled(log_probs: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """A token per row, by inverting the distribution function in float64: the block it is in, then its place there.

    It is what Gumbel noise in float64 does (in float32 its tail is cut, which silently lowers the temperature, arXiv
    2409.02908), for one random number instead of one a token, and one sum in float64 for each block.
    """
    coldest = 1e-30  # only the likeliest is left long before; below it, a quotient in float32 is no number
    probs = (log_probs / max(temperature, coldest)).softmax(dim=1)
    blocks = F.pad(probs, (0, -probs.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    block, share = _inverted(blocks.sum(dim=2), uniform)
    return block * BLOCK + _inverted(blocks[torch.arange(len(block), device=block.device), block], share)[0]


def _inverted(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row's number from [0, 1) falls among its weights, and how far into that weight: of [0, 1) again."""
    # Measured on the sum that came out, not on 1: rounding must not select what is behind the last weight.
    ends = weights.cumsum(dim=1, dtype=torch.float64)
    at = uniform[:, None] * ends[:, -1:]
    found = torch.searchsorted(ends, at, right=True)
    inside = (at - F.pad(ends, (1, 0)).gather(1, found)) / weights.gather(1, found)
    return found[:, 0], inside[:, 0].clamp(0, 1 - torch.finfo(torch.float64).eps)


def _uniform_where(masked: Tensor, streams: list) -> Tensor:
    """A number from [0, 1) for every masked position, in float64; 0 elsewhere."""
    grid = torch.zeros(masked.shape, dtype=torch.float64, device=masked.device)
    return grid.masked_scatter(masked, torch.cat(_drawn(masked.sum(dim=1), streams, torch.float64)).to(masked.device))


def _uniform(streams: list, lengths: Tensor) -> Tensor:
    """A number from [0, 1) for every position; as many as each row has, so that padding changes nothing."""
    return pad_sequence(_drawn(lengths, streams, torch.float32), batch_first=True).to(lengths.device)


def _drawn(counts: Tensor, streams: list, dtype: torch.dtype) -> list[Tensor]:
    return [torch.rand(n, generator=stream, dtype=dtype) for n, stream in zip(counts.tolist(), streams, strict=True)]


def _step(of: tuple[int, int], tokens, uncovered, confidence, prediction, calls, top_k) -> Step:
    top_ids = torch.full((*tokens.shape, top_k), -1, device=tokens.device)
    top_probs = torch.zeros((*tokens.shape, top_k), device=tokens.device)
    if prediction is not None and top_k:
        most = min(top_k, prediction.logits.shape[1])
        best = [
            log_probs.topk(most, dim=1)
            for _, log_probs in log_probs_by_rows(prediction.logits, prediction.mask_token_id)
        ]
        if best:
            top_ids[prediction.asked, :most] = torch.cat([some.indices for some in best])
            top_probs[prediction.asked, :most] = torch.cat([some.values for some in best]).exp()
    return Step(*of, tokens, uncovered, confidence, top_ids, top_probs, calls)
