"""Documents: write what was measured into README and model card, each table between its marks.

A block begins with `<!-- scores -->` and ends with `<!-- /scores -->`; its name says which table it holds. What stands
between is never typed by hand: the same command writes it again from the files beside a checkpoint's weights.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from invlib.checkpoint import locate
from invlib.door.files import reading, write_text
from invlib.errors import InputError
from invlib.studies.claims import claims
from invlib.studies.score import GROUP_METRICS, markdown_table
from invlib.studies.search import ALL

MARK = re.compile(r"(<!-- ([a-z ]+) -->\n).*?(<!-- /\2 -->)", re.S)
SEARCH_METRICS = ("exact_match", "token_f1", "bleu", "cosine", "seconds")


def scores(folder: Path) -> str:
    """How much comes back of each text, beside the controls."""
    results = _results(folder)
    table = pd.DataFrame(results["scores"])
    counts = table.groupby("text", sort=False)["n"].first()
    told = " and ".join(f"{n:,} sentences of {text}" for text, n in counts.items())
    about = f"{told}, {results['num_steps']} encoder-free steps from 100 % masks; value and 95 % interval:"
    return f"{about}\n\n{markdown_table(table, ('metric', 'text'))}"


def by(group: str) -> Callable[[Path], str]:
    """The block of one way of grouping: a row for each group of each text."""

    def block(folder: Path) -> str:
        table = pd.DataFrame(_results(folder)[f"by_{group}"])
        return markdown_table(table[table["metric"].isin(GROUP_METRICS)], ("text", "group", "n"), "metric")

    return block


def searched(folder: Path, *, by_length: bool = False) -> str:
    """What a search finds of each text within each budget; by length: within the largest one."""
    path = folder / "search.csv"
    with reading(path, "is not the table of a search", "run: python -m invlib.studies search"):
        table = pd.read_csv(path)
    table = table[table["metric"].isin(SEARCH_METRICS) & ((table["group"] != ALL) == by_length)]
    if by_length:
        largest = table[table["queries"] == table["queries"].max()]
        return markdown_table(largest, ("text", "group", "queries", "n"), "metric")
    return markdown_table(table, ("text", "queries", "n"), "metric")


def learning_curve(folder: Path) -> str:
    """The validations of the training that made the weights."""
    log = pd.read_csv(folder / "log.csv").dropna(subset="token_f1")
    percent = log.assign(exact_match=100 * log["exact_match"], length_right=100 * log["length_right"])
    line = "| {step:,} | {samples:,} | {token_f1:.3f} | {exact_match:.1f} % | {length_right:.0f} % |"
    lines = [line.format_map(row) for row in percent.to_dict(orient="records")]
    return "\n".join(["| step | sentences seen | token F1 | exact match | length right |", "|" + "---|" * 5, *lines])


BLOCKS: Mapping[str, Callable[[Path], str]] = {
    "scores": scores,
    "by length": by("length"),
    "by source": by("source"),
    "search": searched,
    "search by length": lambda folder: searched(folder, by_length=True),
    "learning curve": learning_curve,
    "any encoder": lambda folder: "\n".join(f"- {sentence}" for sentence in claims()),
}


def filled(text: str, folder: Path) -> str:
    """A document with its blocks as the files in a checkpoint's folder have them. Raises `InputError` for others."""

    def block(mark: re.Match) -> str:
        if mark[2] not in BLOCKS:
            raise InputError(f"no table is called {mark[2]!r}; there are {', '.join(BLOCKS)}")
        return f"{mark[1]}{BLOCKS[mark[2]](folder)}\n{mark[3]}"

    return MARK.sub(block, text)


def _results(folder: Path) -> dict:
    path = folder / "results.json"
    with reading(path, "is not what a score writes", "run: python -m invlib.studies score"):
        return json.loads(path.read_text(encoding="utf-8"))


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--out", type=Path, nargs="+", required=True, help="Markdown files with such marks")


def run(chosen: argparse.Namespace) -> None:
    """Write every block of every document again."""
    for path in chosen.out:
        with reading(path, "cannot be read as Markdown", "give UTF-8 text"):
            text = path.read_text(encoding="utf-8")
        write_text(path, filled(text, locate(chosen.checkpoint)))
        print(path)
