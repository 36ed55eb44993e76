"""The loss of training, against torch's own and by hand."""

import pytest
import torch
from torch.nn import functional as F

from invlib.masking import subs_logits
from invlib.training.losses import LinearCrossEntropy, diffusion_loss, softmax_loss

MASK = 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places(masked: torch.Tensor) -> torch.Tensor:
    return masked.flatten().nonzero()[:, 0]


def test_low_variance_weighs_a_sequence_by_its_mask_ratio_and_keeps_the_size_of_the_loss():
    x0, masked = torch.full((8, 8), 5), torch.ones(8, 8).tril().bool()  # k uniform on 1 … 8
    alike = torch.zeros(int(masked.sum()), 4), torch.zeros(9, 4)  # every token's loss is the same
    nelbo, low_variance = (
        diffusion_loss(*alike, x0, places(masked), mask_token_id=MASK, weighting=name)
        for name in ("nelbo", "low_variance")
    )
    torch.testing.assert_close(low_variance / nelbo, torch.tensor(1 + 1 / 8))  # k / length is one half but for 1 / 16


@pytest.mark.parametrize("rows", [1, 127, 300])
def test_chunked_cross_entropy_equals_torchs_with_its_gradients(rows):
    hidden = torch.randn(rows, 16, generator=generator(), requires_grad=True)
    table = torch.randn(50, 16, generator=generator(1), requires_grad=True)
    target = torch.randint(5, 50, (rows,), generator=generator(2))
    weight = torch.rand(rows, generator=generator(3))
    plain = F.cross_entropy(subs_logits(hidden @ table.T, MASK), target, reduction="none")
    expected = torch.autograd.grad((plain * weight).sum(), (hidden, table))
    ours = LinearCrossEntropy.apply(hidden, table, target, MASK, softmax_loss)
    found = torch.autograd.grad((ours * weight).sum(), (hidden, table))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(found, expected)


def test_what_an_accelerator_computes_equals_it_and_leaves_the_padded_columns_alone():
    logits = torch.randn(30, 64, generator=generator(), requires_grad=True)
    target = torch.randint(5, 50, (30,), generator=generator(2))
    plain = F.cross_entropy(subs_logits(logits[:, :50], MASK), target, reduction="none")
    (expected,) = torch.autograd.grad(plain.sum(), logits)
    losses, gradient = softmax_loss(logits.detach(), target, MASK, 50)
    torch.testing.assert_close(losses, plain)
    torch.testing.assert_close(gradient, expected)


def test_cross_entropy_of_bf16_logits_is_summed_in_fp32():
    hidden = torch.randn(40, 16, generator=generator()).bfloat16()
    table = torch.randn(50, 16, generator=generator(1)).bfloat16()
    target = torch.randint(5, 50, (40,), generator=generator(2))
    expected = F.cross_entropy(subs_logits((hidden @ table.T).float(), MASK), target, reduction="none")
    torch.testing.assert_close(LinearCrossEntropy.apply(hidden, table, target, MASK, softmax_loss), expected)


def test_the_loss_is_the_mean_over_sequences_of_the_weighted_masked_tokens():
    x0, masked = torch.tensor([[5, 6, 7, 5], [7, 6, 8, 5]]), torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0]]).bool()
    hidden, table = torch.randn(3, 8, generator=generator()), torch.randn(9, 8, generator=generator(1))
    nll = -subs_logits(hidden @ table.T, MASK).log_softmax(-1)
    first, second = nll[0, 5] + nll[1, 6], nll[2, 8]

    def loss(**weighting):
        return diffusion_loss(hidden, table, x0, places(masked), mask_token_id=MASK, **weighting)

    torch.testing.assert_close(loss(), (first / 2 + second / 1) / 2)
    torch.testing.assert_close(loss(weighting="low_variance"), (2 * first / 4 + 2 * second / 4) / 2)
