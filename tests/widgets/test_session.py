"""The lab without its page: what a session is asked, what it remembers, how it is stopped, steered and repeated."""

import io
import json
import threading

import numpy as np
import pytest
import torch

import invlib
from invlib import InputError, perturb
from invlib.encoder import Encoder
from invlib.widgets.lab.run import edited
from invlib.widgets.lab.session import HELD, IDLE, RUNNING, Busy, Session
from invlib.widgets.lab.settings import KINDS, Limits, Settings
from invlib.widgets.lab.upload import MAX_BYTES, read_vector
from invlib.widgets.player import ABSENT

TEXT = "Meet me at the station at nine."
HARD = "Maria Kowalska owes 4,217 pounds to the dentist in Walsall since 14 October."  # no draft of it is whole
SECONDS = 60  # a hung thread must end the test, a slow machine must not


@pytest.fixture
def session(inverter):
    session = Session(inverter)
    yield session
    session.stop()
    session.wait(SECONDS)


def settings(text=TEXT, **values) -> Settings:
    return Settings(text=text, **values)


def done(session: Session):
    """The outcome, when the work is over."""
    session.wait(SECONDS)
    assert session.state == IDLE and not session.error
    return session.outcome


def inverted(session: Session, **values):
    session.invert(settings(**values))
    return done(session)


def repeated(code: str):
    """What the copied code gives."""
    names = {}
    exec(code, names)
    return names["result"]


class Gate:
    """Lets a session's thread pass its changes one by one, so that a test can act in between."""

    def __init__(self, session: Session, step: int):
        self.session, self.step = session, step
        self.reached, self.open = threading.Event(), threading.Event()
        session.changed = self

    def __call__(self):
        trajectory = self.session.trajectory
        if self.session.state == RUNNING and trajectory is not None and trajectory.num_steps == self.step:
            self.reached.set()
            assert self.open.wait(SECONDS)

    def __enter__(self):
        assert self.reached.wait(SECONDS)

    def __exit__(self, *_):
        self.open.set()


# ── a whole run ──


def test_an_inversion_is_what_the_inverter_gives(session, inverter):
    outcome = inverted(session)
    vectors = inverter.encoder.encode([TEXT])
    result = inverter.invert(vectors, verify=True)
    assert outcome.text == result.texts[0] and outcome.cosine == pytest.approx(result.cosines[0], abs=1e-6)
    assert (outcome.model_calls, outcome.encoder_queries) == (result.model_calls[0], result.encoder_queries[0])
    np.testing.assert_array_equal(session.trajectory.tokens, result.trajectories[0].tokens)
    assert outcome.scores["token_f1"] == invlib.metrics.token_f1(TEXT, outcome.text)
    assert [pair.expected for pair in outcome.pairs if pair.expected] == invlib.metrics.words(TEXT)
    assert [pair.found for pair in outcome.pairs if pair.found] == invlib.metrics.words(outcome.text)


def test_every_step_is_told_as_it_happens(session):
    seen = []
    session.changed = lambda: seen.append(session.trajectory.num_steps if session.trajectory else -1)
    inverted(session, num_steps=5)
    assert sorted(set(seen) - {-1}) == [0, 1, 2, 3, 4, 5]
    assert seen == sorted(seen)


def test_many_candidates_give_the_likeliest_draft(session, inverter):
    outcome = inverted(session, candidates=4, seed=1)
    vectors, generator = inverter.encoder.encode([TEXT]), torch.Generator().manual_seed(1)
    result = inverter.invert(vectors, candidates=4, order_noise=1.0, generator=generator)
    assert outcome.text == result.texts[0] and outcome.model_calls == result.model_calls[0]
    np.testing.assert_array_equal(session.trajectory.tokens, result.trajectories[0].tokens)


def test_a_search_stays_within_its_budget_and_comes_no_less_close(session):
    plain, searched = inverted(session), inverted(session, max_queries=60)
    assert searched.encoder_queries <= 60 and searched.cosine >= plain.cosine - 1e-6
    assert searched.cosine == pytest.approx(
        float(session.look(settings()).vector @ session.inverter.encoder.encode([searched.text])[0]), abs=1e-4
    )


def test_whatever_a_search_finds_is_one_more_step_and_the_steps_before_read_as_they_did(session):
    inverted(session)
    random, trajectory = np.random.default_rng(0), session.trajectory
    read = [row[row != ABSENT].tolist() for row in trajectory.tokens]
    for length in random.integers(1, 14, 40).tolist():
        tokens = tuple(random.choice(trajectory.tokens[-1].clip(5), length).tolist())
        pieces = session.inverter.tokenizer.pieces(tokens)
        trajectory = edited(trajectory, tokens, pieces, "a text")
        read.append(list(tokens))
        assert [row[row != ABSENT].tolist() for row in trajectory.tokens] == read
        assert (
            trajectory.text == "a text" and np.isnan(trajectory.confidence[-1][trajectory.tokens[-1] == ABSENT]).all()
        )


def test_after_a_search_there_is_one_text_and_it_is_what_the_last_step_shows(session):
    outcome = inverted(session, max_queries=60)
    last = session.trajectory.tokens[-1]
    assert session.trajectory.text == outcome.text == session.inverter.tokenizer.decode(last[last != ABSENT])
    assert session.asked[session.trajectory.num_steps] == (outcome.cosine, outcome.encoder_queries)
    told = list(zip(*session.asked.values(), strict=True))  # cosines, queries by then: neither ever falls
    assert [sorted(row) for row in told] == [list(row) for row in told]


@pytest.mark.parametrize("watch", [False, True])
def test_searching_closer_goes_on_from_the_draft_as_if_asked_from_the_beginning(session, watch):
    at_once = inverted(session, text=HARD, max_queries=60, watch=watch)
    draft = inverted(session, text=HARD, watch=watch)
    queries = session.inverter.encoder.queries
    session.search(settings(HARD, max_queries=60, watch=watch))
    closer = done(session)
    assert (closer.text, closer.cosine, closer.code) == (at_once.text, at_once.cosine, at_once.code)
    assert (closer.model_calls, closer.encoder_queries) == (at_once.model_calls, at_once.encoder_queries)
    assert closer.changes == [] or closer.text != draft.text
    assert closer.encoder_queries - draft.encoder_queries <= 60
    assert session.inverter.encoder.queries - queries < 2 * 60, "what may be the closest is encoded again, in fp32"


def test_a_search_that_has_ended_says_so(session):
    inverted(session, text=HARD, max_queries=40)
    with pytest.raises(InputError, match=r"the search has ended here after \d+ of 40 queries; raise the budget, or"):
        session.search(settings(HARD, max_queries=40))
    for budget in (0, 2001):
        with pytest.raises(InputError, match=f"the search budget must be from 1 to 2,000, got {budget:,}"):
            session.search(settings(HARD, max_queries=budget))


def test_while_a_run_works_there_is_no_result_of_another_sentence(session):
    inverted(session)
    gate = Gate(session, step=2)
    session.invert(settings("Something else."))
    with gate:
        assert session.outcome is None
    done(session)
    assert session.outcome.settings.text == "Something else."


def test_the_cosine_of_every_step_is_watched_for_a_query_each(session, inverter):
    outcome = inverted(session, watch=True)
    texts = [
        inverter.tokenizer.decode(row[row != session.trajectory.mask_token_id]) for row in session.trajectory.tokens[1:]
    ]
    vectors = inverter.encoder.encode([TEXT, *texts])
    np.testing.assert_allclose([session.asked[step][0] for step in range(1, 9)], vectors[1:] @ vectors[0], atol=1e-5)
    assert outcome.encoder_queries == 8


def test_guidance_costs_two_calls_a_step(session):
    assert inverted(session, guidance_scale=2.0).model_calls == 16
    assert "guidance_scale=2.0" in session.outcome.code


def test_after_a_search_a_token_is_pinned_and_masked_where_it_stands(session):
    inverted(session, max_queries=60)
    columns = np.flatnonzero(session.trajectory.tokens[-1] != ABSENT)
    words = session.inverter.tokenizer.pieces(session.trajectory.tokens[-1, columns])
    session.pin(int(columns[1]))
    session.remask(int(columns[-1]))
    session.run_on(settings())
    done(session)
    after = session.trajectory.tokens[-1]
    assert session.inverter.tokenizer.pieces(after[after != ABSENT])[:-1] == words[:-1]
    inverted(session)
    assert session.trajectory.words(0)[1] == words[1] and len(session.trajectory) == len(columns)


# ── the input ──


def test_a_vector_is_inverted_like_the_text_it_came_from(session, inverter):
    vector = tuple((3 * inverter.encoder.encode([TEXT])[0]).tolist())
    by_text = inverted(session).text
    session.invert(Settings(vector=vector))
    outcome = done(session)
    assert outcome.text == by_text
    assert outcome.scores == {} and outcome.pairs == []
    view = session.look(Settings(vector=vector))
    assert view.norm == pytest.approx(3, abs=1e-4) and np.linalg.norm(view.vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_perturbation_of_the_lab_moves_the_vector_as_it_does_elsewhere(session, inverter, kind):
    strength = KINDS[kind].default or 0.02
    chosen = settings(perturbation=kind, strength=strength, seed=3)
    view, clean = session.look(chosen), inverter.encoder.encode([TEXT])
    expected = perturb.apply(KINDS[kind].make(strength, 384), clean, torch.Generator().manual_seed(3))
    np.testing.assert_allclose(view.vector, expected.vectors[0], atol=1e-6)
    assert view.cosine == pytest.approx(float(expected.cosines[0])) and view.cosine < 0.9999
    for strength in (KINDS[kind].low, KINDS[kind].high):
        assert np.isfinite(session.look(settings(perturbation=kind, strength=strength)).vector).all()


def test_without_noise_the_vector_is_the_encoder_s_own(session, inverter):
    view = session.look(settings())
    np.testing.assert_array_equal(view.vector, invlib.inverter.check_vectors(inverter.encoder.encode([TEXT]), 384)[0])
    assert view.cosine == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": ""}, "no text to invert; type a sentence"),
        ({"text": " \n"}, "no text to invert"),
        ({"text": "x" * 1001}, "1,001 characters; the lab takes 1,000 at most"),
        ({"vector": (1.0, 2.0)}, r"shape \(1, 2\); this checkpoint inverts 384-dimensional"),
        ({"vector": (float("nan"),) * 384}, "NaN or infinite"),
        ({"vector": (0.0,) * 384}, "all zeros"),
        ({"num_steps": 0}, "steps must be from 1 to 64, got 0"),
        ({"num_steps": 65}, "steps must be from 1 to 64, got 65"),
        ({"candidates": 33}, "candidates must be from 1 to 32, got 33"),
        ({"max_queries": 2001}, "the search budget must be from 1 to 2,000, got 2,001"),
        ({"max_queries": -1}, "the search budget must be from 1"),
        ({"seed": -1}, "the seed must be from 0"),
        ({"policy": "best"}, "no policy 'best'; choose one of top_confidence"),
        ({"perturbation": "magic"}, "no perturbation 'magic'; choose one of gaussian"),
        ({"perturbation": "gaussian", "strength": -1.0}, "sigma must be a finite number"),
        ({"perturbation": "dropout", "strength": 1.5}, "share must be a finite number ≥ 0"),
    ],
)
def test_what_is_outside_the_limits_is_refused_in_one_line_and_nothing_starts(session, values, message):
    for start in (session.invert, session.step_once):
        with pytest.raises(InputError, match=message) as caught:
            start(Settings(**{"text": TEXT, **values}))
        assert "\n" not in str(caught.value)
    assert session.state == IDLE and session.trajectory is None
    assert inverted(session).text


def test_limits_are_those_of_the_session(inverter):
    session = Session(inverter, Limits(characters=5))
    with pytest.raises(InputError, match="takes 5 at most"):
        session.invert(settings())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_steps": "many"}, "steps must be a whole number, got 'many'"),
        ({"num_steps": 2.5}, "steps must be a whole number"),
        ({"num_steps": True}, "steps must be a whole number"),
        ({"seed": None}, "the seed must be a whole number"),
        ({"strength": "0"}, "the strength must be a number"),
        ({"strength": float("nan")}, "the strength must be a number"),
        ({"candidates": float("inf")}, "candidates must be a whole number"),
        ({"text": 5}, "the text must be text"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_settings_from_a_page_are_checked(values, message):
    with pytest.raises(InputError, match=message):
        Settings.read({"text": TEXT} | values).check(Limits())


def test_settings_from_a_page_are_read():
    told = {"text": TEXT, "num_steps": 4, "strength": 0, "seed": 7, "perturbation": "gaussian"}
    assert Settings.read(told) == Settings(text=TEXT, num_steps=4, strength=0.0, seed=7)


# ── work in the background ──


def test_stop_ends_within_one_step_and_keeps_what_was_seen(session):
    gate = Gate(session, step=3)
    session.invert(settings(num_steps=64))
    with gate:
        session.stop()
    outcome = done(session)
    assert session.trajectory.num_steps == 3 and outcome.note == "stopped at step 3 of 64"
    assert outcome.code is None and outcome.cosine is None
    assert outcome.model_calls <= 3
    assert inverted(session).code


def test_a_second_click_while_running_is_refused_kindly_and_does_no_harm(session):
    gate = Gate(session, step=2)
    session.invert(settings())
    with gate:
        for act in (session.invert, session.run_on, session.step_once):
            with pytest.raises(Busy, match="is running; wait for it, or press Stop"):
                act(settings("Another sentence."))
        for act in (session.pin, session.remask, session.release):
            with pytest.raises(Busy):
                act(0)
    assert done(session).text == inverted(session).text


def test_stop_ends_a_search_between_its_rounds(session):
    began = threading.Event()
    session.changed = lambda: began.set() if session.run and session.run.found else None
    session.invert(settings("A very long road led to the quiet village by the lake.", max_queries=2000))
    assert began.wait(SECONDS)
    session.stop()
    outcome = done(session)
    assert "the search was stopped" in outcome.note and outcome.text and outcome.code is None
    assert 0 < outcome.encoder_queries < 2000


def test_stop_without_work_does_not_spoil_the_next_run(session):
    session.stop()
    assert inverted(session).note == ""


def test_an_error_in_the_thread_is_one_line_and_leaves_the_session_usable(session, inverter, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("the encoder is on fire")

    session.look(settings())
    monkeypatch.setattr(Encoder, "encode", broken)
    session.invert(settings())
    session.wait(SECONDS)
    assert session.error == "RuntimeError: the encoder is on fire" and session.state == IDLE
    assert session.outcome is None
    monkeypatch.undo()
    assert inverted(session).text and session.error == ""


def test_step_once_holds_after_each_step_and_gives_the_same_text_in_the_end(session):
    expected = inverted(session, num_steps=3)
    other = Session(session.inverter)
    for index in (1, 2):
        other.step_once(settings(num_steps=3))
        other.wait(SECONDS)
        assert other.state == HELD and other.trajectory.num_steps == index
    other.step_once(settings(num_steps=3))
    outcome = done(other)
    assert (outcome.text, outcome.code, outcome.cosine) == (expected.text, expected.code, expected.cosine)


def test_a_held_run_can_be_finished_stopped_or_begun_anew(session):
    expected = inverted(session)
    for finish in (session.run_on, session.invert):
        session.step_once(settings())
        session.wait(SECONDS)
        finish(settings())
        assert done(session).text == expected.text
    session.step_once(settings())
    session.wait(SECONDS)
    session.stop()
    session._thread.join(SECONDS)
    assert done(session).note == "stopped at step 1 of 8"


def test_after_a_stop_one_step_goes_on_from_there(session):
    gate = Gate(session, step=3)
    session.invert(settings())
    with gate:
        session.stop()
    done(session)
    session.changed = lambda: None
    before = session.trajectory.tokens[3].tolist()
    session.step_once(settings())
    session.wait(SECONDS)
    assert session.trajectory.tokens[3].tolist() == before and session.trajectory.num_steps == 4


# ── steering ──


def test_a_pinned_token_holds_in_the_next_inversion(session):
    inverted(session)
    session.pin(4, "noon")
    outcome = inverted(session)
    assert {session.trajectory.words(step)[4] for step in range(9)} == {"noon"}
    assert session.pinned_since == {4: 0} and "noon" in invlib.metrics.words(outcome.text)
    assert [pair.found for pair in outcome.changes if pair.found] == invlib.metrics.words(outcome.text)
    assert "noon" in [pair.found for pair in outcome.changes if pair.found_kind == "extra"]


def test_a_token_is_pinned_as_it_stands_at_the_step_that_is_shown(session):
    inverted(session)
    session.pin(0)
    assert session.pinned == {0: int(session.trajectory.tokens[-1, 0])}
    (masked, *_) = np.flatnonzero(session.trajectory.masked[1])
    with pytest.raises(InputError, match="still masked"):
        session.pin(int(masked), step=1)
    session.release(0)
    assert session.pinned == {}


def test_running_on_writes_only_what_is_masked(session):
    inverted(session)
    before = session.trajectory
    session.remask(3)
    session.run_on(settings())
    outcome = done(session)
    after = session.trajectory
    others = [i for i in range(len(after)) if i != 3]
    assert (after.tokens[-1, others] == before.tokens[-1, others]).all()
    assert after.masked[9, 3] and not after.masked[10, 3] and after.num_steps == 10
    np.testing.assert_array_equal(after.tokens[:9], before.tokens)
    np.testing.assert_array_equal(after.confidence[-1, others], before.confidence[-1, others])
    assert session.masked == set() and outcome.model_calls == 1


def test_running_on_from_an_earlier_step_with_another_word(session):
    inverted(session)
    before = session.trajectory
    session.pin(4, "noon")
    session.run_on(settings(), step=3)
    done(session)
    after = session.trajectory
    np.testing.assert_array_equal(after.tokens[:4], before.tokens[:4])
    assert after.words(4)[4] == "noon" and session.pinned_since == {4: 4}
    assert not after.masked[-1].any() and after.words(after.num_steps)[4] == "noon"
    kept = np.flatnonzero(~before.masked[3])
    assert (after.tokens[-1, kept] == before.tokens[3, kept]).all()


def test_a_held_run_that_is_steered_goes_on_from_what_was_set(session):
    session.step_once(settings())
    session.wait(SECONDS)
    session.pin(1, "us")
    session.run_on(settings())
    outcome = done(session)
    assert session.trajectory.words(session.trajectory.num_steps)[1] == "us" and outcome.code


def test_where_nothing_is_masked_there_is_nothing_to_run_on(session):
    with pytest.raises(InputError, match="nothing to run on from"):
        session.run_on(settings())
    inverted(session)
    with pytest.raises(InputError, match="nothing is masked here; mask a token"):
        session.run_on(settings())
    with pytest.raises(InputError, match="nothing to run on from with this input"):
        session.run_on(settings("Something else."))
    with pytest.raises(InputError, match="no step 99; there are 0 to 8"):
        session.run_on(settings(), step=99)


def test_pins_of_one_text_do_not_reach_another(session):
    inverted(session)
    session.pin(4, "noon")
    assert "noon" not in inverted(session, text="She sold fresh fish at the market.").text
    assert session.pinned == {} and session.outcome.changes == []


def test_steering_outside_the_text_or_before_it_is_refused(session):
    with pytest.raises(InputError, match="no text yet; press Invert first"):
        session.pin(0)
    inverted(session)
    with pytest.raises(InputError, match=r"no position 99 in a text of \d+ tokens"):
        session.remask(99)
    with pytest.raises(InputError, match="is not one token of the vocabulary"):
        session.pin(0, "two words")
    for position in range(len(session.trajectory)):
        session.pin(position)
    with pytest.raises(InputError, match="every token is pinned"):
        session.invert(settings())


@pytest.mark.parametrize("policy", ["path_planning", "remdm_cap", "remdm_conf", "euler_remask_uncertain"])
def test_policies_that_mask_again_run_on_too_and_keep_the_pins(session, policy):
    inverted(session)
    session.pin(0)
    session.remask(3)
    session.run_on(settings(policy=policy))
    done(session)
    assert not session.trajectory.masked[-1].any()
    assert len(set(session.trajectory.tokens[-5:, 0])) == 1


# ── the code ──


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"text": 'He said: "it\'s" \\n\nfine', "num_steps": 3},
        {"perturbation": "gaussian", "strength": 0.03, "seed": 5},
        {"perturbation": "quantised", "strength": 3.0},
        {"perturbation": "truncated", "strength": 0.4},
        {"perturbation": "binary", "strength": 1.0},
        {"policy": "ancestral", "seed": 9},
        {"candidates": 3, "seed": 2},
        {"max_queries": 20},
        {"max_queries": 60, "seed": 1},
    ],
    ids=str,
)
def test_the_copied_code_repeats_the_text(session, values):
    outcome = inverted(session, **values)
    result = repeated(outcome.code)
    assert result.texts[0] == outcome.text
    assert result.cosines[0] == pytest.approx(outcome.cosine, abs=1e-6)
    assert (result.model_calls[0], result.encoder_queries[0]) == (outcome.model_calls, outcome.encoder_queries)
    *_, inverter, vectors, last = outcome.code.splitlines()
    assert inverter.startswith("inverter = ") and vectors.startswith("vectors = ") and last.startswith("result = ")


def test_the_copied_code_repeats_a_steered_run(session):
    inverted(session)
    session.pin(4, "noon")
    pinned = inverted(session)
    assert repeated(pinned.code).texts[0] == pinned.text
    session.remask(1)
    session.run_on(settings(policy="random_order", seed=4))
    steered = done(session)
    assert repeated(steered.code).texts[0] == steered.text
    assert "start={" in steered.code and "pinned={4: 'noon'}" in steered.code


def test_the_copied_code_repeats_a_vector(session, inverter):
    vector = tuple((2 * inverter.encoder.encode([TEXT])[0]).tolist())
    for values in ({}, {"strength": 0.02}):
        session.invert(Settings(vector=vector, **values))
        outcome = done(session)
        assert repeated(outcome.code).texts[0] == outcome.text


# ── pasted and uploaded vectors ──


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


NUMBERS = [0.25, -1.5, 3.0]


@pytest.mark.parametrize(
    "content",
    [
        npy(np.array(NUMBERS, np.float32)),
        npy(np.array([NUMBERS])),
        npy(np.array([NUMBERS], order="F", dtype=np.float16)),
        json.dumps(NUMBERS).encode(),
        json.dumps([NUMBERS]),
        json.dumps({"model": "x", "embedding": NUMBERS}),
        json.dumps({"vector": [NUMBERS]}),
        json.dumps({"object": "list", "data": [{"embedding": NUMBERS, "index": 0}], "usage": {"total_tokens": 3}}),
        json.dumps({"id": 1, "vector": {"text": NUMBERS}}),
        json.dumps({"id": 1, "embedding": "[0.25,-1.5,3]"}),
        "[0.25 -1.5\n 3. ]",
        "{0.25,-1.5,3}",
        "0.25, -1.5, 3",
        " 0.25 -1.5\n3e0\n",
        "0.25; -1.5; 3.0",
        "\ufeff0.25,-1.5,3".encode(),
    ],
)
def test_a_vector_is_read_from_what_people_have(content):
    assert read_vector(content, "v").tolist() == NUMBERS


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_an_uploaded_file_is_never_unpickled(tmp_path):
    for bomb in (np.array(Bomb(tmp_path / "boom")), np.array([Bomb(tmp_path / "boom")] * 3)):
        with pytest.raises(InputError, match="holds Python objects, which could run code"):
            read_vector(npy(bomb), "v.npy")
    assert not list(tmp_path.iterdir())


def lying_npy() -> bytes:
    header = npy(np.zeros(3)).replace(b"(3,)", b"(9,)")
    assert header != npy(np.zeros(3))
    return header


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there is no vector"),
        ("  ", "there is no vector; paste its numbers"),
        (npy(np.zeros((2, 3))), r"has the shape \[2, 3\]; the lab inverts one vector"),
        (npy(np.array(3.0)), r"has the shape \[\]"),
        (npy(np.array([])), r"has the shape \[0\]"),
        (npy(np.array(["a"])), "no list of numbers"),
        (npy(np.zeros(3))[:-4], "cut off or damaged"),
        (lying_npy(), "cut off or damaged"),
        (b"\x93NUMPY\x09\x00junk", "not a .npy file that can be read"),
        (b"\x93NUMPY", "not a .npy file that can be read"),
        (b"PK\x03\x04\xff\xfe", "neither .npy nor text"),
        ("[0.1, 0.2", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": [1]}', "holds no list of numbers"),
        ("[[1, 2], [3]]", "unequal lengths"),
        ('["a"]', "holds no list of numbers"),
        ("0.1, o.2", "entry 2, 'o.2', is not a number"),
        ("1" * (MAX_BYTES + 1), "1,000,001 bytes; one vector needs less"),
    ],
)
def test_what_is_no_vector_is_refused_in_one_line(content, message):
    with pytest.raises(InputError, match=message) as caught:
        read_vector(content, "v")
    assert "\n" not in str(caught.value)
