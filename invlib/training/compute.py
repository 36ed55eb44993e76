"""Compute: what a step costs in matrix multiplications, and how fast this machine multiplies."""

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch.utils import benchmark
from torch.utils.flop_counter import FlopCounterMode

Result = TypeVar("Result")


def _linear_flops(x: torch.Size, weight: torch.Size, *_, out_shape: torch.Size, **__) -> int:
    return 2 * x.numel() * weight[0]


UNKNOWN_TO_TORCH = {torch.ops.aten.mkldnn_linear: _linear_flops}  # fp32 products through oneDNN, see model.py


class FlopMeter:
    """Floating-point operations of repeated work: counted once per kind of step, by torch's own counter, then known.

    Only matrix multiplications count, forward, backward and in the optimiser; a multiply-add is two operations.
    """

    def __init__(self):
        self._known: dict[Hashable, int] = {}

    def __call__(self, kind: Hashable, step: Callable[[], Result]) -> tuple[Result, int]:
        """What `step` returns, and its operations. Steps of one `kind` are taken to cost the same."""
        if kind in self._known:
            return step(), self._known[kind]
        with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH) as counter:
            result = step()
        self._known[kind] = counter.get_total_flops()
        return result, self._known[kind]


def matmul_peak(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    size: int = 2048,
    repeats: int = 5,
    clock: Callable[[], float] = benchmark.timer,
) -> float:
    """Operations per second of the best of some products of two `size` x `size` matrices, on all of torch's threads.

    clock: seconds, once an accelerator is done. Work beside it on the same cores makes the peak smaller, unless the
    clock stands still meanwhile.
    """
    a, seconds = torch.full((size, size), 0.5, device=device, dtype=dtype), []
    for _ in range(repeats + 1):  # the first product warms up
        start = clock()
        a @ a
        seconds.append(clock() - start)
    return 2 * size**3 / min(seconds[1:])
