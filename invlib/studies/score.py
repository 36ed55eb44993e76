"""Score: how much comes back of text the checkpoint has not seen, beside controls that say what the figure is worth."""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from invlib.checkpoint import locate
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import score, with_interval
from invlib.studies.results import machine, write_json
from invlib.tokenizer import Tokenizer
from invlib.training.pairs import MIN_TOKENS, Corpus, fitting, read_corpus, read_texts
from invlib.words import WordMap

INVERTED = "inverted"
CONTROLS = ("unconditional prior", "shuffled embeddings", "nearest sentence", "word map")
LENGTH_BINS = (3, 8, 12, 16, 20, 24, 32)  # tokens
SMALLEST_GROUP = 20  # fewer texts say nothing
DIGITS = {"bleu": 1, "seconds": 1}  # of the metrics that are not between 0 and 1
GROUP_METRICS = ("token_f1", "bleu", "exact_match", "cosine")


def somebody_else(n: int, generator: torch.Generator | None = None) -> np.ndarray:
    """For each of n rows another one, [n]; each serves once. Raises `InputError` for fewer than two rows."""
    if n < 2:
        raise InputError("the controls need at least two texts")
    # A cyclic shift of a random order: nobody keeps the own row.
    order = torch.randperm(n, generator=generator).numpy()
    return np.roll(order, 1)[np.argsort(order)]


def nearest(vectors: np.ndarray, pool: np.ndarray, *, own_excluded: bool = False) -> np.ndarray:
    """Row of the pool [m, d] that is closest to each vector [n, d] by inner product, [n].

    own_excluded: vectors and pool belong together row by row, and the own row is not known to the attacker.
    """
    similarity = vectors @ pool.T
    if own_excluded:
        np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)


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
    word map: the most probable words of the linear map, in the order of their probability; as many as it expects. Only
      where the encoder has one.
    """
    encode, options = inverter.encoder.encode, {"num_steps": num_steps, "keep_trajectories": False}
    vectors = encode(texts)
    shuffled = vectors[somebody_else(len(texts), generator)]
    closest = nearest(vectors, vectors if pool is None else encode(pool), own_excluded=pool is None)
    table = pd.DataFrame(
        {
            "text": list(texts),
            INVERTED: inverter.invert(vectors, **options).texts,
            CONTROLS[0]: inverter.invert(vectors, conditional=False, **options).texts,
            CONTROLS[1]: inverter.invert(shuffled, **options).texts,
            CONTROLS[2]: [(texts if pool is None else pool)[row] for row in closest],
        }
    )
    known = WordMap.near(inverter.encoder)
    return table if known is None else table.assign(**{CONTROLS[3]: list(map(" ".join, known.bags(vectors)))})


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
        for group, own in table.groupby(groups, observed=True)
        if len(own) >= SMALLEST_GROUP
    ]
    return pd.concat(scored, ignore_index=True) if scored else pd.DataFrame()


def markdown_table(scores: pd.DataFrame, rows: Sequence[str] = ("metric",), columns: str = "attacker") -> str:
    """The scores as a Markdown table, value and 95 % interval in each cell: what README and model card show.

    Lines that agree in the first of `rows` stand together, in the order in which it first appears.
    """
    cells = [with_interval(s.value, s.low, s.high, DIGITS.get(s.metric, 3)) for s in scores.itertuples()]
    shown = scores.assign(cell=cells, metric=scores["metric"].str.replace("_", " "))
    lines = [[*key, *own["cell"]] for key, own in shown.groupby(list(rows), sort=False)]
    firsts = list(dict.fromkeys(line[0] for line in lines))
    lines.sort(key=lambda line: firsts.index(line[0]))
    head = [*rows, *shown[columns].unique()]
    first, *others = ["| " + " | ".join(map(str, line)) + " |" for line in (head, *lines)]
    return "\n".join([first, "|" + "---|" * len(head), *others])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, nargs="+", required=True, help=".jsonl or .txt, plain or .gz; several")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--pool", type=Path, nargs="+", help="sentences for the nearest-sentence control, of each text")
    parser.add_argument("--pool-size", type=int, default=20_000, help="how many of them (the first ones)")
    parser.add_argument("--limit", type=int, help="score only the first sentences that fit, of each text")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, help="default: results.json in the checkpoint's folder")


def run(chosen: argparse.Namespace) -> None:
    """Write the checkpoint's `results.json`, every text scored on its own, and print its tables."""
    names, pools = named(chosen.text), chosen.pool or [None] * len(chosen.text)
    if len(pools) != len(names):
        raise InputError(f"{len(pools)} pools for {len(names)} texts; give --pool one file for each --text, in order")
    inverter = Inverter.load(chosen.checkpoint)
    parts = [scored(inverter, *files, chosen) for files in zip(chosen.text, pools, strict=True)]
    tables = {
        table: pd.concat([part[table].assign(text=name) for name, part in zip(names, parts, strict=True)])
        for table in parts[0]
    }
    for name, table in tables.items():
        if len(table):
            rows, columns = (("metric", "text"), "attacker") if name == "scores" else (("text", "group", "n"), "metric")
            shown = table if name == "scores" else table[table["metric"].isin(GROUP_METRICS)]
            print(f"{name.replace('_', ' ')}\n{markdown_table(shown, rows, columns)}\n")
    results = {
        "texts": [path.name for path in chosen.text],
        "num_steps": chosen.steps,
        "encoder_free": True,
        "pool": f"{', '.join(pool.name for pool in pools)}, first {chosen.pool_size}"
        if chosen.pool
        else "the other texts",
        "machine": machine(),
    }
    out = chosen.out or locate(chosen.checkpoint) / "results.json"
    write_json(out, results | {name: table.to_dict(orient="records") for name, table in tables.items()})
    print(f"written to {out}")


def named(paths: Sequence[Path]) -> list[str]:
    """What the tables call each file: its name up to the first dot. Raises `InputError` where two are alike."""
    names = [path.name.partition(".")[0] for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"two texts have one name ({', '.join(names)}) and the tables tell them by it; rename one")
    return names


def scored(inverter: Inverter, path: Path, pool: Path | None, chosen: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """The tables of one text: scores of every attacker, by_length and by_source of what is inverted."""
    corpus = read_corpus(path)
    texts = fitting(corpus.texts, inverter.tokenizer, inverter.config.max_seq_len)[: chosen.limit]
    if not texts:
        raise InputError(f"no text of {path} fits the model; give sentences of {MIN_TOKENS} tokens or more")
    known = read_texts(pool)[: chosen.pool_size] if pool else None
    generator = torch.Generator().manual_seed(0)
    table = reconstruct(inverter, texts, num_steps=chosen.steps, pool=known, generator=generator)
    groups = _groups(corpus, texts, inverter.tokenizer)
    return {
        "scores": score_attackers(table, inverter.encoder, inverter.tokenizer),
        **{f"by_{name}": score_groups(table, own, inverter.encoder) for name, own in groups.items()},
    }


def _groups(corpus: Corpus, texts: Sequence[str], tokenizer: Tokenizer) -> dict[str, pd.Categorical]:
    """How the texts are grouped: by their number of tokens, and by their source where the corpus names it."""
    source = dict(zip(corpus.texts, corpus.sources, strict=True))
    sources = pd.Series([source[text].partition("/")[0] or None for text in texts])  # None: in no group
    largest_first = sources.value_counts().index
    return {"length": by_length(texts, tokenizer), "source": pd.Categorical(sources, largest_first)}


def by_length(texts: Sequence[str], tokenizer: Tokenizer) -> pd.Categorical:
    """The range that each text's number of tokens lies in."""
    labels = [f"{low + 1}–{high} tokens" for low, high in itertools.pairwise(LENGTH_BINS)]
    return pd.cut([len(ids) for ids in tokenizer.encode(texts)], LENGTH_BINS, labels=labels)
