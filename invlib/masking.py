"""The forward process: how clean tokens x0 become partly masked xt.

Time runs from t = 0 (clean) to t = 1 (all masked); a token is still visible at t with probability
`alpha(t) = 1 - t`. Training masks an exact number k of tokens instead of flipping a coin per token: the
objective is the same (Sahoo et al. 2024, eq. 11; `int_0^1 C(L,k) t^(k-1) (1-t)^(L-k) dt = 1/k`), its variance
much smaller, and the fully masked state, where every inversion starts, is seen as often as any other.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def alpha(t: float) -> float:
    """Probability that a token is still visible at time t (linear schedule)."""
    return 1.0 - t


def length_mask(lengths: Int[Tensor, "batch"], max_length: int) -> Bool[Tensor, "batch length"]:
    """True at the positions that belong to each sequence.

    >>> length_mask(torch.tensor([1, 3]), 3).int().tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(max_length, device=lengths.device) < lengths[:, None]


def stratified_counts(lengths: Int[Tensor, "batch"], generator: torch.Generator | None = None) -> Int[Tensor, "batch"]:
    """How many tokens to mask in each sequence: uniform on 1 … length, stratified over the batch.

    One shared offset u0 and equal spacing, u_b = (u0 + b / batch) mod 1 (antithetic sampling as in MDLM),
    then k_b = ceil(u_b * length_b).
    """
    u0 = torch.rand((), generator=generator, dtype=torch.float64)
    u = (u0 + torch.arange(len(lengths), dtype=torch.float64) / len(lengths)) % 1.0
    counts = torch.ceil(u.to(lengths.device) * lengths).long()
    return torch.minimum(counts.clamp(min=1), lengths)  # u = 0 would mask nothing


def mask_tokens(
    x0: Int[Tensor, "batch length"],
    lengths: Int[Tensor, "batch"],
    counts: Int[Tensor, "batch"],
    mask_token_id: int,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch length"]:
    """xt: x0 with exactly counts[b] of the first lengths[b] tokens, chosen at random, masked. Padding stays."""
    order = torch.rand(x0.shape, generator=generator, device=generator and generator.device).to(x0.device)
    order = order.masked_fill(~length_mask(lengths, x0.shape[1]), torch.inf)
    rank = order.argsort(dim=1).argsort(dim=1)
    return torch.where(rank < counts[:, None], mask_token_id, x0)


def subs_logits(logits: Float[Tensor, "*rows vocab"], mask_token_id: int) -> Float[Tensor, "*rows vocab"]:
    """Zero masking probabilities (SUBS, Sahoo et al. 2024, §3.2.3): [MASK] is never a prediction."""
    return logits.index_fill(-1, torch.tensor([mask_token_id], device=logits.device), -torch.inf)


def log_probs_by_rows(
    logits: Float[Tensor, "rows vocab"], mask_token_id: int
) -> Iterator[tuple[slice, Float[Tensor, "some vocab"]]]:
    """log p(token) in fp32, some rows at a time: which rows, and theirs.

    As many rows as stay in the cache: writing all of them to memory would take as long as computing the logits.
    """
    numbers = 2**21 if logits.device.type == "cpu" else 2**27  # an accelerator wants few large pieces
    size = max(1, numbers // logits.shape[1])
    for start in range(0, len(logits), size):
        rows = slice(start, start + size)
        some = logits[rows].to(torch.float32, copy=True)
        some[:, mask_token_id] = -torch.inf  # what `subs_logits` does, without a second copy
        yield rows, some.log_softmax(dim=-1)
