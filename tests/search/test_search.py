"""The encoder in the loop: exact recovery where it is possible, and a budget that holds."""

import json
import re
import zlib

import numpy as np
import pytest
import torch

from invlib.errors import InputError
from invlib.inverter import check_vectors
from invlib.search import BestOf, Ledger, SwapBeam, Target, edits, improve
from invlib.search.edits import Edit
from invlib.search.ledger import recognised_from
from invlib.search.swap_beam import Attempts
from invlib.search.target import DRAFT_STEPS
from tests import pages

WORDS = [
    *("[PAD]", "the", "a", "old", "young", "keeper", "sailor"),
    *("opened", "closed", "[MASK]", "gate", "door", "slowly"),
]
MASK = WORDS.index("[MASK]")
SENTENCES = pages.ROOT / "data/sentences/sentences.jsonl"
TRUTH = "the old keeper opened the gate"


def tokens(text: str) -> tuple[int, ...]:
    return tuple(WORDS.index(word) for word in text.split())


def decode(ids) -> str:
    return " ".join(WORDS[int(i)] for i in ids)


def direction(feature: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(feature.encode())).standard_normal(48)


class BagOfWords:
    """An encoder that hears words and, faintly, neighbours; it remembers whatever it was asked."""

    def __init__(self):
        self.asked: list[str] = []

    def __call__(self, texts):
        self.asked += texts
        return np.stack([self.vector(text) for text in texts])

    @staticmethod
    def vector(text: str) -> np.ndarray:
        words = text.split()
        pairs = [f"{a} {b}" for a, b in zip(["^", *words], [*words, "$"], strict=True)]
        vector = sum(direction(word) for word in words) + 0.3 * sum(direction(pair) for pair in pairs)
        return vector / np.linalg.norm(vector)


def indifferent(lengths, toward, hypothesis):
    """A denoiser to which all words are alike."""

    def predict(xt, rows, at):
        logits = torch.zeros(int(at.sum()), len(WORDS))
        logits[:, 0] = -torch.inf
        return logits

    return predict


@pytest.fixture
def encoder():
    return BagOfWords()


def make_target(encoder, pinned=None, seed=0, vector=None, length_probs=(0, 0, 0, 0, 0.2, 0.6, 0.2, 0)) -> Target:
    ledger = Ledger(
        BagOfWords.vector(TRUTH).astype(np.float32) if vector is None else vector,
        encoder,
        decode,
        mask_token_id=MASK,
        max_length=len(length_probs),
        pinned=pinned or {},
    )
    return Target(ledger, indifferent, np.array(length_probs), generator=torch.Generator().manual_seed(seed))


def nowhere() -> np.ndarray:
    """A vector that no text comes close to."""
    return -BagOfWords.vector(TRUTH).astype(np.float32)


def run(target, *strategies, draft="a young keeper closed the gate"):
    return list(improve(target, strategies, [tokens(draft)]))


@pytest.mark.parametrize(
    "draft",
    [
        "the old sailor opened the gate",  # a wrong word
        "a young sailor closed a door",  # all wrong
        "the keeper opened gate",  # words missing
        "the old young keeper slowly opened the gate",  # words too many
        "the gate opened the old keeper",  # the wrong order
    ],
)
def test_swap_beam_finds_the_exact_text(encoder, draft):
    found = run(make_target(encoder), SwapBeam(width=4, max_queries=2000), draft=draft)
    assert found[-1].text == TRUTH
    assert found[-1].cosine == pytest.approx(1, abs=1e-5)


def test_single_edits_alone_need_more_queries_than_combined_ones(encoder, monkeypatch):
    draft = "a young sailor closed a door"
    combined = make_target(encoder)
    run(combined, SwapBeam(max_queries=2000), draft=draft)
    monkeypatch.setattr(Attempts, "combinations", lambda *arguments: [])
    alone = make_target(encoder)
    run(alone, SwapBeam(max_queries=2000), draft=draft)
    assert combined.ledger.best(1)[0].text == TRUTH
    assert combined.ledger.queries < alone.ledger.queries


def test_the_denoiser_listens_beyond_the_vector_for_edits_and_to_the_vector_for_refills(encoder):
    heard = []

    def listening(lengths, toward, hypothesis):
        heard.append(toward)
        return indifferent(lengths, toward, hypothesis)

    target = make_target(encoder)
    target.denoiser = listening
    run(target, SwapBeam(max_queries=10))
    draft = BagOfWords.vector("a young keeper closed the gate")
    ahead = target.vector + 0.5 * (target.vector - draft)
    for toward in heard:
        np.testing.assert_allclose(toward, ahead / np.linalg.norm(ahead), atol=1e-6)
    heard.clear()
    run(target, BestOf(20))
    assert all(toward is target.vector for toward in heard) and heard


def test_alternatives_and_insertions_ask_at_one_mask_with_all_other_tokens_visible(encoder):
    def hearing(lengths, toward, hypothesis):
        def predict(xt, rows, at):
            return torch.stack([torch.eye(len(WORDS))[row[row != MASK]].sum(0) for row in xt])

        return predict

    target, text = make_target(encoder), tokens("the gate opened")
    target.denoiser = hearing
    counts = torch.eye(len(WORDS))[list(text)]
    for found, heard in (
        (target.alternatives(text, target.vector), counts.sum(0) - counts),
        (target.insertions(text, target.vector), counts.sum(0).expand(4, -1)),
    ):
        expected = heard.index_fill(1, torch.tensor([MASK]), -torch.inf).log_softmax(-1)
        torch.testing.assert_close(found, expected)
    assert target.model_calls == 3 + 4


def test_an_edit_changes_its_places_and_edits_apart_are_joined():
    text = (10, 11, 12, 13, 14, 15)
    assert Edit.of((1, 3, (7,)))(text) == (10, 7, 13, 14, 15)
    assert Edit.of((0, 0, (7, 8)))(text) == (7, 8, *text)
    assert Edit.of((6, 6, (7,)))(text) == (*text, 7)
    move, change = Edit.of((4, 6, ()), (1, 1, (14, 15))), Edit.of((1, 2, (7,)))
    assert move(text) == (10, 14, 15, 11, 12, 13)
    assert move.places.isdisjoint(change.places), "the gap before a token is not the token"
    assert (move + change)(text) == (change + move)(text) == (10, 14, 15, 7, 12, 13)
    assert not move.places.isdisjoint(Edit.of((5, 6, (7,))).places)


def test_swaps_and_moves_come_in_the_order_of_the_denoisers_belief():
    before, after = tokens("the gate opened keeper"), tokens("keeper opened the gate")
    belief = torch.full((4, len(WORDS)), -9.0)
    between = torch.full((5, len(WORDS)), -9.0)
    belief[0, after[0]] = belief[3, before[0]] = -1.0  # "keeper" first and "the" last
    assert edits.swaps(belief, before)[0](before) == tokens("keeper gate opened the")
    between[4, before[0]] = between[4, before[1]] = -1.0  # "the … gate" behind everything
    assert edits.moves(belief, between, before)[0](before) == tokens("opened keeper the gate")
    moved = [edit(before) for edit in edits.moves(belief, torch.empty(0, 0), before)]
    assert len(moved) == len(set(moved)) == 10 and all(sorted(text) == sorted(before) for text in moved)


@pytest.mark.parametrize(
    ("strategies", "budget"),
    [
        ((BestOf(7),), 7),
        ((SwapBeam(max_queries=50),), 50),
        ((BestOf(20), SwapBeam(max_queries=60)), 60),
    ],
)
def test_the_budget_is_a_hard_limit_and_nothing_is_encoded_twice(encoder, strategies, budget):
    target = make_target(encoder, vector=nowhere())  # so that the budget is used up
    run(target, *strategies)
    assert len(encoder.asked) == len(set(encoder.asked)) == target.ledger.queries == budget


def test_a_search_ends_when_there_is_nothing_left_to_encode(encoder):
    target = make_target(encoder, vector=nowhere(), length_probs=(0.5, 0.5))
    run(target, SwapBeam(max_queries=5000), draft="the gate")
    words = len(WORDS) - 1  # without [MASK]
    assert target.ledger.queries == words + words**2, "all there is to ask"


def test_best_of_keeps_the_closest_of_its_drafts(encoder):
    found = run(make_target(encoder), BestOf(30))
    cosines = [float(BagOfWords.vector(text) @ BagOfWords.vector(TRUTH)) for text in encoder.asked]
    assert len(cosines) == 30
    assert found[-1].cosine == pytest.approx(max(cosines), abs=1e-5)
    assert found[-1].text == encoder.asked[int(np.argmax(cosines))]
    assert len({len(text.split()) for text in encoder.asked}) > 1, "drafts must differ in length"


def test_a_search_may_be_stopped_between_two_steps_of_its_drafts(encoder):
    target = make_target(encoder)
    target.ledger.max_queries = 16
    work = BestOf(16).improve(target)
    for _ in range(DRAFT_STEPS + 1):  # the masks, then every step
        next(work)
        assert encoder.asked == []
    next(work)
    assert len(encoder.asked) == target.ledger.queries > 1


def test_a_close_enough_text_ends_the_search(encoder):
    target = make_target(encoder)
    target.ledger.stop_cosine = 0.5
    run(target, SwapBeam(max_queries=2000))
    assert target.ledger.queries == 1, "the draft itself is closer than 0.5"


def test_pinned_tokens_are_in_every_text(encoder):
    target = make_target(encoder, pinned={2: WORDS.index("sailor")})
    run(target, BestOf(20), SwapBeam(max_queries=300), draft="the old sailor opened the gate")
    assert all(text.split()[2] == "sailor" for text in encoder.asked)
    assert len(encoder.asked) > 100


def test_the_same_generator_gives_the_same_search(encoder):
    one, other = (run(make_target(encoder, seed=3), BestOf(10), SwapBeam(max_queries=100)) for _ in "ab")
    assert [found.text for found in one] == [found.text for found in other]


class Failing(BagOfWords):
    """Works for 40 texts, then does something wrong."""

    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    def __call__(self, texts):
        good = super().__call__(texts)
        return self.wrong(good) if len(self.asked) > 40 else good


def raise_timeout(vectors):
    raise TimeoutError("no answer")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (raise_timeout, "the encoder failed after .* queries .TimeoutError: no answer"),
        (lambda vectors: vectors * np.nan, "has NaN or infinite|is all zeros"),
        (lambda vectors: vectors * 0, "has NaN or infinite|is all zeros"),
        (lambda vectors: vectors[:-1], "48 dimensions"),
    ],
)
def test_an_encoder_that_fails_in_the_middle_loses_nothing(wrong, message):
    target = make_target(Failing(wrong))
    found = run(target, BestOf(30), SwapBeam(max_queries=500))
    assert found[-1] == target.ledger.best(1)[0]
    assert 30 <= target.ledger.queries <= 40
    assert re.search(message, target.ledger.error)


def test_an_encoder_of_another_dimension_is_refused():
    target = make_target(lambda texts: np.ones((len(texts), 7)))
    with pytest.raises(InputError, match="shape .7,., the one to invert has .48,."):
        run(target, BestOf(3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: BestOf(0),
        lambda: SwapBeam(width=0),
        lambda: SwapBeam(max_queries=0),
        lambda: SwapBeam(top_k=-1),
    ],
)
def test_a_search_without_room_is_refused(make):
    with pytest.raises(InputError, match="must be an integer from 1 to"):
        make()


def test_an_exact_draft_is_the_only_query_and_no_denoiser_is_asked(encoder):
    target = make_target(encoder)
    found = list(improve(target, [BestOf(32), SwapBeam()], [tokens(TRUTH), tokens("the gate")]))
    assert [best.text for best in found] == [TRUTH]
    assert encoder.asked == [TRUTH] and target.model_calls == 0


@pytest.mark.parametrize(
    ("stored", "noise_level"),
    [
        (lambda vectors: vectors, 0.0),
        (lambda vectors: vectors.astype(np.float16), 0.0),
        (lambda vectors: np.rint(vectors / np.abs(vectors).max(axis=1, keepdims=True) * 127), "int8"),
        (lambda vectors: vectors + 0.015 / 384**0.5 * np.random.default_rng(0).standard_normal(vectors.shape), 0.015),
    ],
    ids=["fp32", "fp16", "int8", "noise"],
)
def test_the_text_of_a_stored_vector_is_recognised_and_its_neighbours_are_not(minilm, stored, noise_level):
    """The neighbours differ by what an encoder hardly hears: a comma, an article."""
    texts = [json.loads(line)["text"] for line in SENTENCES.read_text().splitlines()][::4]
    neighbours = [
        text.replace(" a ", " the ", 1) if " a " in text else text.replace(" the ", " a ", 1) for text in texts
    ]
    differ = np.array([one != other for one, other in zip(texts, neighbours, strict=True)])
    vectors, near = minilm.encode(texts), minilm.encode(neighbours)
    kept = check_vectors(stored(vectors), 384)
    if noise_level == "int8":  # an error of uniform density, one step of each vector wide: σ = step / √12
        noise_level = np.abs(vectors).max(axis=1) / 127 * (384 / 12) ** 0.5
    least = [recognised_from(float(level), 384) for level in np.broadcast_to(noise_level, len(texts))]
    assert ((kept * vectors).sum(axis=1) >= least).mean() > 0.95
    assert ((kept * near).sum(axis=1) >= least)[differ].mean() < 0.02


def test_noise_that_hides_what_tells_texts_apart_recognises_nothing():
    assert recognised_from(0.1, 384) > 1
    assert recognised_from(0.0, 384) == pytest.approx(1 - 1e-6)
