"""Chunks: which words a vector of many sentences gives away, and which of them 32 pieces could hold at all."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from invlib.checkpoint import fingerprint
from invlib.inverter import Inverter
from invlib.metrics import mean_interval, words
from invlib.studies.results import write_table
from invlib.studies.tables import DATA
from invlib.training.words import joined
from invlib.words import WordMap

SENTENCES = (1, 3, 8, 25)  # in a chunk
COUNT = 200  # chunks of each size
MAP, SHORT, DRAFT, FREQUENT, HELD = (
    "word map, as many words as there are",
    "word map, as many as in the draft",
    "draft of the sentence inverter",
    "most frequent words, as many as there are",
    "first pieces, as many as a draft has",
)


def content(text: str) -> list[str]:
    """The words that say something, each once, in their order: no function words, no single letters, no marks."""
    return [w for w in dict.fromkeys(words(text)) if len(w) > 1 and w[0].isalnum() and w not in ENGLISH_STOP_WORDS]


def chunked(texts: Sequence[str], sources: Sequence[str], size: int, count: int) -> list[str]:
    """`count` texts of `size` sentences of one source each; no sentence twice, so perhaps fewer."""
    order = np.random.default_rng(0).permutation(len(texts))
    by_source = pd.Series(np.array(texts, object)[order]).groupby(np.array(sources, object)[order]).agg(list)
    found = [own[start : start + size] for own in by_source for start in range(0, len(own) - size + 1, size)]
    chosen = np.random.default_rng(1).permutation(len(found))[:count]
    return [" ".join(found[row]) for row in chosen]


def recalled(inverter: Inverter, known: WordMap, texts: Sequence[str], num_steps: int = 8) -> pd.DataFrame:
    """Share of each text's content words that every way finds, [n, ways]; texts are cut to what the encoder reads."""
    fast, top = inverter.encoder.tokenizer, inverter.encoder.model.max_seq_length - 2
    ids = [own[:top] for own in fast(list(texts), add_special_tokens=False)["input_ids"]]
    true = [set(content(fast.decode(own))) for own in ids]
    vectors = inverter.encoder.encode(texts)
    drafts = [content(text) for text in inverter.invert(vectors, num_steps=num_steps, keep_trajectories=False).texts]
    ranked = known.ranked(vectors, lambda word: bool(content(word)), top)
    frequent = sorted(filter(content, known.words), key=lambda word: -known.general([word])[0])[:top]
    held = [content(fast.decode(own[: inverter.config.max_seq_len])) for own in ids]
    ways = [(MAP, ranked, true), (SHORT, ranked, drafts), (DRAFT, drafts, drafts), (HELD, held, held)]
    ways.append((FREQUENT, [frequent] * len(true), true))
    share = {way: [len(own & set(found[: len(like)])) / max(1, len(own)) for own, found, like in
                   zip(true, given, limit, strict=True)] for way, given, limit in ways}  # fmt: skip
    return pd.DataFrame({**share, "pieces": list(map(len, ids)), "words": list(map(len, true))})


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, nargs="+", help="held-out sentences, with their sources")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--out", type=Path, default=DATA / "tables" / "chunks.csv")


def run(chosen: argparse.Namespace) -> None:
    """Write the table: sentences, way, value, low, high, n, weights; `pieces` and `words` are means of the chunks."""
    corpus, rows = joined(chosen.text), []
    inverter = Inverter.load(chosen.checkpoint, dtype=torch.int8)
    known = WordMap.load(inverter.encoder)
    for size in SENTENCES:
        found = recalled(inverter, known, chunked(corpus.texts, corpus.sources, size, COUNT))
        rows += [(size, way, *mean_interval(found[way]), len(found)) for way in found]
    table = pd.DataFrame(rows, columns=["sentences", "way", "value", "low", "high", "n"])
    write_table(chosen.out, table.assign(weights=fingerprint(inverter.model)[:12]))
    print(table.pivot(index="way", columns="sentences", values="value").round(3).to_string())
