"""What a search costs with torch's own products, with those of `invlib.products` and with eight bits, in one run.

`python -m tests.speed.searching`. All ways search for the same sentences from their vectors with the same strategies
and as many queries, and take turns: "torch" and "exact" ask the inverter's own model in fp32, the first with products
by MKL, "quick" asks `Inverter.quick`.
"""

import sys
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from invlib.door.options import Parser
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.search import improve, standard
from invlib.training.compute import FlopMeter, matmul_peak
from tests.speed.clock import seconds
from tests.speed.decoding import SENTENCES
from tests.speed.machine import description

WAYS = ("torch", "exact", "quick")


def exact(inverter: Inverter) -> Inverter:
    """The same inverter, whose searches ask its own model."""
    plain = Inverter(inverter.model, inverter.tokenizer, inverter.encoder)
    plain.quick = plain.model
    return plain


def search(way: str, inverter: Inverter, vector: np.ndarray, queries: int) -> int:
    """One search; how many queries it made."""
    own = mock.patch("invlib.products.linear._is_for_onednn", return_value=False) if way == "torch" else nullcontext()
    with own:
        target = inverter.target(vector, generator=torch.Generator().manual_seed(0))
        target.ledger.stop_cosine = 2.0  # an exact text must not end the work
        for _ in improve(target, standard(queries, inverter.corrects), []):
            pass
    return target.ledger.queries


def compare(ways: dict[str, Inverter], vectors: np.ndarray, queries: int) -> pd.DataFrame:
    """One row per vector and way: seconds for 1,000 queries, and the share of the fp32 matmul peak."""
    meter, rows = FlopMeter(), []
    for number, vector in enumerate(tqdm(vectors, desc="searching", unit=" vectors")):
        for name, inverter in ways.items():
            peak = matmul_peak(repeats=2, clock=seconds)
            _, flops = meter((number, name), lambda way=name, own=inverter, v=vector: search(way, own, v, queries))
            start = seconds()
            made = search(name, inverter, vector, queries)
            spent = seconds() - start
            rows.append({"way": name, "seconds": spent / made * 1000, "share_of_peak": flops / spent / peak})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Medians and ranges of each way, and how many times faster it is than the first."""
    found = table.groupby("way", sort=False).agg(
        seconds=("seconds", "median"),
        fastest=("seconds", "min"),
        slowest=("seconds", "max"),
        share_of_peak=("share_of_peak", "median"),
    )
    each = {way: own["seconds"].to_numpy() for way, own in table.groupby("way", sort=False)}
    first = next(iter(each.values()))
    return found.assign(ratio=[float(np.median(first / own)) for own in each.values()]).reset_index()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tests.speed.searching", description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--length", type=int, default=14, help="pieces of the sentences (default: 14)")
    parser.add_argument("--vectors", type=int, default=4, help="searches each way (default: 4)")
    parser.add_argument("--queries", type=int, default=1000, help="of each search (default: 1000)")
    try:
        chosen = parser.parse_args(arguments)
        inverter = Inverter.load(chosen.checkpoint)
        sentences = pd.read_json(SENTENCES, lines=True)["text"].tolist()
        lengths = [len(ids) for ids in inverter.tokenizer.encode(sentences)]
        own = [text for text, n in zip(sentences, lengths, strict=True) if n == chosen.length][: chosen.vectors]
        if not own or chosen.queries < 1:
            raise InputError(f"no sentence has {chosen.length} pieces, or --vectors or --queries is below 1")
        ways = dict(zip(WAYS, (exact(inverter), exact(inverter), inverter), strict=True))
        table = summary(compare(ways, inverter.encoder.encode(own), chosen.queries))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"machine: {description()}\nclock: processor time per thread; seconds are for 1,000 queries")
    print(f"{len(own)} sentences of {chosen.length} pieces, {chosen.queries} queries each")
    print(table.round(3).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
