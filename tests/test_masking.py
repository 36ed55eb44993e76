"""The forward process and the loss."""

import pytest
import torch
from torch.nn import functional as F

from invlib.masking import (
    WEIGHTINGS,
    LinearCrossEntropy,
    alpha,
    diffusion_loss,
    log_probs_by_rows,
    low_variance,
    mask_tokens,
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_some_rows_at_a_time_are_those_of_all_rows_at_once(dtype):
    logits = torch.randn(7, 2**20, generator=generator()).to(dtype)  # two rows at a time
    before = logits.clone()
    parts = list(log_probs_by_rows(logits, MASK))
    assert [(rows.start, len(part)) for rows, part in parts] == [(0, 2), (2, 2), (4, 2), (6, 1)]
    whole = subs_logits(logits.float(), MASK).log_softmax(dim=-1)
    assert torch.equal(torch.cat([part for _, part in parts]), whole)
    assert torch.equal(logits, before), "the logits are kept for the next step"


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


def test_the_lowest_draw_still_masks_one_token(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *_, dtype, **__: torch.zeros((), dtype=dtype))
    assert stratified_counts(torch.tensor([8, 8, 8, 8])).tolist() == [1, 2, 4, 6]


def test_the_same_generator_masks_the_same_tokens():
    x0, lengths, counts = torch.full((32, 8), 9), torch.full((32,), 8), torch.full((32,), 3)
    for draw in (
        lambda: stratified_counts(torch.full((32,), 1000), generator(5)),
        lambda: mask_tokens(x0, lengths, counts, MASK, generator(5)),
    ):
        assert torch.equal(draw(), draw())


def test_low_variance_weighs_a_sequence_by_its_mask_ratio_and_keeps_the_size_of_the_loss():
    lengths, counts = torch.full((8,), 8), torch.arange(1, 9)  # k uniform on 1 … 8, every token's loss is 1
    per_sequence = {name: counts * weigh(torch.ones(8), lengths, counts) for name, weigh in WEIGHTINGS.items()}
    torch.testing.assert_close(per_sequence["nelbo"], torch.ones(8))
    torch.testing.assert_close(per_sequence["low_variance"], 2 * counts / 8)
    assert per_sequence["low_variance"].mean() == 1 + 1 / 8, "k / length is one half on average, but for 1 / (2 length)"


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


def test_cross_entropy_of_bf16_logits_is_summed_in_fp32():
    hidden = torch.randn(40, 16, generator=generator()).bfloat16()
    table = torch.randn(50, 16, generator=generator(1)).bfloat16()
    target = torch.randint(5, 50, (40,), generator=generator(2))
    expected = F.cross_entropy(subs_logits((hidden @ table.T).float(), MASK), target, reduction="none")
    torch.testing.assert_close(LinearCrossEntropy.apply(hidden, table, target, MASK), expected)


def test_the_loss_is_the_mean_over_sequences_of_the_weighted_masked_tokens():
    x0, masked = torch.tensor([[5, 6, 7, 0], [7, 6, 8, 5]]), torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0]]).bool()
    hidden, table = torch.randn(3, 8, generator=generator()), torch.randn(9, 8, generator=generator(1))
    nll = -subs_logits(hidden @ table.T, MASK).log_softmax(-1)
    first, second, lengths = nll[0, 5] + nll[1, 6], nll[2, 8], torch.tensor([3, 4])

    def loss(**weighting):
        return diffusion_loss(hidden, table, x0, masked, lengths, mask_token_id=MASK, **weighting)

    torch.testing.assert_close(loss(), (first / 2 + second / 1) / 2)
    torch.testing.assert_close(loss(weighting=low_variance), (2 * first / 3 + 2 * second / 4) / 2)
