"""What an inversion costs against length, steps, batch and candidates, and the model that explains it.

`python -m tests.speed.cost` writes cost.csv beside the weights; notebook 05 shows it. A batch is taken to need
a · calls + b · operations seconds: what a call of the model costs however little it computes, and the time of a
multiplication. Both are fitted to all measurements at once, so that the model has two numbers for every axis.
"""

import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from tqdm.auto import tqdm

from invlib.checkpoint import locate, write_atomically
from invlib.door.options import Parser
from invlib.errors import InputError
from invlib.inverter import Inverter, check_vectors
from invlib.studies.results import commit_of_this_clone
from invlib.training.compute import FlopMeter
from tests.speed.clock import seconds
from tests.speed.machine import description


@dataclass(frozen=True)
class Setting:
    """One batch: `batch` vectors, each with `candidates` drafts of `length` tokens in `steps` steps."""

    length: int = 16
    steps: int = 8
    batch: int = 16
    candidates: int = 1


AXES = {
    "length": (4, 8, 16, 24, 32),
    "steps": (1, 2, 4, 8, 16),
    "batch": (1, 4, 16, 64, 128),
    "candidates": (1, 2, 4, 8),
}


def measure(inverter: Inverter, axes: dict[str, tuple[int, ...]], *, base: Setting, repeats: int) -> pd.DataFrame:
    """One row per axis and value: the setting, calls and operations of the batch, and the median ms per vector.

    All settings take turns; one more turn comes first, to warm up and to count.
    """
    settings = [(axis, value, replace(base, **{axis: value})) for axis, values in axes.items() for value in values]
    meter, rows = FlopMeter(), []
    for turn in tqdm(range(repeats + 1), desc="cost", unit=" turns"):
        for axis, value, setting in settings:
            start = seconds(inverter.model.device)
            calls, flops = meter(setting, lambda setting=setting: _invert(inverter, setting))
            ms = 1000 * (seconds(inverter.model.device) - start) / setting.batch
            work = {"calls": calls, "gflops": flops / 1e9, "ms": ms}
            rows.append({"turn": turn, "axis": axis, "value": value, **asdict(setting), **work})
    table = pd.DataFrame(rows).query("turn > 0").drop(columns="turn")
    keys = [name for name in table.columns if name != "ms"]
    return table.groupby(keys, sort=False, as_index=False)["ms"].median()


def _invert(inverter: Inverter, setting: Setting) -> int:
    """Invert random vectors; how often the model was called for the whole batch."""
    embed_dim = inverter.config.embedding_cond_dim
    vectors = check_vectors(np.random.default_rng(0).standard_normal((setting.batch, embed_dim)), embed_dim)
    result = inverter.invert(
        vectors,
        length=setting.length,
        num_steps=setting.steps,
        candidates=setting.candidates,
        order_noise=0.0 if setting.candidates == 1 else 1.0,
        batch_size=setting.batch * setting.candidates,
        keep_trajectories=False,
        generator=torch.Generator().manual_seed(0),
    )
    return int(result.model_calls.max()) // setting.candidates


def explained(table: pd.DataFrame) -> tuple[pd.DataFrame, float, float]:
    """The table with `predicted` ms per vector, and the model: ms per call, ms per GFLOP, neither below 0.

    Fitted to relative errors, so that cheap settings count as much as dear ones.
    """
    work = table[["calls", "gflops"]].div(table["batch"], axis=0)
    (per_call, per_gflop), _ = nnls(work.div(table["ms"], axis=0).to_numpy(), np.ones(len(table)))
    return table.assign(predicted=work.to_numpy() @ [per_call, per_gflop]), float(per_call), float(per_gflop)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tests.speed.cost", description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every setting (default: 3)")
    parser.add_argument("--largest", type=int, default=128, help="leave out larger values of every axis")
    parser.add_argument("--out", type=Path, help="default: cost.csv in the checkpoint's folder")
    try:
        chosen, commit = parser.parse_args(arguments), commit_of_this_clone()
        if chosen.repeats < 1 or chosen.largest < 1:
            raise InputError(f"--repeats and --largest must be at least 1, got {chosen.repeats} and {chosen.largest}")
        inverter = Inverter.load(chosen.checkpoint, dtype=torch.int8)
        axes = {axis: tuple(v for v in values if v <= chosen.largest) for axis, values in AXES.items()}
        table, per_call, per_gflop = explained(measure(inverter, axes, base=Setting(), repeats=chosen.repeats))
        made = f"{inverter.model.precision}, {datetime.now(UTC):%Y-%m-%d}, commit {commit}"
        machine = f"{description(inverter.model.device)}, {made}"
        out = chosen.out or locate(chosen.checkpoint) / "cost.csv"
        table = table.assign(machine=machine)
        write_atomically(out, lambda path: table.to_csv(path, index=False, float_format="%.4f"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    error = (table["predicted"] / table["ms"] - 1).abs()
    print(f"machine: {machine}")
    print(table.drop(columns="machine").round(2).to_string(index=False))
    print(
        f"{per_call:.2f} ms a call + {per_gflop:.2f} ms a GFLOP; off by {error.median():.0%}, at most {error.max():.0%}"
    )
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
