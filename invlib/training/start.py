"""The pieces and weights a training starts from: random, those of the encoder to be inverted, or of a checkpoint."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import BertModel

from invlib import checkpoint
from invlib.alignment import Alignment
from invlib.config import Config
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from invlib.tokenizer import Tokenizer
from invlib.training.pairs import Pairs, read_texts
from invlib.training.vocabulary import prune

# What a continued checkpoint may have had not yet.
NEW_PARTS = (("noise_condition", False), ("length_dim", 0), ("corrector_dim", 0))
FOREIGN_KEYS = ("encoder_model", "embedding_cond_dim")  # of another encoder, whose vectors are aligned first
FREE_KEYS = ("logit_temperature", "vocab_size", "mask_token_id", "decoder_tokenizer", "fingerprint", *FOREIGN_KEYS)
ALIGNED = 10_000  # pairs that the alignment is learnt from


def initial_tokenizer(config: Config, encoder: Encoder, corpus: Path, folder: Path) -> Tokenizer:
    """Of the run's folder, of the checkpoint to start from, pruned, or named; `InputError` where it does not fit."""
    tokenizer = _tokenizer(config, encoder, corpus, folder)
    new = dataclasses.replace(config.model, fingerprint=None)  # what a checkpoint has whose vocabulary may go
    checkpoint.check_tokenizer(new, tokenizer, "the configuration")
    return tokenizer


def _tokenizer(config: Config, encoder: Encoder, corpus: Path, folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.load(folder)
    if config.training.start_from is not None:
        own = Tokenizer.load(checkpoint.locate(config.training.start_from))
        if own.vocab_size == config.model.vocab_size:
            return own
    if config.model.decoder_tokenizer == "pruned":
        return prune(encoder.tokenizer, read_texts(corpus), config.model.vocab_size)
    return Tokenizer.load(config.model.decoder_tokenizer)


def initial_model(config: Config, encoder: Encoder, tokenizer: Tokenizer, pairs: Pairs) -> ConditionalMDLM:
    """A fresh model under the configuration's seed, or the model of the checkpoint that it starts from.

    A fresh one's embedding statistics come from the pairs; token table and blocks from the encoder, where the
    configuration asks. Raises `InputError` where what it asks for does not fit the encoder or the checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        model = ConditionalMDLM(config.model)
    if config.training.start_from is not None:
        return _continued(model, config, encoder, tokenizer, pairs)
    with torch.no_grad():
        if config.model.standardize:
            rows = np.linspace(0, len(pairs) - 1, min(50_000, len(pairs))).astype(int)  # packed rows come by length
            sample = torch.from_numpy(pairs.embeddings[rows].astype(np.float32))
            model.embedding_mean.copy_(sample.mean(dim=0))
            model.embedding_std.copy_(without_dead(sample.std(dim=0, correction=0)))
        if config.training.tokens_from_encoder:
            table = _encoder_table(encoder, tokenizer, config)
            model.token_embed.weight[:, : table.shape[1]] = table
        if config.training.blocks_from_encoder:
            _copy_encoder_blocks(encoder, model)
    return model


def without_dead(std: Float[Tensor, "embed"]) -> Float[Tensor, "embed"]:
    """Standard deviations, those of dead coordinates raised to a tenth of the median.

    Three coordinates of all-MiniLM-L6-v2 are zero for every text. Divided by their tiny deviation, the least noise or
    rounding in a stored vector would drown everything else.
    """
    return std.clamp(min=std.median() / 10)


def _continued(
    model: ConditionalMDLM, config: Config, encoder: Encoder, tokenizer: Tokenizer, pairs: Pairs
) -> ConditionalMDLM:
    """`model` with the weights of the checkpoint; vocabulary, noise condition and a length head of its own may be new.

    So may the encoder: the first layers then hear a linear guess of the vectors that they know.

    A length head that is trained alone starts anew: gone on from where the text's schedule left it, it overfits.
    """
    before, shape = checkpoint.read(config.training.start_from)
    for name, new in dataclasses.asdict(config.model).items():
        old = getattr(shape, name)
        is_left_out = name == "corrector_dim" and not new
        if name not in FREE_KEYS and old != new and (name, old) not in NEW_PARTS and not is_left_out:
            found = f"start_from: {config.training.start_from} has {name} {old!r}, the configuration {new!r}"
            raise InputError(f"{found}; only a model of the same shape can be continued")
    weights = before.state_dict()
    if not config.model.corrector_dim:
        weights = {name: value for name, value in weights.items() if not name.startswith("corrector.")}
    if any(getattr(config.model, key) != getattr(shape, key) for key in FOREIGN_KEYS):
        weights |= _hearing(before, pairs, tokenizer)
    if config.model.standardize:
        weights["embedding_std"] = without_dead(weights["embedding_std"].float())
    if config.training.trained == "length_head.*" or config.model.length_dim != shape.length_dim:
        weights = {name: value for name, value in weights.items() if not name.startswith("length_head.")}
    theirs = Tokenizer.load(checkpoint.locate(config.training.start_from))
    if theirs.backend.to_str() != tokenizer.backend.to_str():
        weights["token_embed.weight"] = _carried_rows(weights["token_embed.weight"], theirs, encoder, tokenizer, config)
    model.load_state_dict({**model.state_dict(), **weights})
    return model


def _hearing(model: ConditionalMDLM, pairs: Pairs, tokenizer: Tokenizer) -> dict[str, Tensor]:
    """What changes in a model's weights when the pairs' vectors are another encoder's: its first layers hear them
    through an `Alignment`, and what it knows of the vectors' statistics is of theirs.
    """
    rows = np.linspace(0, len(pairs) - 1, min(ALIGNED, len(pairs))).astype(int)
    foreign = torch.from_numpy(pairs.embeddings[rows].astype(np.float32))
    texts = [tokenizer.decode(ids[:n]) for ids, n in zip(pairs.tokens[rows], pairs.lengths[rows], strict=True)]
    alignment = Alignment.fit(foreign, texts, Encoder.load(model.config.encoder_model), linear=True)
    center, matrix, offset = (torch.from_numpy(part) for part in (alignment.center, alignment.matrix, alignment.offset))
    scale = 1 / ((foreign - center) @ matrix + offset).norm(dim=1).mean()
    changed, mean, std, own_mean, own_std = {}, 0.0, 1.0, 0.0, 1.0
    if model.config.standardize:
        mean, std = foreign.mean(dim=0), without_dead(foreign.std(dim=0, correction=0))
        own_mean, own_std = model.embedding_mean.float(), without_dead(model.embedding_std.float())
        changed |= {"embedding_mean": mean, "embedding_std": std}
    turned = (torch.ones(len(center)) * std)[:, None] * matrix * scale / own_std
    guess = turned, (((mean - center) @ matrix + offset) * scale - own_mean) / own_std
    changed |= after_guess(model, "cond_proj.0.", *guess)
    if model.config.length_dim:
        changed |= after_guess(model, "length_head.0.", *guess)
    if model.config.null_embedding:
        weight, bias = changed["cond_proj.0.weight"], changed["cond_proj.0.bias"]
        told = model.cond_proj[0](model.null_embedding).float() - bias  # what the layer has to make of it
        changed["null_embedding"] = torch.linalg.pinv(weight, rtol=1e-3) @ told
    return changed


def after_guess(
    model: ConditionalMDLM, layer: str, matrix: Float[Tensor, "found embed"], offset: Float[Tensor, "embed"]
) -> dict[str, Tensor]:
    """A linear layer on the standardised vector (and, behind it, on other inputs) that hears a linear guess of it."""
    state, matrix, offset = model.state_dict(), matrix.float(), offset.float()
    weight, bias = (state[layer + part].float().cpu() for part in ("weight", "bias"))
    on_vector, on_others = weight.tensor_split([matrix.shape[1]], dim=1)
    changed = {"weight": torch.cat([on_vector @ matrix.T, on_others], dim=1), "bias": bias + on_vector @ offset}
    return {layer + part: value.to(model.device) for part, value in changed.items()}


def _carried_rows(
    table: Float[Tensor, "old hidden"], theirs: Tokenizer, encoder: Encoder, tokenizer: Tokenizer, config: Config
) -> Float[Tensor, "new hidden"]:
    """The token table for another vocabulary: rows of known pieces from `table`, the others from the encoder's own."""
    if not config.model.tie_embeddings:
        raise InputError("start_from with another vocabulary needs tie_embeddings: true; the output table is its own")
    rows = _encoder_table(encoder, tokenizer, config)
    rows = F.pad(rows, (0, table.shape[1] - rows.shape[1]))  # of a wider model
    old = theirs.backend.get_vocab()
    known = {row: old[piece] for piece, row in tokenizer.backend.get_vocab().items() if piece in old}
    rows[list(known)] = table[list(known.values())].float()
    return rows


def _copy_encoder_blocks(encoder: Encoder, model: ConditionalMDLM) -> None:
    """Positions, norms and blocks of a BERT encoder; with the zero-initialised modulation it computes the same.

    A deeper model has each layer as often as it is deeper, in a row; in a wider one the norms would run over more
    numbers. Raises `InputError` for an encoder that is no BERT, a model without `post_norm`, or other shapes.
    """
    bert = encoder.model[0].auto_model
    if not isinstance(bert, BertModel) or not model.config.post_norm:
        raise InputError(
            f"blocks_from_encoder needs a BERT encoder and post_norm: true; {encoder.name!r} is a "
            f"{type(bert).__name__}, post_norm is {str(model.config.post_norm).lower()}"
        )
    for key, name in (
        ("hidden_dim", "hidden_size"),
        ("num_heads", "num_attention_heads"),
        ("ff_dim", "intermediate_size"),
        ("num_layers", "num_hidden_layers"),
    ):
        found, expected = getattr(model.config, key), getattr(bert.config, name)
        if found % expected if key == "num_layers" else found != expected:
            wanted = f"{expected}{' or a multiple' * (key == 'num_layers')}, as {encoder.name!r} has"
            raise InputError(f"blocks_from_encoder needs {key} {wanted}; got {found}")
    words = bert.embeddings
    # Position 0 is [CLS] there, and every token has type 0.
    places = words.position_embeddings.weight[1 : model.config.max_seq_len + 1]
    model.pos_embed.weight.copy_(places + words.token_type_embeddings.weight[0])
    model.embed_norm.load_state_dict(words.LayerNorm.state_dict())
    for number, block in enumerate(model.blocks):
        layer = bert.encoder.layer[number * len(bert.encoder.layer) // len(model.blocks)]
        parts = [getattr(layer.attention.self, name) for name in ("query", "key", "value")]
        block.attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        block.attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        for ours, source in (
            (block.attn.out_proj, layer.attention.output.dense),
            (block.norm1, layer.attention.output.LayerNorm),
            (block.ff[0], layer.intermediate.dense),
            (block.ff[3], layer.output.dense),
            (block.norm2, layer.output.LayerNorm),
        ):
            ours.load_state_dict(source.state_dict())


def _encoder_table(encoder: Encoder, tokenizer: Tokenizer, config: Config) -> Tensor:
    table = encoder.model[0].auto_model.get_input_embeddings().weight.detach().float()
    if table.shape[1] > config.model.hidden_dim:
        wanted = f"hidden_dim {table.shape[1]} or more, the width of the encoder's own table"
        raise InputError(f"tokens_from_encoder needs {wanted}; the configuration has {config.model.hidden_dim}")
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    return table[encoder.tokenizer.convert_tokens_to_ids(pieces)]
