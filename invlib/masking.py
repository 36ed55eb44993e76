"""The forward process: how clean tokens x0 become partly masked xt, and the loss that undoes it.

Time runs from t = 0 (clean) to t = 1 (all masked); a token is still visible at t with probability
`alpha(t) = 1 - t`. Training masks an exact number k of tokens instead of flipping a coin per token: the
objective is the same (Sahoo et al. 2024, eq. 11; `int_0^1 C(L,k) t^(k-1) (1-t)^(L-k) dt = 1/k`), its variance
much smaller, and the fully masked state, where every inversion starts, is seen as often as any other.
"""

from collections.abc import Callable, Iterator

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
    batch = len(lengths)
    u0 = torch.rand((), generator=generator, dtype=torch.float64)
    u = (u0 + torch.arange(batch, dtype=torch.float64) / batch) % 1.0
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
    order = torch.rand(x0.shape, generator=generator).to(x0.device)
    order = order.masked_fill(~length_mask(lengths, x0.shape[1]), torch.inf)
    rank = order.argsort(dim=1).argsort(dim=1)
    return torch.where(rank < counts[:, None], mask_token_id, x0)


def sequence_mean(
    token_loss: Float[Tensor, "masked"],
    lengths: Int[Tensor, "masked"],
    counts: Int[Tensor, "masked"],
) -> Float[Tensor, "masked"]:
    """NELBO per token: every sequence counts by its mean over the k masked tokens (`weighting: nelbo`)."""
    return token_loss / counts


def low_variance(
    token_loss: Float[Tensor, "masked"],
    lengths: Int[Tensor, "masked"],
    counts: Int[Tensor, "masked"],
) -> Float[Tensor, "masked"]:
    """Extra weight k / length: stresses high mask ratios, where only the vector can tell the tokens.

    The factor 2 keeps the size of the loss (the mean of k / length is one half).
    """
    return 2 * token_loss / lengths


Weighting = Callable[[Tensor, Tensor, Tensor], Tensor]
WEIGHTINGS: dict[str, Weighting] = {"nelbo": sequence_mean, "low_variance": low_variance}


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


class LinearCrossEntropy(torch.autograd.Function):
    """-log p(target) per row for logits = hidden @ table.T, without ever holding the fp32 logits.

    Rows go through in chunks that stay in the cache; what is kept for the backward pass is the gradient of the
    logits, in the working precision. `forbidden` is a token that gets no probability (SUBS).
    """

    CHUNK = 128

    @staticmethod
    def forward(ctx, hidden: Tensor, table: Tensor, target: Tensor, forbidden: int) -> Tensor:
        losses = torch.empty(len(hidden), device=hidden.device)
        gradient = torch.empty(len(hidden), len(table), dtype=table.dtype, device=hidden.device)
        for start in range(0, len(hidden), LinearCrossEntropy.CHUNK):
            rows = slice(start, start + LinearCrossEntropy.CHUNK)
            logits = (hidden[rows] @ table.T).float()
            logits[:, forbidden] = -torch.inf
            wanted = target[rows, None]
            probabilities = logits.softmax(dim=1)
            # The log of the sum from the largest term, of probability 1 / vocab or more: one pass of exp, not two.
            top, at = logits.max(dim=1, keepdim=True)
            log_sum = top - probabilities.gather(1, at).log()
            losses[rows] = (log_sum - logits.gather(1, wanted))[:, 0]
            probabilities.scatter_add_(1, wanted, torch.full_like(log_sum, -1.0))
            gradient[rows] = probabilities
        ctx.save_for_backward(hidden, table, gradient)
        return losses

    @staticmethod
    def backward(ctx, grad_losses: Tensor):
        hidden, table, gradient = ctx.saved_tensors
        weight = grad_losses[:, None].to(gradient.dtype)  # applied on the narrow side: the gradient is vocab wide
        # Where the table is frozen (attackers), its half of the work is spared.
        for_table = gradient.T @ (hidden * weight) if ctx.needs_input_grad[1] else None
        return (gradient @ table) * weight, for_table, None, None


def diffusion_loss(
    hidden: Float[Tensor, "masked hidden"],
    table: Float[Tensor, "vocab hidden"],
    x0: Int[Tensor, "batch length"],
    masked: Bool[Tensor, "batch length"],
    lengths: Int[Tensor, "batch"],
    *,
    mask_token_id: int,
    weighting: Weighting = sequence_mean,
) -> Float[Tensor, ""]:
    """Cross-entropy at the masked positions, weighted per sequence and averaged over the batch, in nats.

    hidden: the model's last states at the masked positions, in the row-major order of `masked`; logits are
    hidden @ table.T.
    """
    row = masked.nonzero()[:, 0]
    counts = masked.sum(dim=1)
    token_loss = LinearCrossEntropy.apply(hidden, table, x0[masked], mask_token_id)
    return weighting(token_loss, lengths[row], counts[row]).sum() / len(x0)
