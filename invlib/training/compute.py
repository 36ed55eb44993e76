"""Compute: what a step costs in matrix multiplications, and how fast this machine multiplies."""

import sys
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch.utils import benchmark
from torch.utils.flop_counter import FlopCounterMode

from invlib.products.linear import linear

Result = TypeVar("Result")


def _linear_flops(x: torch.Size, *_, out_shape: torch.Size, **__) -> int:
    return 2 * x.numel() * out_shape[-1]


# Products through oneDNN, see `invlib.products`; a torch that was built without it has no such operators.
ONEDNN = (getattr(torch.ops.mkldnn, "_linear_pointwise", None), getattr(torch.ops.onednn, "qlinear_pointwise", None))
UNKNOWN_TO_TORCH = dict.fromkeys(filter(None, ONEDNN), _linear_flops)


class FlopMeter:
    """Floating-point operations of repeated work: counted once per kind of step, by torch's own counter, then known.

    Only matrix multiplications count, forward, backward and in the optimiser; a multiply-add is two operations.
    """

    def __init__(self):
        self._known: dict[Hashable, float] = {}  # per unit of size

    def __call__(self, kind: Hashable, step: Callable[[], Result], size: int = 1) -> tuple[Result, int]:
        """What `step` returns, and its operations. Steps of one `kind` are taken to cost as much per `size`."""
        if kind in self._known:
            return step(), round(self._known[kind] * size)
        with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH) as counter, _uncompiled():
            result = step()
        self._known[kind] = counter.get_total_flops() / size
        return result, counter.get_total_flops()


def _uncompiled() -> AbstractContextManager:
    """Compiled code hides its products; and what is first met while somebody counts is never compiled later."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@torch.no_grad()
def matmul_peak(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    size: int | None = None,
    repeats: int = 5,
    clock: Callable[[], float] = benchmark.timer,
) -> float:
    """Operations per second of the best of some products of two `size` x `size` matrices, on all of torch's threads.

    size: 2,048 on a CPU and 8,192 elsewhere, unless given. The numbers are random: zeros would be multiplied faster.
    clock: seconds, once an accelerator is done. Work beside it on the same cores makes the peak smaller, unless the
    clock stands still meanwhile.
    """
    size = size or (2048 if torch.device(device).type == "cpu" else 8192)
    generator, seconds = torch.Generator(device).manual_seed(0), []
    a = torch.rand(size, size, generator=generator, device=device).to(dtype)
    for _ in range(repeats + 1):  # the first product warms up
        start = clock()
        linear(a, a)
        seconds.append(clock() - start)
    return 2 * size**3 / min(seconds[1:])
