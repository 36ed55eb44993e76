"""What training minimises: the cross-entropy at the masked positions, and how sequences are weighted."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

CHUNK, LARGE = 128, 2**29  # rows at once on a CPU; logits at once elsewhere
EVEN = 64  # an accelerator multiplies matrices slowly whose rows are no round number of bytes


class LinearCrossEntropy(torch.autograd.Function):
    """-log p(target) per row for logits = hidden @ table.T, without ever holding the fp32 logits.

    What is kept for the backward pass is the gradient of the logits, in the working precision. `forbidden` gets no
    probability (SUBS).
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, table: Tensor, target: Tensor, forbidden: int, softmax: Callable) -> Tensor:
        ctx.vocab = len(table)
        if hidden.device.type == "cpu":
            losses, gradient = _in_cache(hidden, table, target, forbidden)
        else:
            table, size = F.pad(table, (0, 0, 0, -len(table) % EVEN)), max(1, LARGE // len(table))
            pieces = zip(hidden.split(size), target.split(size), strict=True)
            parts = [softmax(some @ table.T, wanted, forbidden, ctx.vocab) for some, wanted in pieces]
            losses, gradient = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        ctx.save_for_backward(hidden, table, gradient)
        return losses

    @staticmethod
    def backward(ctx, grad_losses: Tensor):
        hidden, table, gradient = ctx.saved_tensors
        weight = grad_losses[:, None].to(gradient.dtype)  # applied on the narrow side: the gradient is vocab wide
        # Where the table is frozen (attackers), its half of the work is spared.
        for_table = (gradient.T @ (hidden * weight))[: ctx.vocab] if ctx.needs_input_grad[1] else None
        return (gradient @ table) * weight, for_table, None, None, None


def _in_cache(hidden: Tensor, table: Tensor, target: Tensor, forbidden: int) -> tuple[Tensor, Tensor]:
    """`softmax_loss` on a CPU, in chunks of rows that stay in its cache."""
    losses, gradient = torch.empty(len(hidden)), torch.empty(len(hidden), len(table), dtype=table.dtype)
    for start in range(0, len(hidden), CHUNK):
        rows = slice(start, start + CHUNK)
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
    return losses, gradient


def softmax_loss(
    logits: Float[Tensor, "rows padded"], target: Int[Tensor, "rows"], forbidden: int, vocab: int
) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows padded"]]:
    """-log p(target), and its gradient in the precision of the logits. For a compiler, that makes few passes of it."""
    column = torch.arange(logits.shape[1], device=logits.device)
    log_probs = logits.float().masked_fill((column == forbidden) | (column >= vocab), -torch.inf).log_softmax(dim=1)
    gradient = log_probs.exp() - (column == target[:, None]).float()
    return -log_probs.gather(1, target[:, None])[:, 0], gradient.to(logits.dtype)


def diffusion_loss(
    hidden: Float[Tensor, "masked hidden"],
    table: Float[Tensor, "vocab hidden"],
    x0: Int[Tensor, "batch length"],
    places: Int[Tensor, "masked"],
    *,
    mask_token_id: int,
    weighting: str = "nelbo",
    softmax: Callable = softmax_loss,
) -> Float[Tensor, ""]:
    """Cross-entropy at the masked positions, weighted per sequence and averaged over the batch, in nats.

    hidden: the model's last states at `places`, the masked positions of the flattened batch; logits are
    hidden @ table.T.
    weighting: "nelbo", the NELBO per token: every sequence counts by its mean over the k masked tokens; or
    "low_variance", by k / length times as much: it stresses high mask ratios, where only the vector can tell the
    tokens. A factor 2 keeps the size of the loss (the mean of k / length is one half).
    """
    token_loss = LinearCrossEntropy.apply(hidden, table, x0.flatten()[places], mask_token_id, softmax)
    if weighting == "low_variance":
        return token_loss.sum() / (x0.shape[1] / 2) / len(x0)
    row = places // x0.shape[1]
    counts = token_loss.new_zeros(len(x0)).index_add(0, row, torch.ones_like(token_loss))
    return (token_loss / counts[row]).sum() / len(x0)
