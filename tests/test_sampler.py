"""Unmasking: every policy, with a denoiser that knows the truth and with one that does not."""

import pytest
import torch

from invlib.errors import InputError
from invlib.sampler import (
    POLICIES,
    ancestral,
    denoise,
    left_to_right,
    low_entropy,
    random_order,
    row_streams,
    top_confidence,
    top_margin,
)

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


def constant(*distributions):
    """A denoiser that says the same at every step: one distribution over token ids per position."""
    table = torch.zeros(len(distributions), VOCAB)
    for position, distribution in enumerate(distributions):
        for token, probability in distribution.items():
            table[position, token] = probability

    def predict(xt, rows):
        return table.log()[(xt == MASK).nonzero()[:, 1]]

    return predict


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
def test_a_policy_chooses_among_the_masked(policy):
    def checked(prediction, turn):
        chosen = policy(prediction, turn)
        assert not (chosen & ~prediction.masked).any()
        return chosen

    run(guesser, num_steps=5, policy=checked, generator=generator())


@pytest.mark.parametrize("answer", [True, False], ids=["everything", "nothing"])
def test_a_policy_of_ones_own_may_be_greedy_or_idle(answer):
    """Only what is masked is written, and the last step leaves no mask."""
    steps = run(oracle, num_steps=3, policy=lambda prediction, turn: torch.full_like(prediction.masked, answer))
    assert torch.equal(steps[-1].tokens, X0) and torch.equal(steps[2].tokens == MASK, (X0 > 0) & (not answer))
    assert steps[-1].model_calls.tolist() == [1] * 4, "the model is asked again only where something changed"


@every_policy
def test_the_same_generator_gives_the_same_trajectory(policy):
    one, other = (run(guesser, num_steps=6, policy=policy, temperature=1.0, generator=generator(3)) for _ in "ab")
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one, other, strict=True))


def test_ready_streams_may_stand_in_for_the_generator_that_seeded_them():
    options = {"num_steps": 3, "policy": random_order, "temperature": 1.0}
    expected = run(guesser, generator=generator(3), **options)[-1]
    assert torch.equal(run(guesser, generator=row_streams(4, generator(3)), **options)[-1].tokens, expected.tokens)
    assert not torch.equal(run(guesser, generator=row_streams(4, generator(4)), **options)[-1].tokens, expected.tokens)


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


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, [1, 3, 2, 0]),
        ({"policy": top_confidence}, [1, 3, 2, 0]),
        ({"policy": top_margin}, [2, 1, 0, 3]),
        ({"policy": low_entropy}, [3, 1, 2, 0]),
        ({"policy": left_to_right}, [0, 1, 2, 3]),
    ],
    ids=["default", "top_confidence", "top_margin", "low_entropy", "left_to_right"],
)
def test_each_policy_has_its_own_order(options, order):
    """Four positions for which the most probable, the clearest and the most peaked prediction are not the same."""
    predict = constant(
        {5: 0.2} | dict.fromkeys(range(6, VOCAB), 0.8 / 17),  # margin 0.15, though 4 times the second
        {5: 0.6, 6: 0.3, 7: 0.1},  # the most probable; margin 0.3, entropy 0.90
        {5: 0.5} | dict.fromkeys(range(6, 16), 0.05),  # the largest margin, 0.45
        {5: 0.55, 6: 0.45},  # margin 0.1, the lowest entropy, 0.69
    )
    steps = run(predict, torch.tensor([4]), num_steps=4, **options)
    assert [int(step.uncovered[0].nonzero()) for step in steps[1:]] == order


def test_random_order_starts_anywhere():
    steps = run(
        constant({5: 0.9, 6: 0.1}, *[{5: 0.6, 6: 0.4}] * 3),
        torch.full((2000,), 4),
        num_steps=4,
        policy=random_order,
        generator=generator(),
    )
    for step in steps[1:]:
        torch.testing.assert_close(step.uncovered.float().mean(dim=0), torch.full((4,), 0.25), atol=0.03, rtol=0)


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
    assert [int(step.model_calls[1]) for step in steps] == list(range(10)), "a step that was shown does not change"


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_follows_the_model_at_the_given_temperature(temperature):
    probabilities = torch.tensor([0.4] + [0.06] * 10)
    predict = constant(dict(enumerate(probabilities.tolist(), start=5)))
    options = {"num_steps": 1, "temperature": temperature, "generator": generator()}
    final = run(predict, torch.full((3000,), 1), **options)[-1]
    shares = torch.bincount(final.tokens.flatten(), minlength=VOCAB)[5:16] / 3000
    expected = probabilities ** (1 / temperature) / (probabilities ** (1 / temperature)).sum()
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)


def test_top_k_is_what_the_model_considered():
    _, first, second, *_ = run(guesser, torch.tensor([5]), num_steps=5, top_k=3)
    assert (first.top_probs[0].diff(dim=-1) <= 0).all()
    assert MASK not in first.top_ids
    written = first.uncovered[0]
    torch.testing.assert_close(first.confidence[0, written], first.top_probs[0, written, 0])
    assert torch.equal(first.top_ids[0, written, 0], first.tokens[0, written])
    assert (second.top_ids[0, written] == -1).all(), "the model was not asked about what already stood"


def test_confidence_is_the_probability_of_the_written_token_and_stays():
    """With sampling, the written token is not always the likeliest."""
    steps = run(guesser, num_steps=4, temperature=1.0, generator=generator())
    for before, after in zip(steps, steps[1:], strict=False):
        masked, expected = before.tokens == MASK, before.confidence.clone()
        logits = guesser(before.tokens, torch.arange(4)).index_fill(1, torch.tensor([MASK]), -torch.inf)
        expected[masked] = logits.softmax(dim=1).gather(1, after.tokens[masked][:, None])[:, 0]
        expected[after.tokens == MASK] = torch.nan
        torch.testing.assert_close(after.confidence, expected, equal_nan=True)


def test_the_model_runs_without_gradients_and_the_caller_with_them():
    seen = []

    def predict(xt, rows):
        seen.append(torch.is_grad_enabled())
        return guesser(xt, rows)

    between = [torch.is_grad_enabled() for _ in denoise(predict, LENGTHS, mask_token_id=MASK, num_steps=3)]
    assert not any(seen) and all(between)


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


@pytest.mark.parametrize("lengths", [[3, 0], []])
def test_a_sequence_needs_a_length(lengths):
    with pytest.raises(InputError, match="length of at least 1"):
        run(guesser, torch.tensor(lengths, dtype=torch.long), num_steps=2)
