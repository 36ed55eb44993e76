"""Search: exact match, BLEU and cosine against encoder queries and seconds.

It writes `search.csv` beside a checkpoint's weights: every metric against the number of queries, for each text as a
whole and by length, and which commit measured it when. It may be stopped at any moment; the same command goes on with
the sentences that are missing.
"""

import argparse
import functools
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from invlib.checkpoint import fingerprint, locate
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import mean_interval, score
from invlib.search import Strategy, improve, standard
from invlib.studies.results import cell_path, commit_of_this_clone, kept, write_table
from invlib.studies.score import by_length, named
from invlib.training.pairs import MIN_TOKENS, fitting, read_texts

BUDGETS = (1, 32, 100, 300, 1000, 3000, 5000)
DEEP = BUDGETS[-1]
CACHE = Path("data/runs/search")
ALL = "all"  # the group that every sentence is in
FEWEST = 10  # sentences of a range of lengths


def recover(inverter: Inverter, text: str, strategies: Sequence[Strategy], seed: int) -> pd.DataFrame:
    """Search for a text from its vector alone; what was encoded: text, cosine, seconds, in the order of the queries.

    seconds: of processor time, from the start until the text and all that was encoded with it was known.
    """
    vector, start = inverter.encoder.encode([text]), time.process_time()
    drafts = [tuple(inverter.invert(vector).trajectories[0].tokens[-1].tolist())]
    target = inverter.target(vector[0], generator=torch.Generator().manual_seed(seed))
    seconds: list[float] = []
    for _ in improve(target, strategies, drafts):
        seconds += [time.process_time() - start] * (target.ledger.queries - len(seconds))
    if target.ledger.error:
        raise InputError(f"{text!r}: {target.ledger.error}; run the same command again")
    found = pd.DataFrame([(f.text, f.cosine) for f in target.ledger.found.values()], columns=["text", "cosine"])
    return found.assign(seconds=seconds)


def best_within(found: pd.DataFrame, queries: int) -> tuple[str, float]:
    """The closest text among the first `queries` that were encoded, and the seconds these took."""
    asked = found.iloc[:queries]
    return asked["text"].iloc[int(asked["cosine"].to_numpy().argmax())], asked["seconds"].iloc[-1]


def curve(references: Sequence[str], best: Sequence[Mapping[str, Sequence]], encoder: Encoder) -> pd.DataFrame:
    """Scores at every budget: queries, metric, value, low, high, n; one metric is `seconds`, of processor time.

    best: what `best_within` found for each of the references, by budget; those that had a budget are its n.
    """
    tables = []
    for budget in max(best, key=len):
        rows = [row for row, own in enumerate(best) if budget in own]
        texts, seconds = zip(*(best[row][budget] for row in rows), strict=True)
        table = score([references[row] for row in rows], texts, encoder)
        took = pd.DataFrame([("seconds", *mean_interval(seconds), len(seconds))], columns=table.columns)
        tables.append(pd.concat([table, took]).assign(queries=int(budget)))
    return pd.concat(tables, ignore_index=True)[["queries", "metric", "value", "low", "high", "n"]]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, nargs="+", required=True, help=".jsonl or .txt, plain or .gz; several")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--limit", type=int, default=500, help="only the first sentences that fit (default: 500)")
    parser.add_argument("--queries", type=int, default=1000, help="encoder queries for each sentence (default: 1000)")
    parser.add_argument("--deep", type=int, default=0, help=f"so many of the first get {DEEP} queries (default: none)")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"finished sentences (default: {CACHE})")
    parser.add_argument("--out", type=Path, help="default: search.csv in the checkpoint's folder")


def run(chosen: argparse.Namespace) -> None:
    """Search for every sentence that is not done yet; then write `search.csv` and print it."""
    commit, names = commit_of_this_clone(), named(chosen.text)
    inverter = Inverter.load(chosen.checkpoint)
    tables = [_curves(inverter, path, chosen).assign(text=name) for path, name in zip(chosen.text, names, strict=True)]
    made = datetime.now(UTC).isoformat(timespec="seconds")
    table = pd.concat(tables, ignore_index=True).assign(commit=commit, made=made)
    out = chosen.out or locate(chosen.checkpoint) / "search.csv"
    write_table(out, table)
    shown = table[table["group"] == ALL]
    print(shown.pivot(index=["text", "queries", "n"], columns="metric", values="value").round(3).to_string())
    print(f"n = {shown.groupby('text')['n'].max().to_dict()}; written to {out}")


def _curves(inverter: Inverter, path: Path, chosen: argparse.Namespace) -> pd.DataFrame:
    """The curves of one text: as a whole, and by length where sentences are enough, as far as all were searched."""
    texts = fitting(read_texts(path), inverter.tokenizer, inverter.config.max_seq_len)[: chosen.limit]
    if not texts:
        raise InputError(f"no text of {path} fits the model; give sentences of {MIN_TOKENS} tokens or more")
    best, bins = _search_all(inverter, texts, chosen), by_length(texts, inverter.tokenizer)
    groups = {ALL: np.arange(len(texts)), **{own: np.flatnonzero(bins == own) for own in bins.categories}}
    tables = [
        curve([texts[row] for row in rows], [best[row] for row in rows], inverter.encoder).assign(group=group)
        for group, rows in groups.items()
        if group == ALL or len(rows) >= FEWEST
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[(table["group"] == ALL) | (table["n"] == table.groupby("group")["n"].transform("max"))]


def _search_all(inverter: Inverter, texts: Sequence[str], chosen: argparse.Namespace) -> list[dict]:
    """For every text, the closest within each budget; each is a finished cell of the cache."""
    weights, best = fingerprint(inverter.model), []
    try:
        for seed, text in enumerate(tqdm(texts, unit=" sentences")):
            queries = max(chosen.queries, DEEP if seed < chosen.deep else 0)
            strategies = standard(queries, inverter.corrects)
            budgets = sorted({*(budget for budget in BUDGETS if budget < queries), chosen.queries, queries})
            identity = (weights, strategies, budgets)
            search = functools.partial(_best, budgets, inverter, text, strategies, seed)
            best.append(kept(cell_path(chosen.cache, identity, text, seed), search))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from {chosen.cache}") from None
    return best


def _best(budgets: Sequence[int], *search) -> dict[str, tuple[str, float]]:
    """`best_within` every budget of a search; as JSON keeps it, the budgets are texts too."""
    found = recover(*search)
    return {str(budget): best_within(found, budget) for budget in budgets}
