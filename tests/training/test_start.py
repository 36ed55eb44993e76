"""The weights a training starts from: what comes from the encoder computes what it computed there."""

import dataclasses

import numpy as np
import pytest
import torch

from invlib import checkpoint
from invlib.config import Config, ModelConfig, TrainingConfig
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.training.pairs import Pairs
from invlib.training.start import initial_model
from invlib.training.vocabulary import prune

FROM_ENCODER = Config(
    model=ModelConfig(
        vocab_size=2304,
        max_seq_len=8,
        hidden_dim=384,
        num_layers=6,
        num_heads=12,
        ff_dim=1536,
        embedding_cond_dim=384,
        mask_token_id=4,
        encoder_model="minilm",
        decoder_tokenizer="pruned",
        gate=True,
        post_norm=True,
        tie_embeddings=True,
        standardize=True,
    ),
    training=TrainingConfig(batch_size=2, max_steps=1, lr=1e-3, tokens_from_encoder=True, blocks_from_encoder=True),
)


@pytest.fixture(scope="module")
def pairs(minilm, pruned, sentences, tmp_path_factory) -> Pairs:
    folder = tmp_path_factory.mktemp("initial")
    (folder / "sentences.txt").write_text("\n".join(sentences), encoding="utf-8")
    return Pairs.build(folder / "pairs", folder / "sentences.txt", minilm, pruned, 16)


@torch.inference_mode()
def test_at_the_start_the_blocks_compute_what_the_encoder_computes(minilm, pruned, pairs):
    model = initial_model(FROM_ENCODER, minilm, pruned, pairs).eval()
    xt = torch.from_numpy(pairs.tokens[:3, :8].astype(np.int64))
    modulation = model.modulation(torch.from_numpy(pairs.embeddings[:3].astype(np.float32)))

    pieces = pruned.pieces(xt.flatten().tolist())
    theirs = torch.tensor(minilm.tokenizer.convert_tokens_to_ids(pieces)).view(xt.shape)
    bert = minilm.model[0].auto_model
    expected = bert(input_ids=theirs, position_ids=torch.arange(1, 9).expand(3, 8)).last_hidden_state
    torch.testing.assert_close(model.hidden_states(xt, modulation), expected, atol=1e-4, rtol=1e-4)


def test_the_embedding_statistics_are_those_of_the_pairs(minilm, pruned, pairs):
    model = initial_model(FROM_ENCODER, minilm, pruned, pairs)
    vectors = pairs.embeddings[:].astype(np.float32)
    np.testing.assert_allclose(model.embedding_mean.numpy(), vectors.mean(axis=0), atol=1e-6)
    std = vectors.std(axis=0)
    np.testing.assert_allclose(model.embedding_std.numpy(), std.clip(min=np.median(std) / 10), rtol=1e-4, atol=1e-6)


def test_coordinates_that_no_text_moves_do_not_drown_a_noisy_vector(minilm, pruned, pairs):
    model = initial_model(FROM_ENCODER, minilm, pruned, pairs)
    vectors = pairs.embeddings[:].astype(np.float32)
    assert (vectors.std(axis=0) < 1e-5).sum() == 3, "all-MiniLM-L6-v2 has three dead coordinates"
    noise = 0.01 * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    heard = model._standardized(torch.from_numpy(vectors) + noise)
    assert heard.abs().max() < 10


def test_without_the_encoder_the_start_is_random_and_seeded(minilm, pruned, pairs):
    training = dataclasses.replace(FROM_ENCODER.training, tokens_from_encoder=False, blocks_from_encoder=False)
    plain = dataclasses.replace(FROM_ENCODER, training=training)
    other = dataclasses.replace(plain, training=dataclasses.replace(training, seed=1))
    one, again, another = (
        initial_model(config, minilm, pruned, pairs).token_embed.weight for config in (plain, plain, other)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, another)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"post_norm": False}, "post_norm is false"),
        ({"num_layers": 9}, "num_layers 6 or a multiple"),
        ({"num_heads": 6}, "num_heads 12"),
        ({"ff_dim": 768}, "ff_dim 1536"),
    ],
)
def test_a_model_that_the_encoder_does_not_fit_is_refused(minilm, pruned, pairs, model, message):
    config = dataclasses.replace(FROM_ENCODER, model=dataclasses.replace(FROM_ENCODER.model, **model))
    with pytest.raises(InputError, match=f"blocks_from_encoder needs.*{message}"):
        initial_model(config, minilm, pruned, pairs)


def test_a_deeper_model_has_every_layer_of_the_encoder_twice(minilm, pruned, pairs):
    shape = dataclasses.replace(FROM_ENCODER.model, num_layers=12)
    blocks = initial_model(dataclasses.replace(FROM_ENCODER, model=shape), minilm, pruned, pairs).blocks
    layers = minilm.model[0].auto_model.encoder.layer
    for number, block in enumerate(blocks):
        assert torch.equal(block.ff[0].weight, layers[number // 2].intermediate.dense.weight)


def test_a_wider_model_has_the_encoders_table_in_its_first_columns(minilm, pruned, pairs):
    shape = dataclasses.replace(FROM_ENCODER.model, hidden_dim=396)
    training = dataclasses.replace(FROM_ENCODER.training, blocks_from_encoder=False)
    wide = initial_model(Config(shape, training), minilm, pruned, pairs).token_embed.weight
    narrow = initial_model(FROM_ENCODER, minilm, pruned, pairs).token_embed.weight
    assert torch.equal(wide[:, :384], narrow) and wide[:, 384:].std() > 0.01


def test_an_encoder_that_is_no_bert_is_refused(tiny_qwen3_folder, pruned, pairs):
    training = dataclasses.replace(FROM_ENCODER.training, tokens_from_encoder=False)
    with pytest.raises(InputError, match="needs a BERT encoder.*is a Qwen3Model"):
        initial_model(
            dataclasses.replace(FROM_ENCODER, training=training), Encoder.load(tiny_qwen3_folder), pruned, pairs
        )


def test_a_continued_model_takes_known_pieces_along_and_new_ones_from_the_encoder(minilm, sentences, pairs, tmp_path):
    old, new = (prune(minilm.tokenizer, sentences, size) for size in (2100, 2304))
    small = dataclasses.replace(FROM_ENCODER.model, vocab_size=2100)
    before = initial_model(dataclasses.replace(FROM_ENCODER, model=small), minilm, old, pairs)
    with torch.no_grad():
        before.token_embed.weight += 1  # what training made of it
    checkpoint.write(tmp_path, before, dataclasses.replace(FROM_ENCODER, model=small), dtype=torch.float32)
    old.save(tmp_path / "tokenizer.json")
    training = dataclasses.replace(FROM_ENCODER.training, start_from=str(tmp_path))
    table = initial_model(dataclasses.replace(FROM_ENCODER, training=training), minilm, new, pairs).token_embed.weight
    encoders = minilm.model[0].auto_model.get_input_embeddings().weight
    known, ids = old.backend.get_vocab(), minilm.tokenizer.get_vocab()
    for piece, row in new.backend.get_vocab().items():
        torch.testing.assert_close(table[row], encoders[ids[piece]] + (piece in known))
