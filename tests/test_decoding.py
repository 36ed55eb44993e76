"""Inverter options beyond the plain ones: guidance, pinned tokens, candidates, the encoder in the loop."""

import dataclasses

import numpy as np
import pytest
import torch

import invlib
from invlib import InputError
from invlib.policies import POLICIES, REMASKING, euler_remask_uncertain, path_planning, random_order
from invlib.sampler import cosine_grid
from invlib.search import BestOf, SwapBeam, improve

SENTENCES = [  # no draft of them is whole
    "Maria Kowalska owes 4,217 pounds to the dentist in Walsall.",
    "Plants need light, water and the patience of whoever forgets them.",
    "Batch 17B failed because five of forty valves leaked.",
]


@pytest.fixture(scope="module")
def vectors(inverter):
    return inverter.encoder.encode(SENTENCES)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_guidance_of_one_is_plain_decoding_and_any_other_costs_twice_the_calls(inverter, vectors):
    plain, one, two = (inverter.invert(vectors, guidance_scale=w) for w in (1.0, 1.0, 2.0))
    assert plain.texts == one.texts
    np.testing.assert_array_equal(2 * plain.model_calls, two.model_calls)


def test_guidance_moves_the_prediction_away_from_the_prior_as_tokens_become_visible(inverter, vectors):
    """uncond + w_r (cond - uncond) with w_r = 1 + (w - 1) r, r the visible share; computed here a second time."""
    length, mask = 8, inverter.config.mask_token_id
    steps = list(inverter.steps(vectors[:1], np.array([length]), num_steps=2, guidance_scale=3.0, top_k=1))
    xt = steps[1].tokens
    with torch.inference_mode():
        cond, uncond = (
            inverter.model(xt, inverter.model.modulation(torch.from_numpy(vectors[:1]), null))
            .index_fill(-1, torch.tensor([mask]), -torch.inf)
            .log_softmax(-1)
            for null in (None, torch.tensor([True]))
        )
    share = float((xt != mask).sum()) / length
    guided = (uncond + (1 + 2 * share) * (cond - uncond)).nan_to_num(-torch.inf).softmax(-1)
    torch.testing.assert_close(steps[2].top_probs[0, xt[0] == mask, 0], guided.amax(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_pinned_pieces_hold_through_every_policy(inverter, vectors, policy):
    result = inverter.invert(vectors, pinned={0: "we", 4: 1996}, length=9, policy=policy, generator=generator())
    we = inverter.tokenizer.encode(["we"])[0][0]
    for trajectory in result.trajectories:
        assert (trajectory.tokens[:, 0] == we).all() and (trajectory.tokens[:, 4] == 1996).all()
        assert trajectory.pinned.nonzero()[0].tolist() == [0, 4]
        assert trajectory.uncovered_at[[0, 4]].tolist() == [0, 0]


def test_candidates_are_independent_drafts_and_cost_what_they_cost(inverter, vectors):
    one = inverter.invert(vectors, order_noise=1.0, generator=generator())
    many = inverter.invert(vectors, order_noise=1.0, candidates=6, generator=generator())
    np.testing.assert_array_equal(many.model_calls, 6 * one.model_calls)

    def log_prob(result):
        return np.array([np.log(t.confidence[-1]).sum() for t in result.trajectories])

    alone = [inverter.invert(vectors[:1], order_noise=1.0, generator=generator(seed)) for seed in range(6)]
    assert len({tuple(r.trajectories[0].uncovered_at) for r in alone}) > 1
    assert (log_prob(many) >= log_prob(inverter.invert(vectors)) - 8).all()


def test_a_cosine_grid_reaches_the_sampler(inverter, vectors):
    trajectory = inverter.invert(vectors, grid=cosine_grid, num_steps=4, length=16).trajectories[0]
    assert trajectory.masked.sum(axis=1).tolist() == [16, 14, 11, 6, 0]


def test_a_search_brings_the_text_closer_within_its_budget(inverter, vectors):
    plain = inverter.invert(vectors, verify=True)
    before = inverter.encoder.queries
    found = inverter.invert(vectors, search=(BestOf(8), SwapBeam(max_queries=150)), generator=generator())
    asked, found_out = inverter.encoder.queries - before, int(found.encoder_queries.sum())
    assert found_out <= asked < 2 * found_out, "what may be the closest is encoded again, in fp32"
    assert (found.encoder_queries <= 150).all()
    assert (found.cosines >= plain.cosines - 1e-5).all() and found.cosines.mean() > plain.cosines.mean() + 0.02
    expected = (inverter.encoder.encode(found.texts) * vectors).sum(axis=1)
    np.testing.assert_allclose(found.cosines, expected, atol=1e-4)
    assert found.errors == [None] * len(SENTENCES)
    assert (found.model_calls > plain.model_calls).all()


def test_a_plain_function_may_stand_for_the_encoder(inverter, vectors):
    asked = []

    def service(texts):
        asked.extend(texts)
        return inverter.encoder.encode(texts).tolist()

    found = inverter.invert(vectors[:1], search=BestOf(5), encoder=service, generator=generator())
    assert 1 < len(asked) == found.encoder_queries[0] <= 5, "fewer where drafts are alike"
    asked.clear()
    assert inverter.invert(vectors[:1], verify=True, encoder=service).encoder_queries[0] == 1 == len(asked)


def test_a_stopped_search_keeps_what_it_has_found(inverter, vectors):
    asked = []

    def impatient(texts):
        asked.append(texts)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return inverter.encoder.encode(texts)

    found = inverter.invert(vectors, search=SwapBeam(max_queries=500), encoder=impatient, generator=generator())
    first = (inverter.encoder.encode(found.texts[:1]) @ vectors[0])[0]
    assert found.cosines[0] == pytest.approx(first, abs=1e-4)
    assert found.texts[1:] == inverter.invert(vectors[1:]).texts
    assert found.errors[0] == "the search was stopped"
    assert found.errors[1:] == ["the search was stopped before it began"] * 2
    assert np.isnan(found.cosines[1:]).all(), "not measured is not zero"


def test_a_failing_encoder_is_reported_beside_the_best_text(inverter, vectors):
    asked = []

    def breaking(texts):
        asked.extend(texts)
        if len(asked) > 20:
            raise ConnectionError("the line is dead")
        return inverter.encoder.encode(texts)

    found = inverter.invert(vectors[:1], search=SwapBeam(max_queries=500), encoder=breaking, generator=generator())
    assert "ConnectionError: the line is dead" in found.errors[0]
    assert found.texts == inverter.invert(vectors[:1]).texts and np.isfinite(found.cosines).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "top_confidence"}, "policy must be a function such as"),
        ({"guidance_scale": -1.0}, "guidance_scale must be a finite number ≥ 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a finite number ≥ 0"),
        ({"guidance_scale": 2**91}, "guidance_scale must be a finite number ≥ 0"),
        ({"temperature": 2**91}, "temperature must be a finite number ≥ 0"),
        ({"guidance_scale": 2.0, "conditional": False}, "must be 1 with conditional=False"),
        ({"temperature": -0.5}, "temperature must be a finite number ≥ 0"),
        ({"candidates": 0}, "candidates must be an integer from 1"),
        ({"candidates": 4}, "would all be the same; set temperature or order_noise"),
        ({"batch_size": 0}, "batch_size must be an integer from 1"),
        ({"num_step": 4}, "there is no option 'num_step'; did you mean 'num_steps'"),
        ({"temprature": 1.0}, "there is no option 'temprature'; did you mean 'temperature'"),
        ({"pinned": {9: "the"}, "length": 9}, "pinned position 9 is outside a text of 9 tokens"),
        ({"pinned": {-1: "the"}}, "pinned must be a dictionary of positions"),
        ({"pinned": {0: "two words"}}, "is not one token of the vocabulary"),
        ({"pinned": {0: ""}}, "is not one token of the vocabulary"),
        ({"pinned": {0: 10**6}}, "is not one token of the vocabulary"),
        ({"pinned": {0: 4}}, "other than .MASK."),
        ({"pinned": {0: "##nothing-like-it"}}, "is not one token of the vocabulary"),
    ],
)
def test_options_outside_their_domain_are_refused_in_one_line(inverter, vectors, options, message):
    with pytest.raises(InputError, match=message) as caught:
        inverter.invert(vectors, **options)
    assert "\n" not in str(caught.value)


def test_a_search_without_any_encoder_says_so(inverter, vectors):
    config = dataclasses.replace(inverter.config, encoder_model="/no/such/encoder")
    model = invlib.ConditionalMDLM(config)
    model.load_state_dict(inverter.model.state_dict())
    lonely = invlib.Inverter(model.eval(), inverter.tokenizer)
    assert len(lonely.invert(vectors, policy=random_order).texts) == 3
    with pytest.raises(InputError, match="the encoder '/no/such/encoder' could not be opened"):
        lonely.invert(vectors, search=BestOf(3))


def test_a_start_is_gone_on_from_and_only_what_is_masked_is_written(inverter, vectors):
    given = {0: "we", 1: "had", 3: "rain"}
    result = inverter.invert(vectors[:1], start=given, length=6, num_steps=3)
    trajectory = result.trajectories[0]
    assert trajectory.words(0) == ["we", "had", "[MASK]", "rain", "[MASK]", "[MASK]"]
    assert all(trajectory.words(step)[:2] == ["we", "had"] for step in range(4))
    assert [int(masked.sum()) for masked in trajectory.masked] == [3, 2, 1, 0]


@pytest.mark.parametrize("policy", sorted(REMASKING, key=lambda policy: policy.__name__), ids=lambda p: p.__name__)
def test_a_policy_that_masks_again_may_change_the_start_but_no_pin(inverter, vectors, policy):
    words = ["snow", "tax", "moon", "glass", "river", "king"]
    start = {i: word for i, word in enumerate(words) if i != 2}
    seen = set()
    for seed in range(6):
        options = {"pinned": {0: "snow"}, "length": 6, "num_steps": 8, "policy": policy, "generator": generator(seed)}
        trajectory = inverter.invert(vectors[:1], start=start, **options).trajectories[0]
        assert {trajectory.words(step)[0] for step in range(9)} == {"snow"}
        assert not trajectory.masked[-1].any()
        seen |= {i for i in range(6) if trajectory.masked[1:, i].any() and i != 2}
    assert 0 not in seen
    assert seen or policy in (euler_remask_uncertain, path_planning)  # these go by what the model says, not by chance


def test_path_planning_keeps_what_a_start_gives_for_as_long_as_it_is_best(inverter, vectors):
    """Of a text that is complete but for one word, one word more is visible after a step, not one word in all."""
    draft = inverter.invert(vectors[:1], num_steps=8).trajectories[0]
    start = {i: int(token) for i, token in enumerate(draft.tokens[-1]) if i != 1}
    steps = inverter.invert(
        vectors[:1], start=start, length=len(draft), num_steps=2, policy=path_planning
    ).trajectories[0]
    assert steps.masked.sum(axis=1).tolist() == [1, 0, 0]


def test_a_start_outside_the_text_or_complete_is_refused(inverter, vectors):
    with pytest.raises(InputError, match="start position 6 is outside a text of 6 tokens"):
        inverter.invert(vectors[:1], start={6: "we"}, length=6)
    with pytest.raises(InputError, match="a masked position"):
        inverter.invert(vectors[:1], start={0: "we"}, length=1)


def test_whoever_shows_progress_or_stops_iterates(inverter, vectors):
    """Steps as they happen, then the best text after every piece of a search; what was found so far stays."""
    lengths = inverter.predict_lengths(vectors[:1])
    steps = inverter.steps(vectors[:1], lengths, num_steps=3)
    assert [step.index for step in steps] == [0, 1, 2, 3]
    target = inverter.target(vectors[0], generator=generator())
    seen = []
    for best in improve(target, [BestOf(8), SwapBeam(max_queries=500)], []):
        seen.append(best)
        if len(seen) == 3:
            break
    assert [best.cosine for best in seen] == sorted(best.cosine for best in seen)
    assert seen[-1] == target.ledger.best(1)[0] and 0 < target.ledger.queries < 500


def test_a_search_that_is_stopped_keeps_what_it_found(inverter, vectors):
    asked = []

    def stops(texts):
        asked.append(len(texts))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return inverter.encoder.encode(texts)

    search = (BestOf(8), SwapBeam(max_queries=500))
    result = inverter.invert(vectors[1:], search=search, encoder=stops, generator=generator())
    assert result.errors == ["the search was stopped", "the search was stopped before it began"]
    assert result.encoder_queries.tolist() == [sum(asked[:2]), 0] and np.isfinite(result.cosines[0])
    assert all(result.texts) and np.isnan(result.cosines[1])


def test_an_inverter_remembers_what_it_was_opened_with(inverter):
    assert inverter.name == "minilm"
