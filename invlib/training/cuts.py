"""Cuts: spans of whole words from anywhere in packed sentences, with vectors of their own.

A long training meets each sentence many times and remembers it. Its spans are other texts, and their vectors others.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.tokenizer import Tokenizer
from invlib.training.packed import encode_rows
from invlib.training.pairs import MIN_TOKENS, Pairs, is_begun, origin, write_tokens

SOURCE = "(cuts)"  # their source, by which a mix gives them their share


def with_cuts(pairs: Pairs, folder: Path, encoder: Encoder, tokenizer: Tokenizer, seed: int) -> Pairs:
    """The pairs, and behind them a cut of every sentence that is long enough, kept in `folder`.

    A cut is shorter than its sentence, of any length from `MIN_TOKENS` on and from any place, up to whole words.
    Raises `InputError` where no sentence is long enough.
    """
    top = pairs.manifests[0]["max_seq_len"]
    digest = hashlib.sha256(json.dumps([pairs.identities, seed]).encode()).hexdigest()
    made_from = origin(digest, encoder, tokenizer, top)
    if not is_begun(folder, made_from):
        joined = [piece.startswith("##") for piece in tokenizer.pieces(range(tokenizer.vocab_size))]
        tokens = pairs.tokens[np.arange(len(pairs))]
        starts, ends = spans(np.array(joined)[tokens], pairs.lengths, np.random.default_rng(seed))
        lengths = ends - starts
        rows = np.flatnonzero((lengths >= MIN_TOKENS) & (lengths < pairs.lengths))
        if not len(rows):
            raise InputError(f"none of the {len(pairs)} sentences is long enough for a cut; set cuts to 0")
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        places = np.arange(tokens.shape[1])
        flat = tokens[rows][(places >= starts[rows, None]) & (places < ends[rows, None])]
        counts = {"texts": len(pairs), "rows": len(rows), "too_short": len(pairs) - len(rows)}
        counts |= {"too_long": 0, "unspelled": 0, "unknown_share": float((flat == tokenizer.unk_token_id).mean())}
        arrays = {"lengths": lengths[rows].astype(np.int32), "lines": rows, "sources": np.zeros(len(rows), np.int32)}
        write_tokens(folder, flat, arrays, {**made_from, **counts, "sources": [SOURCE]})
    encode_rows(folder, encoder, tokenizer)
    return type(pairs)(*pairs.folders, folder)


def spans(
    joined: Bool[np.ndarray, "rows top"], lengths: Int[np.ndarray, "rows"], random: np.random.Generator
) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
    """First place and the place behind the last of a random span of each row. joined: pieces that go on with a word.

    Both move to the beginning of the word that they fall into; behind the last word nothing begins.
    """
    count = MIN_TOKENS + (random.random(len(lengths)) * (lengths - MIN_TOKENS)).astype(np.int64)
    first = (random.random(len(lengths)) * (lengths - count + 1)).astype(np.int64)
    begins = np.maximum.accumulate(np.where(joined, 0, np.arange(joined.shape[1])), axis=1)
    row, last = np.arange(len(lengths)), first + count
    inside = np.minimum(last, joined.shape[1] - 1)
    return begins[row, first], np.where(last >= lengths, lengths, begins[row, inside])
