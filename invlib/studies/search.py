"""Search: exact match, BLEU and cosine against encoder queries.

It writes `search.csv` beside a checkpoint's weights: every metric against the number of queries, and which commit
measured it when. It may be stopped at any moment; the same command goes on with the sentences that are missing.
"""

import argparse
import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from invlib.checkpoint import fingerprint, locate
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import score
from invlib.search import BestOf, Strategy, SwapBeam, improve
from invlib.studies.results import cell_path, commit_of_this_clone, kept, write_table
from invlib.training.pairs import fitting, read_texts

BUDGETS = (1, 32, 100, 300, 1000, 3000, 5000)
CACHE = Path("data/runs/search")


def recover(inverter: Inverter, text: str, strategies: Sequence[Strategy], seed: int) -> pd.DataFrame:
    """Search for a text from its vector alone; what was encoded: text, cosine, in the order of the queries."""
    vector = inverter.encoder.encode([text])
    drafts = [tuple(inverter.invert(vector).trajectories[0].tokens[-1].tolist())]
    target = inverter.target(vector[0], generator=torch.Generator().manual_seed(seed))
    for _ in improve(target, strategies, drafts):
        pass
    if target.ledger.error:
        raise InputError(f"{text!r}: {target.ledger.error}; run the same command again")
    return pd.DataFrame([(f.text, f.cosine) for f in target.ledger.found.values()], columns=["text", "cosine"])


def best_within(found: pd.DataFrame, queries: int) -> str:
    """The closest text among the first `queries` that were encoded."""
    return found["text"].iloc[int(found["cosine"].iloc[:queries].to_numpy().argmax())]


def curve(references: Sequence[str], best: Sequence[dict[str, str]], encoder: Encoder) -> pd.DataFrame:
    """Scores at every budget: queries, metric, value, low, high, n."""
    tables = [
        score(references, texts.tolist(), encoder).assign(queries=int(budget))
        for budget, texts in pd.DataFrame(best).items()
    ]
    return pd.concat(tables, ignore_index=True)[["queries", "metric", "value", "low", "high", "n"]]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--limit", type=int, default=500, help="only the first texts that fit (default: 500)")
    parser.add_argument("--queries", type=int, default=5000, help="encoder queries for each text (default: 5000)")
    parser.add_argument("--width", type=int, default=4, help="width of the beam (default: 4)")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"finished sentences (default: {CACHE})")
    parser.add_argument("--out", type=Path, help="default: search.csv in the checkpoint's folder")


def run(chosen: argparse.Namespace) -> None:
    """Search for every sentence that is not done yet; then write `search.csv` and print it."""
    commit = commit_of_this_clone()
    inverter = Inverter.load(chosen.checkpoint)
    texts = fitting(read_texts(chosen.text), inverter.tokenizer, inverter.config.max_seq_len)[: chosen.limit]
    strategies = [BestOf(min(32, chosen.queries)), SwapBeam(chosen.width, chosen.queries)]
    budgets = [budget for budget in BUDGETS if budget < chosen.queries] + [chosen.queries]
    identity, best = (fingerprint(inverter.model), strategies, budgets), []
    try:
        for seed, text in enumerate(tqdm(texts, unit=" sentences")):
            search = functools.partial(_best, budgets, inverter, text, strategies, seed)
            best.append(kept(cell_path(chosen.cache, identity, text, seed), search))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from {chosen.cache}") from None
    made = datetime.now(UTC).isoformat(timespec="seconds")
    table = curve(texts, best, inverter.encoder).assign(commit=commit, made=made)
    out = chosen.out or locate(chosen.checkpoint) / "search.csv"
    write_table(out, table)
    print(table.pivot(index="queries", columns="metric", values="value").round(3).to_string())
    print(f"n = {len(texts)}; written to {out}")


def _best(budgets: Sequence[int], *search) -> dict[str, str]:
    """The closest text of a search within every budget; as JSON keeps it, the budgets are texts too."""
    found = recover(*search)
    return {str(budget): best_within(found, budget) for budget in budgets}
