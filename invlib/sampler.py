"""denoise(): from masks to text, as a generator of Steps, under one of the `policies`."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from invlib.errors import InputError
from invlib.masking import length_mask, log_probs_by_rows, subs_logits
from invlib.policies import Policy, Prediction, Turn, is_looking_back, top_confidence
from invlib.trajectory import Step

# (xt [rows, length], which rows of the batch these are, at which positions) → logits there, row-major.
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
Grid = Callable[[float], float]


def linear(progress: float) -> float:
    """Time after a share of the steps: as many tokens in every step."""
    return 1 - progress


def cosine(progress: float) -> float:
    """Time after a share of the steps: few tokens first, while little is known (MaskGIT, Chang et al. 2022)."""
    return math.cos(math.pi / 2 * progress)


def denoise(
    predict: Predict,
    lengths: Int[Tensor, "batch"],
    *,
    mask_token_id: int,
    num_steps: int,
    policy: Policy = top_confidence,
    grid: Grid = linear,
    temperature: float = 0.0,
    order_noise: float = 0.0,
    start: Int[Tensor, "batch length"] | None = None,
    pinned: Bool[Tensor, "batch length"] | None = None,
    top_k: int = 5,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Iterator[Step]:
    """Uncover sequences of the given lengths; yields num_steps + 1 Steps, the start first.

    predict: called only with the rows that changed since it was last asked: the model takes no time input.
    grid: share of the steps done → time t, e.g. `linear` or `cosine`.
    temperature: 0 writes the likeliest token, 1 samples from the model.
    order_noise: how random the order of the confidence policies is; for drafts that differ.
    start: tokens to begin with. Default: all masks.
    pinned: which visible tokens of the start no policy changes. Default: all of them.
    generator: seeds one stream per row, so that a batch of two equals two batches of one; or those streams.

    Raises `InputError` for num_steps < 1, a negative temperature or order_noise, a start without a mask, or an empty
    batch.
    """
    _check(num_steps, temperature, order_noise, lengths)
    streams = row_streams(len(lengths), generator)
    inside = length_mask(lengths, int(lengths.max()))
    tokens = _started(start, inside, mask_token_id)
    given = tokens != mask_token_id
    pinned = given if pinned is None else given & pinned | ~inside
    free = (~given).sum(dim=1)
    committed = torch.full(tokens.shape, torch.nan, device=tokens.device).masked_fill(given & inside, 1.0)
    looks_back = is_looking_back(policy)
    calls, changed, known = torch.zeros_like(lengths), torch.ones_like(lengths, dtype=torch.bool), None
    yield _step(0, num_steps, tokens, torch.zeros_like(given), committed, None, calls, top_k)

    for index in range(1, num_steps + 1):
        masked = tokens == mask_token_id
        asked = inside & (free > 0)[:, None] if looks_back else masked
        stale = changed & asked.any(dim=1)
        known = _refreshed(predict, tokens, asked, stale, known)
        calls = calls + stale

        def leave_one_out(tokens=tokens, visible=~masked & ~pinned):
            nonlocal calls
            calls = calls + visible.sum(dim=1)
            return support(predict, tokens, visible, mask_token_id)

        uniform = _uniform_where(masked, streams)[asked] if temperature else None
        written, probability = _propose(known, tokens[asked], mask_token_id, temperature, uniform)
        proposals = tokens.masked_scatter(asked, written)
        confidence = torch.full_like(committed, torch.nan).masked_scatter(asked, probability)
        prediction = Prediction(
            masked, pinned, asked, known, mask_token_id, proposals, confidence, committed, leave_one_out
        )
        times = grid((index - 1) / num_steps), grid(index / num_steps)
        turn = Turn(index, num_steps, *times, free, lambda: _uniform(streams, lengths), order_noise)
        visible = torch.ones_like(masked) if index == num_steps else policy(prediction, turn) | pinned
        uncovered = masked & visible
        before, tokens = tokens, torch.where(visible, proposals, mask_token_id)
        committed = torch.where(uncovered, confidence, committed).masked_fill(~visible, torch.nan)
        yield _step(index, num_steps, tokens, uncovered, committed, prediction, calls, top_k)
        changed = (tokens != before).any(dim=1)
        known = known[~changed[asked.nonzero()[:, 0]]]
        del prediction  # its logits, before the model writes the next ones


def leave_one_out(
    predict: Predict, tokens: Int[Tensor, "batch length"], at: Bool[Tensor, "batch length"], mask_token_id: int
) -> Float[Tensor, "asked vocab"]:
    """log p(. | all other tokens) for every position of `at`, row-major: each is masked alone, a model call each."""
    row, position = at.nonzero(as_tuple=True)
    only = torch.zeros(len(row), tokens.shape[1], dtype=torch.bool, device=tokens.device)
    only[torch.arange(len(row), device=tokens.device), position] = True
    logits = _ask(predict, tokens[row].masked_fill(only, mask_token_id), row, only)
    return subs_logits(logits.float(), mask_token_id).log_softmax(dim=-1)


def support(
    predict: Predict, tokens: Int[Tensor, "batch length"], at: Bool[Tensor, "batch length"], mask_token_id: int
) -> Float[Tensor, "batch length"]:
    """Leave-one-out log-probability of the tokens that stand at `at`; NaN elsewhere."""
    grid = torch.full(tokens.shape, torch.nan, device=tokens.device)
    if at.any():
        log_probs = leave_one_out(predict, tokens, at, mask_token_id)
        grid[at] = log_probs.gather(1, tokens[at][:, None])[:, 0]
    return grid


def row_streams(batch: int, generator: torch.Generator | Sequence[torch.Generator] | None) -> list[torch.Generator]:
    """One stream of random numbers per row, each seeded by one draw from `generator`; ready streams stay."""
    if not (generator is None or isinstance(generator, torch.Generator)):
        return list(generator)
    seeds = torch.randint(2**62, (batch,), generator=generator)
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


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


@torch.no_grad()
def _ask(predict: Predict, tokens: Tensor, rows: Tensor, at: Tensor) -> Tensor:
    return predict(tokens, rows, at)


def _refreshed(predict, tokens, asked, stale, known) -> Tensor:
    """Logits at the asked positions; only the stale rows ask the model, `known` are those of the others."""
    of_stale = stale[asked.nonzero()[:, 0]]  # which asked positions belong to stale rows
    if not of_stale.any():
        return known
    rows = stale.nonzero()[:, 0]
    fresh = _ask(predict, tokens[rows], rows, asked[rows])
    if of_stale.all():
        return fresh
    merged = fresh.new_empty(len(of_stale), fresh.shape[1])
    merged[of_stale] = fresh
    merged[~of_stale] = known
    return merged


def _propose(
    logits: Tensor, tokens: Tensor, mask_token_id: int, temperature: float, uniform: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The token of each asked position, chosen where it is masked, and its probability."""
    written, probability = tokens.clone(), torch.empty(len(tokens), device=tokens.device)
    for rows, log_probs in log_probs_by_rows(logits, mask_token_id):
        chosen = _sampled(log_probs, temperature, uniform[rows]) if temperature else log_probs.argmax(dim=1)
        written[rows] = torch.where(tokens[rows] == mask_token_id, chosen, tokens[rows])
        probability[rows] = log_probs.gather(1, written[rows, None])[:, 0].exp()
    return written, probability


def _sampled(log_probs: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """A token per row, by inverting the distribution function in float64.

    It is what Gumbel noise in float64 does (in float32 its tail is cut, which silently lowers the temperature, arXiv
    2409.02908), for one random number instead of one a token.
    """
    cumulative = (log_probs.double() / temperature).softmax(dim=1).cumsum(dim=1)
    # Measured on the sum that came out, not on 1: rounding must not select the token behind the last one.
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]


def _uniform_where(masked: Tensor, streams: list) -> Tensor:
    """A number from [0, 1) for every masked position, in float64; 0 elsewhere."""
    counts = masked.sum(dim=1).tolist()
    drawn = [torch.rand(n, generator=stream, dtype=torch.float64) for n, stream in zip(counts, streams, strict=True)]
    grid = torch.zeros(masked.shape, dtype=torch.float64, device=masked.device)
    return grid.masked_scatter(masked, torch.cat(drawn).to(masked.device))


def _uniform(streams: list, lengths: Tensor) -> Tensor:
    noise = torch.zeros(len(streams), int(lengths.max()))
    for row, (stream, length) in enumerate(zip(streams, lengths.tolist(), strict=True)):
        noise[row, :length] = torch.rand(length, generator=stream)  # not max_length: independent of padding
    return noise.to(lengths.device)


def _step(index, num_steps, tokens, uncovered, confidence, prediction, calls, top_k) -> Step:
    top_ids = torch.full((*tokens.shape, top_k), -1, device=tokens.device)
    top_probs = torch.zeros((*tokens.shape, top_k), device=tokens.device)
    if prediction is not None and top_k:
        best = [log_probs.topk(top_k, dim=1) for _, log_probs in prediction.log_probs_by_rows()]
        if best:
            top_ids[prediction.asked] = torch.cat([some.indices for some in best])
            top_probs[prediction.asked] = torch.cat([some.values for some in best]).exp()
    return Step(index, num_steps, tokens, uncovered, confidence, top_ids, top_probs, calls)


def _check(num_steps: int, temperature: float, order_noise: float, lengths: Tensor) -> None:
    if num_steps < 1:
        raise InputError(f"num_steps must be at least 1, got {num_steps}")
    for name, value in (("temperature", temperature), ("order_noise", order_noise)):
        if not 0 <= value < math.inf:
            raise InputError(f"{name} must be 0 or more, got {value}")
    if len(lengths) == 0 or int(lengths.min()) < 1:
        raise InputError("every sequence needs a length of at least 1")
