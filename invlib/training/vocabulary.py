"""Vocabulary: the encoder's own WordPiece, pruned to the pieces that a corpus uses often."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordPiece

from invlib.errors import InputError
from invlib.tokenizer import SPECIAL_PIECES, Tokenizer

BATCH = 10_000  # texts that are tokenised at once


def prune(fast: Any, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """The fast tokenizer of an encoder, pruned to vocab_size pieces.

    What stays: the special pieces, every single character, and the pieces of Latin script that `texts` uses most. A
    word whose piece is gone falls apart into shorter pieces, so that every character that the encoder can read stays
    reachable. Raises `InputError` for a size that does not fit, or when the tokenizer is not a WordPiece.
    """
    backend = FastTokenizer.from_str(fast.backend_tokenizer.to_str())
    if not isinstance(backend.model, WordPiece):
        raise InputError(
            f"only a WordPiece vocabulary can be pruned, this is {type(backend.model).__name__}; "
            "name the encoder's tokenizer in decoder_tokenizer instead of 'pruned'"
        )
    contents = json.loads(backend.to_str())
    pieces = _kept(backend, iter(texts), vocab_size)
    contents["model"]["vocab"] = {piece: index for index, piece in enumerate(pieces)}
    contents["added_tokens"] = []  # they hold the ids of before
    return Tokenizer.of_pieces(FastTokenizer.from_str(json.dumps(contents)))


def _kept(backend: FastTokenizer, texts: Iterable[str], vocab_size: int) -> list[str]:
    vocab = backend.get_vocab()
    characters = sorted((piece for piece in vocab if len(piece.removeprefix("##")) == 1), key=vocab.get)
    always = dict.fromkeys([*SPECIAL_PIECES, *characters])
    latin = [piece for piece in vocab if piece not in always and _is_latin(piece)]
    if not len(always) <= vocab_size <= len(always) + len(latin):
        raise InputError(
            f"vocab_size {vocab_size} does not fit: {len(always)} special and single-character pieces always stay, "
            f"and with all of Latin script there are {len(always) + len(latin)}; choose a size between the two"
        )
    backend.no_truncation()
    backend.no_padding()
    counts: Counter[str] = Counter()
    while batch := list(islice(texts, BATCH)):
        for row in backend.encode_batch(batch, add_special_tokens=False):
            counts.update(row.tokens)
    # Ties broken by the encoder's own order, so that the same corpus always gives the same vocabulary.
    by_use = sorted(latin, key=lambda piece: (-counts[piece], vocab[piece]))
    return [*always, *by_use[: vocab_size - len(always)]]


def _is_latin(piece: str) -> bool:
    """Whether all letters of a piece are Latin; placeholders such as [unused7] are no pieces of a text."""
    return not piece.startswith("[") and all("LATIN" in unicodedata.name(c, "") for c in piece if c.isalpha())
