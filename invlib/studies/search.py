"""Search: exact match, BLEU and cosine against encoder queries.

It writes `search.csv` beside a checkpoint's weights: every metric against the number of queries, and which commit
measured it when. It may be stopped at any moment; the same command goes on with the sentences that are missing.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from invlib.checkpoint import locate
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import score
from invlib.search import BestOf, Encode, Strategy, SwapBeam, improve
from invlib.studies.provenance import commit_of_this_clone, write_table
from invlib.studies.score import fitting
from invlib.training.pairs import read_texts

BUDGETS = (1, 32, 100, 300, 1000, 3000, 5000)
BF16_STOP = 1 - 2e-4  # a text's own bf16 vector can be this far from its fp32 vector


def recover(
    inverter: Inverter,
    texts: Sequence[str],
    strategies: Sequence[Strategy],
    *,
    encode: Encode | None = None,
    seed: int = 0,
) -> Iterator[pd.DataFrame]:
    """Search for every text from its vector alone; yields what was encoded: text, cosine, in the order of the queries.

    The vectors are those of `inverter.encoder`; encode: what is asked, that encoder by default.
    """
    for row, text in enumerate(texts):
        vector = inverter.encoder.encode([text])
        drafts = [tuple(inverter.invert(vector).trajectories[0].tokens[-1].tolist())]
        target = inverter.target(vector[0], encode=encode, generator=torch.Generator().manual_seed(seed + row))
        for _ in improve(target, strategies, drafts):
            pass
        if target.error:
            raise InputError(f"sentence {row}: {target.error}; run the same command again")
        found = target.found.values()
        yield pd.DataFrame({"text": [f.text for f in found], "cosine": [f.cosine for f in found]})


def best_within(found: pd.DataFrame, queries: int) -> str:
    """The closest text among the first `queries` that were encoded."""
    return found["text"].iloc[int(found["cosine"].iloc[:queries].to_numpy().argmax())]


def curve(references: Sequence[str], best: Sequence[dict[str, str]], encoder: Encoder) -> pd.DataFrame:
    """Scores at every budget: queries, metric, value, low, high, n."""
    budgets = sorted({int(budget) for row in best for budget in row})
    return pd.concat(
        score(list(references), [row[str(budget)] for row in best], encoder).assign(queries=budget)
        for budget in budgets
    ).reset_index(drop=True)[["queries", "metric", "value", "low", "high", "n"]]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--limit", type=int, default=500, help="only the first texts that fit (default: 500)")
    parser.add_argument("--queries", type=int, default=5000, help="encoder queries for each text (default: 5000)")
    parser.add_argument("--width", type=int, default=4, help="width of the beam (default: 4)")
    parser.add_argument("--bf16", action="store_true", help="search in bf16: faster; vectors and scores stay fp32")
    parser.add_argument("--progress", type=Path, default=Path("data/runs/recovery.jsonl"), help="what is done so far")
    parser.add_argument("--out", type=Path, help="default: search.csv in the checkpoint's folder")


def run(chosen: argparse.Namespace) -> None:
    """Search for every sentence that is not done yet; then write `search.csv` and print it."""
    commit = commit_of_this_clone()
    dtype, stop = (torch.bfloat16, BF16_STOP) if chosen.bf16 else (torch.float32, SwapBeam.stop_cosine)
    inverter = Inverter.load(chosen.checkpoint, dtype=dtype)
    asked = Encoder.load(inverter.config.encoder_model, dtype=dtype)
    texts = fitting(read_texts(chosen.text), inverter.tokenizer, inverter.config.max_seq_len)[: chosen.limit]
    strategies = [BestOf(min(32, chosen.queries)), SwapBeam(chosen.width, chosen.queries, stop)]
    settings = {"checkpoint": chosen.checkpoint, "strategies": [str(strategy) for strategy in strategies]}
    done = _done(chosen.progress, {"settings": settings}, texts)
    remaining = texts[len(done) :]
    rounds = recover(inverter, remaining, strategies, encode=asked.encode, seed=len(done))
    try:
        done += _recorded(chosen, tqdm(zip(remaining, rounds, strict=True), total=len(remaining), unit=" sentences"))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from {chosen.progress}") from None
    table = curve(texts, [row["best"] for row in done], inverter.encoder)
    table = table.assign(commit=commit, made=datetime.now(UTC).isoformat(timespec="seconds"))
    out = chosen.out or locate(chosen.checkpoint) / "search.csv"
    write_table(out, table)
    print(table.pivot(index="queries", columns="metric", values="value").round(3).to_string())
    print(f"n = {len(texts)}; written to {out}")


def _recorded(chosen: argparse.Namespace, rounds) -> Iterator[dict]:
    """The best text at every budget, sentence by sentence, each written to the progress file when it is found."""
    budgets = [budget for budget in BUDGETS if budget < chosen.queries] + [chosen.queries]
    with open(chosen.progress, "a", encoding="utf-8") as file:
        for text, found in rounds:
            row = {"text": text, "best": {str(budget): best_within(found, budget) for budget in budgets}}
            print(json.dumps(row), file=file, flush=True)
            yield row


def _done(path: Path, header: dict, texts: Sequence[str]) -> list[dict]:
    """The finished sentences of an earlier run with the same settings; its file is begun where there is none."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return []
    first, *rows = path.read_text(encoding="utf-8").splitlines()
    if json.loads(first) != header:
        raise InputError(f"{path} holds a run with other settings ({first}); choose another --progress")
    done = [json.loads(row) for row in rows][: len(texts)]
    if [row["text"] for row in done] != list(texts[: len(done)]):
        raise InputError(f"{path} holds a run on other sentences; choose another --progress")
    return done
