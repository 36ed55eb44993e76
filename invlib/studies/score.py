"""Score: how much comes back of text the checkpoint has not seen, beside controls that say what the figure is worth."""

import argparse
import itertools
import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch

from invlib.checkpoint import locate, write_atomically
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import score, with_interval
from invlib.studies.controls import CONTROLS, INVERTED, nearest, somebody_else
from invlib.tokenizer import Tokenizer
from invlib.training.pairs import MIN_TOKENS, Corpus, fitting, read_corpus, read_texts

LENGTH_BINS = (3, 8, 12, 16, 20, 24, 32)  # tokens
SMALLEST_GROUP = 20  # fewer texts say nothing


def reconstruct(
    inverter: Inverter,
    texts: Sequence[str],
    *,
    num_steps: int = 8,
    pool: Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> pd.DataFrame:
    """What each attacker writes for each text: one row per text, one column per attacker, and the `text` itself.

    inverted: encoder-free inversion from 100 % masks.
    unconditional prior: the same weights without the vector (but with the length read from it).
    shuffled embeddings: inverted from another text's vector; what any fluent sentence would score.
    nearest sentence: the sentence of `pool` whose vector is closest, which needs no model at all. Without a pool
      the other texts serve.
    """
    encode, options = inverter.encoder.encode, {"num_steps": num_steps, "keep_trajectories": False}
    vectors = encode(texts)
    shuffled = vectors[somebody_else(len(texts), generator)]
    closest = nearest(vectors, vectors if pool is None else encode(pool), own_excluded=pool is None)
    return pd.DataFrame(
        {
            "text": list(texts),
            INVERTED: inverter.invert(vectors, **options).texts,
            CONTROLS[0]: inverter.invert(vectors, conditional=False, **options).texts,
            CONTROLS[1]: inverter.invert(shuffled, **options).texts,
            CONTROLS[2]: [(texts if pool is None else pool)[row] for row in closest],
        }
    )


def score_attackers(table: pd.DataFrame, encoder, tokenizer=None) -> pd.DataFrame:
    """`metrics.score` of every attacker column of `reconstruct`, in one tidy table with a column `attacker`."""
    return pd.concat(
        score(table["text"].tolist(), table[attacker].tolist(), encoder, tokenizer=tokenizer).assign(attacker=attacker)
        for attacker in table.columns.drop("text")
    ).reset_index(drop=True)


def score_groups(table: pd.DataFrame, groups: pd.Categorical, encoder) -> pd.DataFrame:
    """Scores of the inverted texts of every group that is large enough: group, metric, value, low, high, n.

    table: what `reconstruct` gives; groups: a category for each of its rows. Groups come in the categories' order.
    """
    scored = [
        score(own["text"].tolist(), own[INVERTED].tolist(), encoder).assign(group=group)
        for group, own in table.assign(group=groups).groupby("group", observed=True)
        if len(own) >= SMALLEST_GROUP
    ]
    columns = ["metric", "value", "low", "high", "n", "group"]
    return pd.concat(scored, ignore_index=True) if scored else pd.DataFrame(columns=columns)


def markdown_table(scores: pd.DataFrame) -> str:
    """The scores as a Markdown table, value and 95 % interval in each cell: what README and model card show."""
    rows = {
        metric.replace("_", " "): [_cell(row, 1 if metric == "bleu" else 3) for row in own.itertuples()]
        for metric, own in scores.groupby("metric", sort=False)
    }
    return _markdown(["metric", *scores["attacker"].unique()], ([name, *cells] for name, cells in rows.items()))


def markdown_groups(scores: pd.DataFrame) -> str:
    """The scores of groups as a Markdown table, one row a group."""
    shown = {"token_f1": 2, "bleu": 1, "exact_match": 3, "cosine": 2}
    rows = []
    for group, own in scores.groupby("group", sort=False):
        found = {row.metric: row for row in own.itertuples()}
        rows.append([group, own["n"].iloc[0], *(_cell(found[name], digits) for name, digits in shown.items())])
    return _markdown(["", "n", *(name.replace("_", " ") for name in shown)], rows)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--pool", type=Path, help="sentences for the nearest-sentence control")
    parser.add_argument("--pool-size", type=int, default=20_000, help="how many of them (the first ones)")
    parser.add_argument("--limit", type=int, help="score only the first texts that fit, at least 1")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, help="default: results.json in the checkpoint's folder")


def run(chosen: argparse.Namespace) -> None:
    """Write the checkpoint's `results.json` and print its tables."""
    if chosen.limit is not None and chosen.limit < 1:
        raise InputError(f"--limit must be at least 1, got {chosen.limit}")
    inverter = Inverter.load(chosen.checkpoint)
    corpus = read_corpus(chosen.text)
    texts = fitting(corpus.texts, inverter.tokenizer, inverter.config.max_seq_len)[: chosen.limit]
    if not texts:
        raise InputError(
            f"no text of {chosen.text} has {MIN_TOKENS} to {inverter.config.max_seq_len} tokens; give sentences"
        )
    pool = read_texts(chosen.pool)[: chosen.pool_size] if chosen.pool else None
    generator = torch.Generator().manual_seed(0)
    table = reconstruct(inverter, texts, num_steps=chosen.steps, pool=pool, generator=generator)
    scores = score_attackers(table, inverter.encoder, inverter.tokenizer)
    by_group = {
        name: score_groups(table, groups, inverter.encoder)
        for name, groups in _groups(corpus, texts, inverter.tokenizer).items()
    }
    out = chosen.out or locate(chosen.checkpoint) / "results.json"
    _write_results(out, scores, by_group, chosen)
    print(markdown_table(scores))
    for name, groups in by_group.items():
        if len(groups):
            print(f"\nby {name}\n{markdown_groups(groups)}")
    print(f"n = {len(texts)}; written to {out}")


def _groups(corpus: Corpus, texts: Sequence[str], tokenizer: Tokenizer) -> dict[str, pd.Categorical]:
    """How the texts are grouped: by their number of tokens, and by their source where the corpus names it."""
    lengths = [len(ids) for ids in tokenizer.encode(texts)]
    labels = [f"{low + 1}–{high} tokens" for low, high in itertools.pairwise(LENGTH_BINS)]
    groups = {"length": pd.cut(lengths, LENGTH_BINS, labels=labels)}
    if any(corpus.sources):
        source = dict(zip(corpus.texts, corpus.sources, strict=True))
        sources = pd.Series([source[text].partition("/")[0] for text in texts])
        groups["source"] = pd.Categorical(sources, sources.value_counts().index)  # the largest first
    return groups


def _write_results(
    path: Path, scores: pd.DataFrame, by_group: dict[str, pd.DataFrame], chosen: argparse.Namespace
) -> None:
    results = {
        "text": chosen.text.name,
        "num_steps": chosen.steps,
        "encoder_free": True,
        "pool": f"{chosen.pool.name}, first {chosen.pool_size}" if chosen.pool else "the other texts",
        "machine": f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "scores": scores.to_dict(orient="records"),
        **{f"by_{name}": groups.to_dict(orient="records") for name, groups in by_group.items()},
    }
    write_atomically(path, lambda p: Path(p).write_text(json.dumps(results, indent=1) + "\n"))


def _cell(row, digits: int) -> str:
    return with_interval(row.value, row.low, row.high, digits)


def _markdown(head: Sequence, rows: Iterable[Sequence]) -> str:
    rule = "|" + "---|" * len(head)
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])
