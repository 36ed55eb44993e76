"""Linear: x @ weight.T + bias by oneDNN, which uses all registers of a processor that is not Intel's; MKL uses half."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ROUND = 32  # rows of a product are padded to a multiple


def linear(x: Float[Tensor, "*rows in"], weight: Any, bias: Float[Tensor, "out"] | None = None) -> Tensor:
    """`torch.nn.functional.linear`: [*rows, out]; on a CPU, where no gradient is asked for, by oneDNN.

    It keeps a compiled product for every number of rows, most of a megabyte each: hence round numbers.

    weight: [out, in], a tensor or an `invlib.products.int8.Int8`, which multiplies by itself.
    """
    if not _is_for_onednn(x, weight):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    padding = -len(rows) % ROUND if len(rows) > ROUND else 0
    padded = F.pad(rows, (0, 0, 0, padding)) if padding else rows
    y = torch.ops.mkldnn._linear_pointwise(padded, weight, bias, "none", [], "")
    return y[: len(rows)].reshape(*x.shape[:-1], len(weight))


def _is_for_onednn(x: Tensor, weight: Any) -> bool:
    others = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or x.device.type != "cpu" or not x.numel()
    same = type(weight) in (Tensor, nn.Parameter) and weight.dtype == x.dtype
    return same and not others and x.dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available()


class Linear(nn.Linear):
    """Torch's module, with the product of `linear`."""

    def forward(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        return linear(x, self.weight, self.bias)


class EveryLinear(TorchFunctionMode):
    """A context in which the products of other people's modules are those of `linear`, too."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return (linear if function is F.linear else function)(*args, **(kwargs or {}))
