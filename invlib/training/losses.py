"""What training minimises: the cross-entropy at the masked positions, and how sequences are weighted."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class LinearCrossEntropy(torch.autograd.Function):
    """-log p(target) per row for logits = hidden @ table.T, without ever holding the fp32 logits.

    Rows go through in chunks that stay in the cache, or are large on an accelerator; what is kept for the backward
    pass is the gradient of the logits, in the working precision. `forbidden` gets no probability (SUBS).
    """

    CHUNK, LARGE = 128, 2**28  # rows on a CPU; numbers elsewhere

    @staticmethod
    def forward(ctx, hidden: Tensor, table: Tensor, target: Tensor, forbidden: int) -> Tensor:
        losses = torch.empty(len(hidden), device=hidden.device)
        gradient = torch.empty(len(hidden), len(table), dtype=table.dtype, device=hidden.device)
        on_cpu = hidden.device.type == "cpu"
        size = LinearCrossEntropy.CHUNK if on_cpu else max(1, LinearCrossEntropy.LARGE // len(table))
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
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
    places: Int[Tensor, "masked"],
    *,
    mask_token_id: int,
    weighting: str = "nelbo",
) -> Float[Tensor, ""]:
    """Cross-entropy at the masked positions, weighted per sequence and averaged over the batch, in nats.

    hidden: the model's last states at `places`, the masked positions of the flattened batch; logits are
    hidden @ table.T.
    weighting: "nelbo", the NELBO per token: every sequence counts by its mean over the k masked tokens; or
    "low_variance", by k / length times as much: it stresses high mask ratios, where only the vector can tell the
    tokens. A factor 2 keeps the size of the loss (the mean of k / length is one half).
    """
    token_loss = LinearCrossEntropy.apply(hidden, table, x0.flatten()[places], mask_token_id)
    if weighting == "low_variance":
        return token_loss.sum() / (x0.shape[1] / 2) / len(x0)
    row = places // x0.shape[1]
    counts = token_loss.new_zeros(len(x0)).index_add(0, row, torch.ones_like(token_loss))
    return (token_loss / counts[row]).sum() / len(x0)
