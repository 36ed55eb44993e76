"""Mismatch: the wrong pooling, prompt and normalisation are those of the library, and each moves the vector."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.metrics import cosine
from invlib.studies import mismatch

TEXTS = ["a dog sat .", "the big red cat ran under the small mat .", "the cat"]


@pytest.fixture(scope="module")
def tiny(tiny_qwen3_folder) -> Encoder:
    return Encoder.load(tiny_qwen3_folder)


def token_states(encoder: Encoder, text: str) -> np.ndarray:
    """The transformer's last hidden states of one text, [tokens, d]: what every pooling starts from."""
    features = encoder.model.preprocess([text])
    with torch.no_grad():
        return encoder.model[0](features)["token_embeddings"][0].numpy()


@pytest.mark.parametrize(
    ("mode", "pool"),
    [
        ("cls", lambda s: s[0]),
        ("max", lambda s: s.max(axis=0)),
        ("mean", lambda s: s.mean(axis=0)),
        ("lasttoken", lambda s: s[-1]),
    ],
)
@pytest.mark.parametrize("name", ["minilm", "tiny"])
def test_another_pooling_is_that_pooling_of_the_same_token_states(name, mode, pool, request):
    encoder = request.getfixturevalue(name)
    wrong = mismatch.with_pooling(encoder, mode)
    expected = np.stack([pool(token_states(encoder, text)) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(wrong.encode(TEXTS), expected, atol=1e-5)
    assert mode in wrong.name and wrong.embed_dim == encoder.embed_dim


def test_the_right_pooling_changes_nothing_and_another_one_does(minilm):
    clean = minilm.encode(TEXTS)
    np.testing.assert_allclose(mismatch.with_pooling(minilm, "mean").encode(TEXTS), clean, atol=1e-6)
    assert cosine(mismatch.with_pooling(minilm, "cls").encode(TEXTS), clean).max() < 0.95


def test_the_encoder_itself_stays_as_it_is(minilm):
    clean, queries = minilm.encode(TEXTS), minilm.queries
    mismatch.with_pooling(minilm, "max").encode(TEXTS)
    mismatch.with_prompt(minilm, "query: ").encode(TEXTS)
    assert minilm.queries == queries
    np.testing.assert_array_equal(minilm.encode(TEXTS), clean)


def test_an_unknown_pooling_is_refused_with_those_there_are(minilm):
    with pytest.raises(InputError, match="pooling must be one of cls, max, mean, .*; got 'average'"):
        mismatch.with_pooling(minilm, "average")


def test_an_encoder_without_pooling_is_refused(minilm):
    bare = Encoder(SentenceTransformer(modules=[minilm.model[0]], device="cpu"), name="bare")
    with pytest.raises(InputError, match="'bare' has no pooling module"):
        mismatch.with_pooling(bare, "cls")


def test_a_prompt_stands_before_each_text_and_is_taken_literally(tiny):
    expected = tiny.encode(["query" + text for text in TEXTS])
    np.testing.assert_allclose(mismatch.with_prompt(tiny, "query").encode(TEXTS), expected, atol=1e-5)


def test_a_default_prompt_can_be_taken_away(tiny_qwen3_folder, tiny):
    model = SentenceTransformer(tiny_qwen3_folder, device="cpu", default_prompt_name="query")
    prompted = Encoder(model, name="prompted")
    assert cosine(prompted.encode(TEXTS), tiny.encode(TEXTS)).max() < 0.999
    np.testing.assert_allclose(mismatch.with_prompt(prompted, "").encode(TEXTS), tiny.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("name", ["minilm", "tiny"])
def test_raw_vectors_have_the_direction_but_not_the_length(name, request):
    encoder = request.getfixturevalue(name)
    before = encoder.queries
    raw = mismatch.raw_vectors(encoder, TEXTS)
    assert encoder.queries == before + len(TEXTS) and raw.dtype == np.float32
    lengths = np.linalg.norm(raw, axis=1)
    assert (np.abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(raw / lengths[:, None], encoder.encode(TEXTS), atol=1e-5)


def test_raw_vectors_need_texts(minilm):
    with pytest.raises(InputError, match="text 1 is ''"):
        mismatch.raw_vectors(minilm, ["a", ""])
