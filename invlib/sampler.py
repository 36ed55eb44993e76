"""denoise(): from all masks to text, as a generator of Steps; and the policies that say what is uncovered next.

A policy is a function of a `Prediction` and a `Turn` and returns which masked positions become visible. For
`alpha(t) = 1 - t` Euler (tau-leaping) steps uncover with probability dt / t, which is exactly what `ancestral`
does, so Euler is not listed a second time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from invlib.errors import InputError
from invlib.masking import alpha, length_mask, subs_logits
from invlib.trajectory import Step

# (xt [rows, length], which rows of the batch these are) → logits at the masked positions, row-major.
Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Prediction:
    """What the model says about the masked positions of a batch."""

    masked: Bool[Tensor, "batch length"]
    log_probs: Float[Tensor, "masked vocab"]
    proposals: Int[Tensor, "masked"]  # the token that would be written: the likeliest, or a sample

    @cached_property
    def confidence(self) -> Float[Tensor, "batch length"]:
        """Probability of the proposal."""
        return self.grid(self.log_probs.gather(1, self.proposals[:, None])[:, 0].exp())

    @cached_property
    def margin(self) -> Float[Tensor, "batch length"]:
        """Probability of the likeliest token minus that of the second (Kim et al. 2025, arXiv 2502.06768)."""
        best = self.log_probs.topk(2, dim=1).values.exp()
        return self.grid(best[:, 0] - best[:, 1])

    @cached_property
    def entropy(self) -> Float[Tensor, "batch length"]:
        """Entropy of the prediction, in nats."""
        # p log p at p = 0 is 0, not NaN: [MASK] itself has log-probability -inf.
        return self.grid(torch.special.entr(self.log_probs.exp()).sum(dim=1), fill=torch.inf)

    def grid(self, values: Shaped[Tensor, "masked"], fill: float = -1) -> Shaped[Tensor, "batch length"]:
        """Values at the masked positions laid out over the batch; `fill` elsewhere."""
        grid = values.new_full(self.masked.shape, fill)
        grid[self.masked] = values
        return grid


@dataclass(frozen=True)
class Turn:
    """Where in the process we are: step `index` of `num_steps`, going from time t down to time s."""

    index: int
    num_steps: int
    quota: Int[Tensor, "batch"]  # how many positions an even schedule uncovers now
    noise: Callable[[], Float[Tensor, "batch length"]]  # uniform on [0, 1), drawn row by row

    @property
    def uncover_probability(self) -> float:
        """(alpha_s - alpha_t) / (1 - alpha_t): the chance that a masked token becomes visible in this step."""
        t, s = 1 - (self.index - 1) / self.num_steps, 1 - self.index / self.num_steps
        return (alpha(s) - alpha(t)) / (1 - alpha(t))


Policy = Callable[[Prediction, Turn], Tensor]


def top_confidence(prediction: Prediction, turn: Turn) -> Bool[Tensor, "batch length"]:
    """The most probable proposals first (MaskGIT; LLaDA's "low-confidence remasking")."""
    return _highest(prediction.confidence, prediction.masked, turn.quota)


def top_margin(prediction: Prediction, turn: Turn) -> Bool[Tensor, "batch length"]:
    """The clearest decisions first: largest gap between the two likeliest tokens (arXiv 2502.06768)."""
    return _highest(prediction.margin, prediction.masked, turn.quota)


def low_entropy(prediction: Prediction, turn: Turn) -> Bool[Tensor, "batch length"]:
    """The most peaked predictions first."""
    return _highest(-prediction.entropy, prediction.masked, turn.quota)


def random_order(prediction: Prediction, turn: Turn) -> Bool[Tensor, "batch length"]:
    """As many as the even schedule asks for, anywhere."""
    return _highest(turn.noise(), prediction.masked, turn.quota)


def left_to_right(prediction: Prediction, turn: Turn) -> Bool[Tensor, "batch length"]:
    """In reading order, as an autoregressive model would."""
    length = prediction.masked.shape[1]
    first_is_highest = torch.arange(length, 0.0, -1, device=prediction.masked.device)
    return _highest(first_is_highest.expand_as(prediction.masked), prediction.masked, turn.quota)


def ancestral(prediction: Prediction, turn: Turn) -> Bool[Tensor, "batch length"]:
    """Every masked token by its own coin, with probability (t - s) / t (MDLM, Sahoo et al. 2024, eq. 7).

    With `temperature=1` this is the exact reverse process.
    """
    return prediction.masked & (turn.noise() < turn.uncover_probability)


POLICIES: tuple[Policy, ...] = (
    top_confidence,
    top_margin,
    low_entropy,
    random_order,
    left_to_right,
    ancestral,
)


def denoise(
    predict: Predict,
    lengths: Int[Tensor, "batch"],
    *,
    mask_token_id: int,
    num_steps: int,
    policy: Policy = top_confidence,
    temperature: float = 0.0,
    top_k: int = 5,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Iterator[Step]:
    """Uncover all-mask sequences of the given lengths; yields num_steps + 1 Steps, the all-mask start first.

    predict: called only with the rows that changed since it was last asked: the model takes no time input.
    temperature: 0 writes the likeliest token, 1 samples from the model.
    generator: seeds one stream per row, so that a batch of two equals two batches of one; or those streams.

    Raises `InputError` for num_steps < 1, a negative temperature, or an empty batch.
    """
    _check(num_steps, temperature, lengths)
    streams = row_streams(len(lengths), generator)
    inside = length_mask(lengths, int(lengths.max()))
    tokens = torch.where(inside, mask_token_id, 0)
    confidence = torch.full(tokens.shape, torch.nan, device=tokens.device)
    calls, changed, log_probs = torch.zeros_like(lengths), torch.ones_like(lengths, dtype=torch.bool), None
    yield _step(0, num_steps, tokens, tokens != tokens, confidence, None, calls, top_k)

    for index in range(1, num_steps + 1):
        masked = (tokens == mask_token_id) & inside
        stale = changed & masked.any(dim=1)
        log_probs = _refreshed(predict, tokens, masked, stale, log_probs, mask_token_id)
        calls = calls + stale
        prediction = Prediction(masked, log_probs, _propose(log_probs, masked, temperature, streams))
        quota = masked.sum(dim=1) - lengths * (num_steps - index) // num_steps  # an even schedule, 0 masked at the end
        turn = Turn(index, num_steps, quota, lambda: _uniform(streams, lengths))
        uncovered = masked if index == num_steps else policy(prediction, turn) & masked
        tokens = torch.where(uncovered, prediction.grid(prediction.proposals), tokens)
        confidence = torch.where(uncovered, prediction.confidence, confidence)
        yield _step(index, num_steps, tokens, uncovered, confidence, prediction, calls, top_k)
        changed = uncovered.any(dim=1)
        log_probs = log_probs[(tokens == mask_token_id)[masked]]


def row_streams(batch: int, generator: torch.Generator | Sequence[torch.Generator] | None) -> list[torch.Generator]:
    """One stream of random numbers per row, each seeded by one draw from `generator`; ready streams stay."""
    if not (generator is None or isinstance(generator, torch.Generator)):
        return list(generator)
    seeds = torch.randint(2**62, (batch,), generator=generator)
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def _highest(score: Tensor, masked: Tensor, quota: Tensor) -> Tensor:
    """The `quota` masked positions with the highest score, in each row; ties go to the left."""
    score = score.masked_fill(~masked, -torch.inf)
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return masked & (rank < quota[:, None])


@torch.no_grad()  # here, not on the generator: there the caller's own code between two steps would run under it
def _refreshed(predict, tokens, masked, stale, log_probs, mask_token_id) -> Tensor:
    """Log-probabilities at all masked positions, asking the model only about the rows that are stale."""
    if not stale.any():
        return log_probs
    rows = stale.nonzero()[:, 0]
    logits = subs_logits(predict(tokens[rows], rows).float(), mask_token_id)
    fresh = logits.log_softmax(dim=-1)
    if stale.all() or log_probs is None:
        return fresh
    of_stale = stale[masked.nonzero()[:, 0]]  # which masked positions belong to stale rows
    merged = fresh.new_empty(len(of_stale), fresh.shape[1])
    merged[of_stale] = fresh
    merged[~of_stale] = log_probs[~of_stale]
    return merged


def _propose(log_probs: Tensor, masked: Tensor, temperature: float, streams: list) -> Tensor:
    """The token to write at each masked position.

    Gumbel noise in float64: in float32 its tail is cut, which silently lowers the temperature (arXiv 2409.02908).
    """
    if temperature == 0:
        return log_probs.argmax(dim=1)
    per_row = [
        torch.rand(int(n), log_probs.shape[1], generator=stream, dtype=torch.float64)
        for n, stream in zip(masked.sum(dim=1), streams, strict=True)
    ]
    uniform = torch.cat(per_row).to(log_probs.device)
    gumbel = -torch.log(-torch.log(uniform.clamp(min=torch.finfo(torch.float64).tiny)))
    return (log_probs.double() / temperature + gumbel).argmax(dim=1)


def _uniform(streams: list, lengths: Tensor) -> Tensor:
    noise = torch.zeros(len(streams), int(lengths.max()))
    for row, (stream, length) in enumerate(zip(streams, lengths.tolist(), strict=True)):
        noise[row, :length] = torch.rand(length, generator=stream)  # not max_length: independent of padding
    return noise.to(lengths.device)


def _step(index, num_steps, tokens, uncovered, confidence, prediction, calls, top_k) -> Step:
    top_ids = torch.full((*tokens.shape, top_k), -1, device=tokens.device)
    top_probs = torch.zeros((*tokens.shape, top_k), device=tokens.device)
    if prediction is not None and top_k:
        best = prediction.log_probs.topk(top_k, dim=1)
        top_ids[prediction.masked] = best.indices
        top_probs[prediction.masked] = best.values.exp()
    return Step(index, num_steps, tokens, uncovered, confidence, top_ids, top_probs, calls)


def _check(num_steps: int, temperature: float, lengths: Tensor) -> None:
    if num_steps < 1:
        raise InputError(f"num_steps must be at least 1, got {num_steps}")
    if not temperature >= 0:
        raise InputError(f"temperature must be 0 or more, got {temperature}")
    if len(lengths) == 0 or int(lengths.min()) < 1:
        raise InputError("every sequence needs a length of at least 1")
