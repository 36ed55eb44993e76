"""The forward process and the loss."""

import pytest
import torch
from torch.nn import functional as F

from invlib.masking import (
    LinearCrossEntropy,
    alpha,
    diffusion_loss,
    low_variance,
    mask_tokens,
    sequence_mean,
    stratified_counts,
    subs_logits,
)

MASK = 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mask_ratios_are_uniform_on_every_count_from_one_to_the_length():
    lengths = torch.full((32,), 8)
    seen = torch.zeros(9, dtype=torch.long)
    for seed in range(400):
        random = generator(seed)
        counts = stratified_counts(lengths, random)
        xt = mask_tokens(torch.full((32, 8), 9), lengths, counts, MASK, random)
        seen += torch.bincount((xt == MASK).sum(dim=1), minlength=9)
    assert seen[0] == 0
    expected = seen.sum() / 8
    # Stratified: every batch of 32 holds each of the 8 counts 4 times, give or take one at the seam.
    assert ((seen[1:] - expected).abs() < 0.01 * expected).all()


def test_the_masked_share_follows_alpha():
    """A token is visible with probability alpha(t), t = k / length, wherever it stands."""
    lengths, visible = torch.full((4000,), 10), torch.zeros(10)
    counts = torch.full((4000,), 7)
    xt = mask_tokens(torch.full((4000, 10), 9), lengths, counts, MASK, generator())
    visible = (xt != MASK).float().mean(dim=0)
    assert torch.allclose(visible, torch.full((10,), alpha(0.7)), atol=0.03)


def test_only_real_tokens_are_masked_and_visible_ones_do_not_change():
    x0 = torch.arange(10, 58).view(6, 8)
    lengths = torch.tensor([1, 2, 3, 5, 8, 8])
    counts = stratified_counts(lengths, generator())
    xt = mask_tokens(x0, lengths, counts, MASK, generator(1))
    assert torch.equal((xt == MASK).sum(dim=1), counts)
    assert torch.equal(xt[xt != MASK], x0[xt != MASK])
    assert not any((xt[row, length:] == MASK).any() for row, length in enumerate(lengths))


def test_low_variance_stresses_high_mask_ratios():
    losses, lengths = torch.ones(2), torch.tensor([8, 8])
    few, many = torch.tensor([1, 1]), torch.tensor([8, 8])
    assert (sequence_mean(losses, lengths, few) > sequence_mean(losses, lengths, many)).all()
    assert torch.equal(low_variance(losses, lengths, few), low_variance(losses, lengths, many))


def test_mask_gets_no_probability():
    logits = torch.zeros(3, 6)
    assert (subs_logits(logits, MASK).softmax(-1)[:, MASK] == 0).all()
    assert torch.equal(logits, torch.zeros(3, 6)), "the input must not change"


@pytest.mark.parametrize("rows", [1, 127, 300])
def test_chunked_cross_entropy_equals_torchs_with_its_gradients(rows):
    hidden = torch.randn(rows, 16, generator=generator(), requires_grad=True)
    table = torch.randn(50, 16, generator=generator(1), requires_grad=True)
    target = torch.randint(5, 50, (rows,), generator=generator(2))
    weight = torch.rand(rows, generator=generator(3))
    plain = F.cross_entropy(subs_logits(hidden @ table.T, MASK), target, reduction="none")
    expected = torch.autograd.grad((plain * weight).sum(), (hidden, table))
    ours = LinearCrossEntropy.apply(hidden, table, target, MASK)
    found = torch.autograd.grad((ours * weight).sum(), (hidden, table))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(found, expected)


def test_the_loss_is_the_mean_over_sequences_of_the_mean_over_masked_tokens():
    x0, masked = torch.tensor([[5, 6, 7], [7, 6, 5]]), torch.tensor([[1, 1, 0], [0, 0, 1]]).bool()
    hidden, table = torch.randn(3, 8, generator=generator()), torch.randn(9, 8, generator=generator(1))
    nll = -subs_logits(hidden @ table.T, MASK).log_softmax(-1)
    expected = ((nll[0, 5] + nll[1, 6]) / 2 + nll[2, 5]) / 2
    found = diffusion_loss(hidden, table, x0, masked, torch.tensor([3, 3]), mask_token_id=MASK)
    torch.testing.assert_close(found, expected)
