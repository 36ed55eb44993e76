"""The forward process."""

import pytest
import torch

from invlib.masking import alpha, log_probs_by_rows, mask_tokens, stratified_counts, subs_logits

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


def test_mask_gets_no_probability():
    logits = torch.zeros(3, 6)
    assert (subs_logits(logits, MASK).softmax(-1)[:, MASK] == 0).all()
    assert torch.equal(logits, torch.zeros(3, 6)), "the input must not change"
