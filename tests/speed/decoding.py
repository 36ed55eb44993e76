"""Decoding against the reference way of writing it, in one run.

`python -m tests.speed.decoding`. Both ways decode the same vectors with the same weights: random ones of the shape of
the published Qwen3 inverter, or those of a checkpoint. The reference way is what one reads in the method, and nothing
else: one vector at a time, fp32, as many calls as positions; each call computes condition and modulation anew and the
logits of the whole vocabulary at every position, and uncovers the most confident one. Whatever is timed takes turns.
"""

import argparse
import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from invlib.checkpoint import PACKAGE
from invlib.config import load_config
from invlib.door.options import Parser
from invlib.errors import InputError
from invlib.inverter import Inverter, check_vectors
from invlib.model import ConditionalMDLM
from invlib.training.compute import FlopMeter, matmul_peak
from tests.speed.clock import seconds
from tests.speed.machine import description
from tests.speed.untrained import untrained

REFERENCE, OURS = "reference", "ours"
SENTENCES = PACKAGE.parent / "data/sentences/sentences.jsonl"
FULL_ROUNDS = 64  # sequences up to which a batch takes part in every round; larger ones in fewer


@torch.inference_mode()
def reference(model: ConditionalMDLM, vector: Tensor) -> Tensor:
    """Tokens [max_seq_len] of one vector [embed_dim], as the method is written down."""
    mask = model.config.mask_token_id
    tokens = torch.full((1, model.config.max_seq_len), mask, device=vector.device)
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    for _ in range(model.config.max_seq_len):
        modulation = model.modulation(vector[None])
        states = model.final_states(model.hidden_states(tokens, modulation), modulation, everywhere)
        logits = states @ model.output_table.T
        logits[:, mask] = -torch.inf
        confidence, likeliest = logits.softmax(dim=-1).max(dim=-1)
        place = confidence.masked_fill(tokens[0] != mask, -1).argmax()
        tokens[0, place] = likeliest[place]
    return tokens[0]


@dataclass(frozen=True)
class Way:
    """One way of decoding that is timed: `batch` vectors at once in `num_steps` steps."""

    name: str
    inverter: Inverter
    batch: int
    num_steps: int

    def names(self) -> dict[str, str | int]:
        """What it is called in a table."""
        precision = "bf16" if self.inverter.model.dtype == torch.bfloat16 else "fp32"
        return {"way": self.name, "batch": self.batch, "precision": precision, "steps": self.num_steps}

    def decode(self, vectors: np.ndarray) -> Tensor:
        """Tokens [n, max_seq_len]; all positions are decoded, whatever length the model would predict."""
        if self.name == REFERENCE:
            own = torch.from_numpy(vectors).to(self.inverter.model.device)
            return torch.stack([reference(self.inverter.model, vector) for vector in own])
        lengths = np.full(len(vectors), self.inverter.config.max_seq_len)
        for step in self.inverter.steps(vectors, lengths, num_steps=self.num_steps, top_k=0):
            last = step
        return last.tokens


def changes(ways: list[Way], vectors: np.ndarray) -> pd.DataFrame:
    """One row per way: the share of all tokens that it writes otherwise than the first one, and operations a vector."""
    meter, first, rows = FlopMeter(), None, []
    for way in tqdm(ways, desc="comparing tokens", unit=" ways"):
        each = [meter(way, lambda way=way, row=row: way.decode(row[None])) for row in vectors]
        tokens = torch.cat([tokens for tokens, _ in each])
        first = tokens if first is None else first
        rows.append({**way.names(), "changed": float((tokens != first).float().mean()), "flops": each[0][1]})
    return pd.DataFrame(rows).drop(columns="batch")


def compare(ways: list[Way], flops: dict[tuple[str, int], int], vectors: np.ndarray, rounds: int) -> pd.DataFrame:
    """All ways by turns: one row per round and way, with vectors per second and the matmul peak beside it.

    flops: (way, steps) → operations a vector.
    """
    turns = list(_turns(ways, rounds))
    rows = []
    for turn, way in tqdm(turns, desc="decoding", unit=" turns"):
        device = way.inverter.model.device
        peak = matmul_peak(device, way.inverter.model.dtype, repeats=2, clock=lambda device=device: seconds(device))
        start = seconds(device)
        way.decode(vectors[: way.batch])
        per_second = way.batch / (seconds(device) - start)
        share = per_second * flops[way.name, way.num_steps] / peak
        rows.append({"round": turn, **way.names(), "per_second": per_second, "share_of_peak": share})
    return pd.DataFrame(rows)


def _turns(ways: list[Way], rounds: int) -> Iterator[tuple[int, Way]]:
    for turn in range(rounds):
        for way in ways:
            if turn < max(1, rounds * FULL_ROUNDS // max(FULL_ROUNDS, way.batch)):
                yield turn, way


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per way: medians and ranges of sequences per second, the ratio to the reference, share of the peak."""
    base = table[table["way"] == REFERENCE].set_index("round")["per_second"]
    table = table.assign(ratio=table["per_second"] / table["round"].map(base))
    found = table.groupby(["way", "batch", "precision", "steps"], sort=False).agg(
        per_second=("per_second", "median"),
        slowest=("per_second", "min"),
        fastest=("per_second", "max"),
        ratio=("ratio", "median"),
        lowest_ratio=("ratio", "min"),
        highest_ratio=("ratio", "max"),
        share_of_peak=("share_of_peak", "median"),
        rounds=("round", "count"),
    )
    return found.reset_index()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tests.speed.decoding", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("configs/v2_qwen3.yaml"), help="shape of random weights")
    parser.add_argument("--checkpoint", help="trained weights instead, on the project's own sentences")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256], help="in bf16 (default: 1 8 64 256)")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps of the batches (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; fewer of large batches (default: 3)")
    parser.add_argument("--compared", type=int, default=4, help="vectors whose tokens are compared (default: 4)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="write the summary there, as .csv")
    try:
        chosen = parser.parse_args(arguments)
        _check(chosen)
        inverter, vectors = _subject(chosen, max(*chosen.batches, chosen.compared))
        length, in_bf16 = inverter.config.max_seq_len, _in_bf16(inverter)
        ways = [Way(REFERENCE, inverter, 1, length), Way(OURS, inverter, 1, length)]
        variants = [(in_bf16, length), (inverter, chosen.steps), (in_bf16, chosen.steps)]
        changed = changes(ways + [Way(OURS, one, 1, steps) for one, steps in variants], vectors[: chosen.compared])
        flops = changed.set_index(["way", "steps"])["flops"].to_dict()
        ways += [Way(OURS, in_bf16, batch, chosen.steps) for batch in chosen.batches]
        table = summary(compare(ways, flops, vectors, chosen.rounds))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _report(table, changed, inverter, chosen)
    return 0


def _check(chosen: argparse.Namespace) -> None:
    for name in ("steps", "rounds", "compared"):
        if getattr(chosen, name) < 1:
            raise InputError(f"--{name} must be at least 1, got {getattr(chosen, name)}")
    if min(chosen.batches) < 1:
        raise InputError(f"--batches must be at least 1, got {min(chosen.batches)}")


def _subject(chosen: argparse.Namespace, count: int) -> tuple[Inverter, np.ndarray]:
    """The fp32 inverter, and `count` vectors for it: of sentences where it is trained, else random."""
    if chosen.checkpoint is None:
        inverter = untrained(load_config(chosen.config).model)
        inverter.model.to(chosen.device)
        embed_dim = inverter.config.embedding_cond_dim
        vectors = np.random.default_rng(0).standard_normal((count, embed_dim))
        return inverter, check_vectors(vectors, embed_dim)
    inverter = Inverter.load(chosen.checkpoint, device=chosen.device)
    sentences = pd.read_json(SENTENCES, lines=True)["text"].tolist()
    if len(sentences) < count:
        raise InputError(f"there are {len(sentences)} sentences, a batch of {count} needs more; choose smaller ones")
    return inverter, inverter.encoder.encode(sentences[:count])


def _in_bf16(inverter: Inverter) -> Inverter:
    return Inverter(copy.deepcopy(inverter.model).to(torch.bfloat16), inverter.tokenizer)


def _report(table: pd.DataFrame, changed: pd.DataFrame, inverter: Inverter, chosen: argparse.Namespace) -> None:
    print(f"machine: {description(inverter.model.device)}")
    print("clock: " + ("processor time per thread" if inverter.model.device.type == "cpu" else "wall-clock time"))
    print(f"weights: {chosen.checkpoint or f'random, of the shape of {chosen.config}'}")
    print(f"share of tokens that differ from the reference's, {chosen.compared} vectors; operations a vector:")
    with pd.option_context("display.width", 160):
        print(changed.to_string(index=False, formatters={"changed": "{:.1%}".format, "flops": "{:.3g}".format}))
        print(table.round(3).to_string(index=False))
    if chosen.out is not None:
        table.to_csv(chosen.out, index=False, float_format="%.4f")
        print(f"written to {chosen.out}")


if __name__ == "__main__":
    sys.exit(main())
