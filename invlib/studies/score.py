"""Studies: how much comes back, beside the controls that say what the figure is worth.

`python -m invlib.studies --text FILE` scores a checkpoint and writes its `results.json`.
"""

import argparse
import itertools
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from invlib.checkpoint import locate, write_atomically
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import score
from invlib.studies.controls import CONTROLS, INVERTED, nearest, somebody_else
from invlib.studies.sweep import sweep
from invlib.training.pairs import MIN_TOKENS, read_texts

__all__ = [
    *("CONTROLS", "INVERTED", "markdown_groups", "markdown_table", "reconstruct"),
    *("score_attackers", "score_groups", "usable"),
    "sweep",
]

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
    vectors = inverter.encoder.encode(texts)
    options = {"num_steps": num_steps, "keep_trajectories": False}
    shuffled = vectors[somebody_else(len(texts), generator)]
    return pd.DataFrame(
        {
            "text": list(texts),
            INVERTED: inverter.invert(vectors, **options).texts,
            CONTROLS[0]: inverter.invert(vectors, conditional=False, **options).texts,
            CONTROLS[1]: inverter.invert(shuffled, **options).texts,
            CONTROLS[2]: _nearest(inverter, texts, vectors, pool),
        }
    )


def score_attackers(table: pd.DataFrame, encoder, tokenizer=None) -> pd.DataFrame:
    """`metrics.score` of every attacker column of `reconstruct`, in one tidy table with a column `attacker`."""
    return pd.concat(
        score(table["text"].tolist(), table[attacker].tolist(), encoder, tokenizer=tokenizer).assign(attacker=attacker)
        for attacker in table.columns.drop("text")
    ).reset_index(drop=True)


def markdown_table(scores: pd.DataFrame) -> str:
    """The scores as a Markdown table, value and 95 % interval in each cell: what README and model card show."""
    attackers = list(scores["attacker"].unique())
    lines = ["| metric | " + " | ".join(attackers) + " |", "|---|" + "---|" * len(attackers)]
    for metric in scores["metric"].unique():
        rows = scores[scores["metric"] == metric].set_index("attacker").loc[attackers]
        digits = 1 if metric == "bleu" else 3
        cells = [f"{r.value:.{digits}f} ({r.low:.{digits}f}–{r.high:.{digits}f})" for r in rows.itertuples()]
        lines.append(f"| {metric.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def score_groups(table: pd.DataFrame, groups: pd.Categorical, encoder) -> pd.DataFrame:
    """Scores of the inverted texts of every group that is large enough: group, metric, value, low, high, n.

    table: what `reconstruct` gives; groups: a category for each of its rows. Groups come in the categories' order.
    """
    rows = table.assign(group=groups)
    scored = [
        score(own["text"].tolist(), own[INVERTED].tolist(), encoder).assign(group=group)
        for group, own in rows.groupby("group", observed=True)
        if len(own) >= SMALLEST_GROUP
    ]
    if not scored:
        return pd.DataFrame(columns=["metric", "value", "low", "high", "n", "group"])
    return pd.concat(scored).reset_index(drop=True)


def markdown_groups(scores: pd.DataFrame) -> str:
    """The scores of groups as a Markdown table, one row a group."""
    shown = {"token_f1": 2, "bleu": 1, "exact_match": 3, "cosine": 2}
    lines = [
        "| | n | " + " | ".join(name.replace("_", " ") for name in shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    for group, own in scores.groupby("group", sort=False):
        own = own.set_index("metric")
        cells = [
            f"{own.at[name, 'value']:.{digits}f} ({own.at[name, 'low']:.{digits}f}–{own.at[name, 'high']:.{digits}f})"
            for name, digits in shown.items()
        ]
        lines.append(f"| {group} | {own['n'].iloc[0]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def usable(inverter: Inverter, texts: Sequence[str]) -> list[str]:
    """The texts that fit the model: at least 4 and at most max_seq_len decoder tokens."""
    lengths = [len(ids) for ids in inverter.tokenizer.encode(texts)]
    top = inverter.config.max_seq_len
    return [text for text, n in zip(texts, lengths, strict=True) if MIN_TOKENS <= n <= top]


def _nearest(inverter: Inverter, texts: Sequence[str], vectors: np.ndarray, pool: Sequence[str] | None) -> list[str]:
    if pool is None:
        return [texts[i] for i in nearest(vectors, vectors, own_excluded=True)]
    return [pool[i] for i in nearest(vectors, inverter.encoder.encode(pool))]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m invlib.studies", description="Score a checkpoint on text it has not seen."
    )
    parser.add_argument("--text", type=Path, required=True, help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--pool", type=Path, help="sentences for the nearest-sentence control")
    parser.add_argument("--pool-size", type=int, default=20_000, help="how many of them (the first ones)")
    parser.add_argument("--limit", type=int, help="score only the first texts that fit, at least 1")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, help="default: results.json in the checkpoint's folder")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.limit is not None and chosen.limit < 1:
            raise InputError(f"--limit must be at least 1, got {chosen.limit}")
        inverter = Inverter.load(chosen.checkpoint)
        texts = usable(inverter, read_texts(chosen.text))[: chosen.limit]
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
            for name, groups in _groups(chosen.text, texts, inverter).items()
        }
        out = chosen.out or locate(chosen.checkpoint) / "results.json"
        _write_results(out, scores, by_group, chosen)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown_table(scores))
    for name, groups in by_group.items():
        if len(groups):
            print(f"\nby {name}\n{markdown_groups(groups)}")
    print(f"n = {len(texts)}; written to {out}")
    return 0


def _groups(path: Path, texts: Sequence[str], inverter: Inverter) -> dict[str, pd.Categorical]:
    """How the texts are grouped: by their number of tokens, and by their `source` where the file names it."""
    lengths = [len(ids) for ids in inverter.tokenizer.encode(texts)]
    labels = [f"{low + 1}–{high} tokens" for low, high in itertools.pairwise(LENGTH_BINS)]
    groups = {"length": pd.cut(lengths, LENGTH_BINS, labels=labels)}
    if ".jsonl" in path.suffixes:
        rows = pd.read_json(path, lines=True, encoding="utf-8-sig", dtype={"source": str})
        if "source" in rows:
            source = dict(zip(rows["text"].str.strip(), rows["source"].str.partition("/")[0], strict=True))
            sources = pd.Series([source[text] for text in texts])
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
