"""Studies: how much comes back, beside the controls that say what the figure is worth.

`python -m invlib.studies --text FILE` scores a checkpoint and writes its `results.json`.
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from invlib.checkpoint import locate, write_atomically
from invlib.controls import CONTROLS, INVERTED, nearest, somebody_else
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import score
from invlib.pairs import MIN_TOKENS, read_texts
from invlib.sweep import sweep

__all__ = ["CONTROLS", "INVERTED", "markdown_table", "reconstruct", "score_attackers", "sweep", "usable"]


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


def score_attackers(table: pd.DataFrame, encoder) -> pd.DataFrame:
    """`metrics.score` of every attacker column of `reconstruct`, in one tidy table with a column `attacker`."""
    return pd.concat(
        score(table["text"].tolist(), table[attacker].tolist(), encoder).assign(attacker=attacker)
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
    parser.add_argument("--limit", type=int, help="score only the first texts that fit")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, help="default: results.json in the checkpoint's folder")
    chosen = parser.parse_args(arguments)
    try:
        inverter = Inverter.load(chosen.checkpoint)
        texts = usable(inverter, read_texts(chosen.text))[: chosen.limit]
        pool = read_texts(chosen.pool)[: chosen.pool_size] if chosen.pool else None
        generator = torch.Generator().manual_seed(0)
        table = reconstruct(inverter, texts, num_steps=chosen.steps, pool=pool, generator=generator)
        scores = score_attackers(table, inverter.encoder)
        out = chosen.out or locate(chosen.checkpoint) / "results.json"
        _write_results(out, scores, chosen)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown_table(scores))
    print(f"n = {len(texts)}; written to {out}")
    return 0


def _write_results(path: Path, scores: pd.DataFrame, chosen: argparse.Namespace) -> None:
    results = {
        "text": chosen.text.name,
        "num_steps": chosen.steps,
        "encoder_free": True,
        "pool": f"{chosen.pool.name}, first {chosen.pool_size}" if chosen.pool else "the other texts",
        "machine": f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "scores": scores.to_dict(orient="records"),
    }
    write_atomically(path, lambda p: Path(p).write_text(json.dumps(results, indent=1) + "\n"))


if __name__ == "__main__":
    sys.exit(main())
