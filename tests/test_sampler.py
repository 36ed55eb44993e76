"""Unmasking: every policy, with a denoiser that knows the truth and with one that does not."""

import math
from functools import partial

import pytest
import torch

from invlib.errors import InputError
from invlib.masking import alpha
from invlib.policies import (
    POLICIES,
    REMASKING,
    ancestral,
    entropy_bounded,
    euler_remask_uncertain,
    left_to_right,
    path_planning,
    random_order,
    remdm_cap,
    remdm_conf,
    top_confidence,
    top_margin,
)
from invlib.sampler import BLOCK, Remembered, _sampled, cosine_grid, denoise, row_streams

MASK, VOCAB = 4, 23
LENGTHS = torch.tensor([1, 4, 7, 9])
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X0 = torch.where(torch.arange(9) < LENGTHS[:, None], torch.randint(5, VOCAB, (4, 9), generator=generator()), 0)


def oracle(xt, rows, at):
    """A denoiser that knows x0: certain at every position."""
    x0 = X0[rows, : xt.shape[1]]
    return torch.full((int(at.sum()), VOCAB), -30.0).scatter(1, x0[at][:, None], 30.0)


def guesser(xt, rows, at):
    """A denoiser with opinions: logits are a fixed function of what is visible elsewhere, the row and the position."""
    row, position = at.nonzero(as_tuple=True)
    others = (xt * (xt != MASK)).sum(dim=1)[row] - (xt * (xt != MASK))[at]
    seeds = 7919 * position + 104729 * rows[row] + 31 * others
    return torch.stack([torch.randn(VOCAB, generator=generator(int(seed))) for seed in seeds])


def indifferent(xt, rows, at):
    """A denoiser to which all tokens are alike."""
    return torch.zeros(int(at.sum()), VOCAB)


def constant(*distributions):
    """A denoiser that says the same at every step: one distribution over token ids per position."""
    table = torch.zeros(len(distributions), VOCAB)
    for position, distribution in enumerate(distributions):
        for token, probability in distribution.items():
            table[position, token] = probability

    def predict(xt, rows, at):
        return table.log()[at.nonzero()[:, 1]]

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
def test_a_visible_token_changes_only_by_being_masked_again(policy):
    steps = run(guesser, num_steps=5, policy=policy, generator=generator())
    for before, after in zip(steps, steps[1:], strict=False):
        stays = (before.tokens != MASK) & (after.tokens != MASK)
        assert torch.equal(after.tokens[stays], before.tokens[stays])
        assert torch.equal(after.uncovered, (before.tokens == MASK) & (after.tokens != MASK))
        if policy not in REMASKING:
            assert (after.tokens[before.tokens != MASK] != MASK).all()
    assert not (steps[-1].tokens == MASK).any()


@pytest.mark.parametrize("policy", sorted(REMASKING, key=lambda policy: policy.__name__))
def test_a_policy_that_re_masks_does(policy):
    steps = run(guesser, torch.full((40,), 9), num_steps=12, policy=policy, generator=generator())
    assert any(((a.tokens != MASK) & (b.tokens == MASK)).any() for a, b in zip(steps, steps[1:], strict=False))


@every_policy
def test_pinned_tokens_hold_through_every_policy(policy):
    start = torch.full((2, 9), MASK)
    start[0, 3], start[1, [0, 8]] = 11, torch.tensor([12, 13])
    steps = run(guesser, torch.tensor([9, 9]), num_steps=6, policy=policy, start=start, generator=generator())
    pinned = start != MASK
    for step in steps:
        assert torch.equal(step.tokens[pinned], start[pinned])
        assert (step.confidence[pinned] == 1).all()
    assert not (steps[-1].tokens == MASK).any()


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

        def alone(xt, rows, at, row=row):
            return guesser(xt, rows + row, at)

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
        ({"policy": partial(entropy_bounded, gamma=0.0)}, [3, 1, 2, 0]),
        ({"policy": left_to_right}, [0, 1, 2, 3]),
    ],
    ids=["default", "top_confidence", "top_margin", "lowest entropy", "left_to_right"],
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
    steps = run(indifferent, torch.full((2000,), 10), num_steps=4, policy=ancestral, generator=generator())
    for before, after in zip(steps, steps[1:], strict=False):
        share = after.uncovered.sum() / (before.tokens == MASK).sum()
        assert share == pytest.approx(1 / (4 - after.index + 1), abs=0.02)


def test_an_euler_step_is_an_ancestral_step():
    """Tau-leaping uncovers with probability dt · (-alpha'_t) / (1 - alpha_t), which for alpha = 1 - t is dt / t."""

    def euler(prediction, context):
        slope = (alpha(context.t + 1e-6) - alpha(context.t - 1e-6)) / 2e-6
        rate = -slope / (1 - alpha(context.t))
        return prediction.visible | (context.noise() < (context.t - context.s) * rate)

    one, other = (
        run(guesser, num_steps=7, policy=policy, temperature=1.0, generator=generator(2))
        for policy in (euler, ancestral)
    )
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("policy", [partial(remdm_cap, eta=0.1), partial(remdm_cap, eta=0.5)])
def test_remdm_re_masks_and_keeps_the_marginals_of_the_process(policy):
    steps = run(indifferent, torch.full((3000,), 10), num_steps=5, policy=policy, generator=generator())
    for step in steps:
        assert (step.tokens != MASK).float().mean() == pytest.approx(alpha(1 - step.index / 5), abs=0.015)


def test_remdm_conf_re_masks_what_was_written_with_little_confidence():
    """Left half of the sentence certain, right half a coin among many: the right half is masked again more often."""

    def half_sure(xt, rows, at):
        logits = torch.zeros(int(at.sum()), VOCAB)
        logits[at.nonzero()[:, 1] < 5, 7] = 50.0
        return logits

    steps = run(half_sure, torch.full((3000,), 10), num_steps=6, policy=remdm_conf, generator=generator())
    for before, after in zip(steps[1:-2], steps[2:-1], strict=True):
        visible = before.tokens != MASK
        weight = visible * torch.where(torch.arange(10) < 5, math.exp(-1), math.exp(-1 / (VOCAB - 1)))
        sigma = min(1, (1 - alpha(1 - after.index / 6)) / alpha(1 - before.index / 6))
        expected = sigma * (weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-9)).sum(dim=0)
        again = (visible & (after.tokens == MASK)).sum(dim=0)
        for half in (slice(0, 5), slice(5, 10)):
            assert float(again[half].sum()) == pytest.approx(float(expected[half].sum()), rel=0.1)


def test_entropy_bounded_writes_together_what_is_nearly_certain():
    """Three certain positions and three coin flips of 0.69 nats: gamma = 1 takes the certain ones and two flips."""

    def half_sure(xt, rows, at):
        logits = torch.full((int(at.sum()), VOCAB), -50.0)
        position = at.nonzero()[:, 1]
        logits[:, 7] = 0.0
        logits[position >= 3, 8] = -1e-6
        return logits

    def counts(gamma):
        policy = partial(entropy_bounded, gamma=gamma)
        return [int(s.uncovered.sum()) for s in run(half_sure, torch.tensor([6]), num_steps=6, policy=policy)]

    assert counts(0.5) == [0, 4, 1, 1, 0, 0, 0]
    assert counts(1.0) == [0, 5, 1, 0, 0, 0, 0]
    assert counts(1e-3) == [0, 4, 1, 1, 0, 0, 0], "certain tokens cost nothing, and one more is always free"


def test_entropy_bounded_without_slack_is_one_token_a_step():
    policy = partial(entropy_bounded, gamma=0.0)
    steps = run(guesser, torch.tensor([6]), num_steps=6, policy=policy)
    assert [int(step.uncovered.sum()) for step in steps] == [0, 1, 1, 1, 1, 1, 1]


def test_path_planning_keeps_the_best_of_all_positions():
    """Position 0 looks best at first and worst once it is visible: it must go again, and the count must hold."""

    def turncoat(xt, rows, at):
        logits = torch.zeros(int(at.sum()), VOCAB)
        row, position = at.nonzero(as_tuple=True)
        logits[:, 7] = 3.0
        logits[position == 0, 7] = torch.where(xt[row[position == 0], 0] == MASK, 9.0, 0.0)
        return logits

    steps = run(turncoat, torch.tensor([6]), num_steps=3, policy=path_planning)
    assert (steps[1].tokens[0] != MASK).tolist() == [True, True, False, False, False, False]
    assert (steps[2].tokens[0] != MASK).tolist() == [False, True, True, True, True, False]


def test_a_cosine_grid_starts_slowly():
    steps = run(guesser, torch.tensor([16]), num_steps=4, grid=cosine_grid)
    assert [int((step.tokens == MASK).sum()) for step in steps] == [16, 14, 11, 6, 0]


def test_order_noise_changes_the_order_but_not_what_is_certain():
    def order(seed, order_noise):
        steps = run(oracle, LENGTHS, num_steps=9, order_noise=order_noise, generator=generator(seed))
        assert torch.equal(steps[-1].tokens, X0)
        return [step.uncovered[3].nonzero().flatten().tolist() for step in steps[1:]]

    assert order(0, 0.0) == order(1, 0.0)
    assert order(0, 1.0) != order(1, 1.0)


def test_an_unchanged_row_is_not_asked_again():
    asked = []

    def counting(xt, rows, at):
        asked.extend(rows.tolist())
        return guesser(xt, rows, at)

    steps = run(counting, torch.tensor([2, 9]), num_steps=9)
    assert steps[-1].model_calls.tolist() == [asked.count(0), asked.count(1)] == [2, 9]
    assert [int(step.model_calls[1]) for step in steps] == list(range(10)), "a step that was shown does not change"


@pytest.mark.parametrize("vocab", [1, 5, BLOCK, BLOCK + 1, 1000])
def test_sampling_by_blocks_is_the_inverse_of_the_whole_distribution_function(vocab):
    log_probs = (12 * torch.randn(300, vocab, generator=generator())).log_softmax(dim=1)
    log_probs[:, ::7] = -torch.inf if vocab > 7 else 0.0
    uniform = torch.rand(300, generator=generator(1), dtype=torch.float64)
    uniform[:40] = 1 - 2.0 ** -torch.arange(14, 54, dtype=torch.float64)  # far out in the tail
    uniform[40:50] = 0.0
    ends = (log_probs.double() / 0.9).softmax(dim=1).cumsum(dim=1)
    expected = torch.searchsorted(ends, uniform[:, None] * ends[:, -1:], right=True)[:, 0]
    found = _sampled(log_probs, 0.9, uniform)
    assert (found == expected).float().mean() > 0.97 and log_probs[torch.arange(300), found].isfinite().all()
    # Where they differ, the number lies on an edge between two tokens, within the rounding of float32.
    edges = ends.gather(1, torch.minimum(found, expected)[:, None])[:, 0]
    assert ((found == expected) | ((edges - uniform * ends[:, -1]).abs() < 1e-6)).all()


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
        logits = guesser(before.tokens, torch.arange(4), masked).index_fill(1, torch.tensor([MASK]), -torch.inf)
        expected[masked] = logits.softmax(dim=1).gather(1, after.tokens[masked][:, None])[:, 0]
        expected[after.tokens == MASK] = torch.nan
        torch.testing.assert_close(after.confidence, expected, equal_nan=True)


def test_the_model_runs_without_gradients_and_the_caller_with_them():
    seen = []

    def predict(xt, rows, at):
        seen.append(torch.is_grad_enabled())
        return guesser(xt, rows, at)

    between = [torch.is_grad_enabled() for _ in denoise(predict, LENGTHS, mask_token_id=MASK, num_steps=3)]
    assert not any(seen) and all(between)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be an integer from 1 to 4096, got 0"),
        ({"num_steps": 2, "temperature": -1.0}, "temperature must be a finite number ≥ 0"),
        ({"num_steps": 2, "temperature": float("nan")}, "temperature must be a finite number ≥ 0"),
        ({"num_steps": 2, "order_noise": -0.1}, "order_noise must be a finite number ≥ 0"),
        ({"num_steps": 2, "start": X0}, "0 masked; mask what is to be written"),
        ({"num_steps": 2, "start": torch.full((4, 8), MASK)}, "start must have the shape .4, 9."),
        ({"num_steps": 2, "policy": partial(entropy_bounded, gamma=-1.0)}, "gamma must be a finite number ≥ 0"),
        (
            {"num_steps": 2, "policy": partial(euler_remask_uncertain, threshold=1.5)},
            "threshold must be a finite number",
        ),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        run(guesser, **options)


@pytest.mark.parametrize("lengths", [[3, 0], []])
def test_a_sequence_needs_a_length(lengths):
    with pytest.raises(InputError, match="length of at least 1"):
        run(guesser, torch.tensor(lengths, dtype=torch.long), num_steps=2)


def test_the_model_is_asked_only_about_rows_that_changed():
    """A row whose step uncovered nothing is remembered, and the logits are those that asking anew would give."""
    asked = []

    def counted(xt, rows, at):
        asked.append(rows.tolist())
        return guesser(xt, rows, at)

    options = {"num_steps": 12, "policy": ancestral, "temperature": 1.0}
    *_, last = denoise(counted, torch.tensor([3, 4, 5]), mask_token_id=MASK, generator=generator(5), **options)
    calls = [sum(row in rows for rows in asked) for row in range(3)]
    assert last.model_calls.tolist() == calls and sum(calls) < 3 * 12
    remembered = Remembered(guesser, 3, torch.device("cpu"))
    xt = torch.full((3, 5), MASK)
    for change in ((0, 1, 7), None, (2, 0, 9), (0, 0, 8)):
        if change:
            xt = xt.clone()
            xt[change[0], change[1]] = change[2]
        torch.testing.assert_close(remembered(xt, xt == MASK), guesser(xt, torch.arange(3), xt == MASK))
    assert remembered.calls.tolist() == [2, 1, 2]
