"""How long a person waits: opening the bundled checkpoint, one inversion of 16 tokens in 8 steps; in fp32 and int8.

`python -m tests.speed.inversion`. Python and torch are imported before the clock starts.
"""

import statistics
import sys
import time

import numpy as np
import torch

from invlib.door.options import Parser
from invlib.errors import InputError
from invlib.inverter import Inverter
from tests.speed.machine import description

LENGTH, STEPS = 16, 8


def milliseconds(action, repeats: int) -> list[float]:
    """Wall-clock times of `action`; one more comes first, to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return times[1:]


def _measure(chosen, dtype: torch.dtype) -> None:
    start = time.perf_counter()
    inverter = Inverter.load(chosen.checkpoint, dtype=dtype)
    loading = 1000 * (time.perf_counter() - start)
    vector = np.random.default_rng(0).standard_normal(inverter.config.embedding_cond_dim)
    options = {"length": LENGTH, "num_steps": STEPS}
    inverting = milliseconds(lambda: inverter.invert(vector, **options), chosen.repeats)
    one_step = milliseconds(lambda: inverter.invert(vector, **{**options, "num_steps": 1}), chosen.repeats)
    print(f"machine: {description(inverter.model.device)}, products in {inverter.model.precision}")
    print(f"opening the checkpoint: {loading:.0f} ms")
    for what, times in ((f"{LENGTH} tokens in {STEPS} steps", inverting), ("one step", one_step)):
        print(f"{what}: median {statistics.median(times):.0f} ms (min {min(times):.0f}, max {max(times):.0f})")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tests.speed.inversion", description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--repeats", type=int, default=20)
    try:
        chosen = parser.parse_args(arguments)
        for dtype in (torch.float32, torch.int8):
            _measure(chosen, dtype)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
