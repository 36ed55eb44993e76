"""Unmasking: every policy, with a denoiser that knows the truth and with one that does not."""

import pytest
import torch

from invlib.errors import InputError
from invlib.sampler import POLICIES, ancestral, denoise, left_to_right, top_confidence

MASK, VOCAB = 4, 23
LENGTHS = torch.tensor([1, 4, 7, 9])
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X0 = torch.where(torch.arange(9) < LENGTHS[:, None], torch.randint(5, VOCAB, (4, 9), generator=generator()), 0)


def oracle(xt, rows):
    """A denoiser that knows x0: certain at every masked position."""
    masked = xt == MASK
    x0 = X0[rows, : xt.shape[1]]
    return torch.full((int(masked.sum()), VOCAB), -30.0).scatter(1, x0[masked][:, None], 30.0)


def guesser(xt, rows):
    """A denoiser with opinions: logits are a fixed function of what is visible, the row and the position."""
    masked = xt == MASK
    row, position = masked.nonzero(as_tuple=True)
    visible = (xt * ~masked).sum(dim=1)[row]
    seeds = 7919 * position + 104729 * rows[row] + 31 * visible
    return torch.stack([torch.randn(VOCAB, generator=generator(int(seed))) for seed in seeds])


def run(predict, lengths=LENGTHS, **options):
    return list(denoise(predict, lengths, mask_token_id=MASK, **options))


@every_policy
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_oracle_denoiser_recovers_every_sequence_for_any_number_of_steps(policy, temperature):
    for num_steps in range(1, int(LENGTHS.max()) + 6):
        steps = run(oracle, num_steps=num_steps, policy=policy, temperature=temperature, generator=generator())
        assert torch.equal(steps[-1].tokens, X0)
        assert len(steps) == num_steps + 1


@every_policy
def test_visible_tokens_never_change_and_no_mask_is_ever_written(policy):
    steps = run(guesser, num_steps=5, policy=policy, generator=generator())
    for before, after in zip(steps, steps[1:], strict=False):
        visible = before.tokens != MASK
        assert torch.equal(after.tokens[visible], before.tokens[visible])
        assert torch.equal(after.uncovered, (before.tokens == MASK) & (after.tokens != MASK))
    assert not (steps[-1].tokens == MASK).any()


@every_policy
def test_the_same_generator_gives_the_same_trajectory(policy):
    one, other = (run(guesser, num_steps=6, policy=policy, temperature=1.0, generator=generator(3)) for _ in "ab")
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one, other, strict=True))


@every_policy
def test_a_batch_equals_its_rows_one_by_one(policy):
    whole = run(guesser, num_steps=4, policy=policy, temperature=1.0, generator=generator(5))
    random = generator(5)
    for row in range(len(LENGTHS)):

        def alone(xt, rows, row=row):
            return guesser(xt, rows + row)

        options = {"num_steps": 4, "policy": policy, "temperature": 1.0, "generator": random}
        single = run(alone, LENGTHS[[row]], **options)
        length = int(LENGTHS[row])
        for k, step in enumerate(single):
            assert torch.equal(step.tokens[0], whole[k].tokens[row, :length])
            assert step.model_calls[0] == whole[k].model_calls[row]


def test_an_even_schedule_uncovers_evenly():
    steps = run(guesser, torch.tensor([8]), num_steps=4)
    assert [int(step.uncovered.sum()) for step in steps] == [0, 2, 2, 2, 2]


def test_left_to_right_reads_in_order():
    steps = run(guesser, torch.tensor([6]), num_steps=6, policy=left_to_right)
    assert [step.uncovered[0].nonzero().flatten().tolist() for step in steps[1:]] == [[k] for k in range(6)]


def test_top_confidence_writes_the_most_probable_proposals_first():
    first = run(guesser, torch.tensor([9]), num_steps=3, policy=top_confidence)[1]
    best = guesser(torch.full((1, 9), MASK), torch.tensor([0]))
    best[:, MASK] = -torch.inf
    expected = best.softmax(-1).max(-1).values.topk(3).indices
    assert set(first.uncovered[0].nonzero().flatten().tolist()) == set(expected.tolist())


def test_ancestral_uncovers_each_token_by_its_own_coin():
    """In step k of N a masked token becomes visible with probability (t - s) / t = 1 / (N - k + 1)."""
    lengths = torch.full((2000,), 10)

    def uniform(xt, rows):
        return torch.zeros(int((xt == MASK).sum()), VOCAB)

    steps = run(uniform, lengths, num_steps=4, policy=ancestral, generator=generator())
    for before, after in zip(steps, steps[1:], strict=False):
        share = after.uncovered.sum() / (before.tokens == MASK).sum()
        assert share == pytest.approx(1 / (4 - after.index + 1), abs=0.02)


def test_an_unchanged_row_is_not_asked_again():
    asked = []

    def counting(xt, rows):
        asked.extend(rows.tolist())
        return guesser(xt, rows)

    steps = run(counting, torch.tensor([2, 9]), num_steps=9)
    assert steps[-1].model_calls.tolist() == [asked.count(0), asked.count(1)] == [2, 9]


def test_temperature_one_samples_from_the_model():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2]))

    def three_words(xt, rows):
        return torch.cat([torch.full((20,), -torch.inf), logits]).expand(int((xt == MASK).sum()), -1)

    final = run(three_words, torch.full((3000,), 1), num_steps=1, temperature=1.0, generator=generator())[-1]
    shares = torch.bincount(final.tokens.flatten(), minlength=VOCAB)[20:] / 3000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03, rtol=0)


def test_top_k_is_what_the_model_considered():
    first = run(guesser, torch.tensor([5]), num_steps=5, top_k=3)[1]
    assert (first.top_probs[0].diff(dim=-1) <= 0).all()
    assert MASK not in first.top_ids
    shown = first.confidence[0][first.uncovered[0]]
    torch.testing.assert_close(shown, first.top_probs[0, first.uncovered[0], 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"num_steps": 2, "temperature": -1.0}, "temperature must be 0 or more"),
        ({"num_steps": 2, "temperature": float("nan")}, "temperature must be 0 or more"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        run(guesser, **options)


def test_a_sequence_needs_a_length():
    with pytest.raises(InputError, match="length of at least 1"):
        run(guesser, torch.tensor([3, 0]), num_steps=2)
