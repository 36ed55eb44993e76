"""Int8: a matrix whose products are made in eight bits, four times as many at once as in fp32."""

import copy
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST, ZERO = 127, 128  # signed on the weight's side, unsigned on the input's
TINY = 1e-12  # instead of the scale of a row of zeros
PLAIN = (1.0, 0, torch.float32, "none", [], "")  # the product itself, in fp32


class Int8:
    """A weight [out, in] that `linear` multiplies in eight bits; whatever else asks for it gets the weight itself.

    Every row of the weight and every row of the input has its own scale, its largest number over 127 (vector-wise,
    Dettmers et al. 2022): few large activations do not coarsen all the others.
    """

    def __init__(self, full: Float[Tensor, "out in"]):
        self.full = full

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["full"], name)

    def __deepcopy__(self, memo: dict) -> "Int8":
        return self

    @cached_property
    def packed(self) -> tuple[Any, Tensor, Tensor]:
        """The rounded weight as oneDNN takes it, and scale and zero of its rows."""
        scale = self.full.float().abs().amax(dim=1).clamp(min=TINY) / LARGEST
        rounded = (self.full / scale[:, None]).round().to(torch.int8)
        return torch.ops.onednn.qlinear_prepack(rounded, None), scale, torch.zeros(len(scale), dtype=torch.long)

    def product(self, x: Float[Tensor, "*rows in"], bias: Float[Tensor, "out"] | None = None) -> Tensor:
        """x @ weight.T + bias, in fp32."""
        scale = torch.maximum(x.amax(dim=-1, keepdim=True), -x.amin(dim=-1, keepdim=True)).clamp_(min=TINY) / LARGEST
        rounded = (x / scale).round_().add_(ZERO).to(torch.uint8)
        y = torch.ops.onednn.qlinear_pointwise(rounded, 1.0, ZERO, *self.packed, None, *PLAIN)
        return y.mul_(scale) if bias is None else torch.addcmul(bias, y, scale)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is F.linear:
            return args[1].product(args[0], *args[2:])
        return function(*(each.full if isinstance(each, cls) else each for each in args), **(kwargs or {}))


def sharing(model: nn.Module) -> Any:
    """A copy that may be changed; the weights are those of the original as long as nothing replaces them."""
    return copy.deepcopy(model, {id(value): value for value in (*model.parameters(), *model.buffers())})


def quick(model: Any) -> Any:
    """An fp32 `ConditionalMDLM` as its machine asks it fastest: in eight bits, as it is, on an accelerator in bf16."""
    if model.device.type != "cpu" and model.dtype == torch.float32:
        return copy.deepcopy(model).to(torch.bfloat16)
    return denoiser(model) if is_fast(model) else model


def is_fast(model: Any) -> bool:
    """Whether products of eight-bit numbers are faster than this model's own: where the processor has them."""
    if model.device.type != "cpu" or model.precision != "float32" or not torch.backends.mkldnn.is_available():
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(name) for name in ("amx_int8", "avx512_vnni", "avx_vnni"))


def denoiser(model: Any) -> Any:
    """A copy of a denoiser whose blocks and head multiply in eight bits; what the vector tells them stays exact."""
    model = sharing(model)
    for block in model.blocks:
        _round(block.attn)
        _round(block.ff)
    _replace(model.token_embed if model.config.tie_embeddings else model.output_proj, "weight")
    return model


def _round(module: nn.Module) -> None:
    for part in module.modules():
        for name, kind in (("weight", nn.Linear), ("in_proj_weight", nn.MultiheadAttention)):
            if isinstance(part, kind):
                _replace(part, name)


def _replace(module: nn.Module, name: str) -> None:
    vars(module)[name] = Int8(module._parameters[name].detach())  # found before the parameter, which is still its own
