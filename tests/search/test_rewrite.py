"""Texts written anew by a denoiser that hears how the encoder saw them."""

import numpy as np
import pytest
import torch

import invlib
from invlib.alignment import Alignment
from invlib.errors import InputError
from invlib.search import BestOf, Rewrite, SwapBeam, improve
from tests.search.test_search import MASK, TRUTH, WORDS, BagOfWords, indifferent, make_target, nowhere, tokens

TOP = 8


def mending(lengths, toward, hypothesis):
    """A denoiser that is indifferent alone; told of a hypothesis it mends half of the places that are wrong in it."""
    if hypothesis is None:
        return indifferent(lengths, toward, hypothesis)
    truth = torch.tensor(tokens(TRUTH))

    def predict(xt, rows, at):
        logits = torch.full((*xt.shape, len(WORDS)), -30.0)
        for place, row in enumerate(rows.tolist()):
            own = hypothesis.tokens[row, : len(truth)].clone()
            wrong = (own != truth).nonzero()[::2]
            own[wrong] = truth[wrong]
            logits[place, torch.arange(len(own)), own] = 30.0
        return logits[at]

    return predict


def told_lengths(hypothesis):
    return np.eye(TOP)[[len(TRUTH.split()) - 1] * len(hypothesis.lengths)]


def target(encoder, **options):
    made = make_target(encoder, **options)
    made.denoiser, made.corrected_lengths = mending, told_lengths
    return made


@pytest.fixture
def encoder():
    return BagOfWords()


def run(aim, *strategies, draft="a young sailor closed a door"):
    return list(improve(aim, strategies, [tokens(draft)]))


def test_every_round_mends_what_the_encoder_saw_wrong(encoder):
    found = run(target(encoder), Rewrite(width=1, each=1, max_queries=60))
    cosines = [best.cosine for best in found]
    assert found[-1].text == TRUTH and len(set(cosines)) > 2 and cosines == sorted(cosines)


def test_without_drafts_the_first_round_writes_some(encoder):
    aim = target(encoder)
    list(improve(aim, [Rewrite(max_queries=60)], []))
    assert aim.ledger.best(1)[0].text == TRUTH


def test_it_ends_with_its_queries_and_leaves_the_rest_to_the_next(encoder):
    aim = target(encoder, vector=nowhere())
    run(aim, BestOf(9), Rewrite(max_queries=20, patience=1000), SwapBeam(max_queries=31))
    assert aim.ledger.queries == 31
    alone = target(BagOfWords(), vector=nowhere())
    run(alone, BestOf(9), Rewrite(max_queries=20, patience=1000))
    assert 9 <= alone.ledger.queries <= 20


def test_it_ends_when_nothing_comes_closer(encoder):
    rounds = []
    for patience in (1, 3):
        aim = target(BagOfWords(), vector=nowhere())
        rounds.append(len(list(Rewrite(max_queries=500, patience=patience).improve(begun(aim)))))
    assert rounds[0] < rounds[1] < 60


def begun(aim):
    aim.ledger.max_queries = 500
    aim.ledger.score([tokens("a young sailor closed a door")] * 8)
    return aim


def test_it_hears_mapped_vectors_where_the_ledger_is_another_encoders(encoder):
    aim, heard = target(encoder), []
    aim.alignment = lambda vectors: -np.atleast_2d(vectors)
    aim.denoiser = lambda lengths, toward, hypothesis: heard.append(hypothesis) or mending(lengths, toward, hypothesis)
    aim.vector = -aim.ledger.vector
    run(aim, Rewrite(width=1, each=1, max_queries=12))
    told = next(each for each in heard if each is not None)
    assert told.tokens.shape[1] == TOP and (told.tokens[0, int(told.lengths[0]) :] == MASK).all()
    assert any(np.allclose(-own.vector, told.vectors[0]) for own in aim.ledger.found.values())


class Mirrored(Alignment):
    """An alignment of an encoder whose vectors point the other way."""

    foreign_dim = 384

    def __init__(self):
        pass

    def __call__(self, vectors):
        return -np.atleast_2d(vectors)


@pytest.mark.parametrize("alignment", [None, Mirrored()])
def test_the_bundled_checkpoint_rewrites_under_noise_and_through_an_alignment(alignment):
    inverter = invlib.Inverter.load("minilm")
    sign = -1 if alignment else 1
    encode = lambda texts: sign * inverter.encoder.encode(texts)  # noqa: E731
    (vector,) = encode(["The fridge makes a strange noise."])
    generator = torch.Generator().manual_seed(0)
    aim = inverter.target(vector, encode=encode, alignment=alignment, generator=generator, noise_level=0.1)
    found = list(improve(aim, [BestOf(8), Rewrite(max_queries=40)], []))
    assert found[-1].cosine > 0.99 and found[-1].cosine > found[0].cosine


def test_a_checkpoint_without_a_corrector_is_told_so(encoder):
    with pytest.raises(InputError, match="no corrector, which Rewrite needs; search with BestOf and SwapBeam"):
        run(make_target(encoder), BestOf(4), Rewrite())
    assert encoder.asked == [], "said before the first query"


@pytest.mark.parametrize("wrong", [{"width": 0}, {"each": -1}, {"patience": 0}, {"temperature": -1}])
def test_values_outside_their_domain_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Rewrite(**wrong)
