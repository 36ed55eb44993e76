"""Quick: model and encoder in bf16, for the many questions of a search that need no exact answer."""

import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch

from invlib.encoder import Encoder
from invlib.model import ConditionalMDLM
from invlib.search.ledger import Encode


class Quick:
    """Rounded copies of an `Inverter`'s model and encoder, made when they are first used.

    Only where the machine multiplies bf16 in hardware: elsewhere it is slower than fp32, being taken apart first.
    """

    def __init__(self, inverter: Any):
        self._inverter = inverter

    @cached_property
    def model(self) -> ConditionalMDLM:
        """The model that proposes; the inverter's own where a copy would be no faster."""
        return _in_bf16(self._inverter.model) or self._inverter.model

    @cached_property
    def encode(self) -> Encode | None:
        """`Encoder.encode`, off by some 1e-3 of a cosine; None where that is no faster or the encoder is foreign."""
        encoder = self._inverter.encoder
        if not isinstance(encoder, Encoder) or (rounded := _in_bf16(encoder.model)) is None:
            return None
        quick = copy.copy(encoder)
        quick.model = rounded

        def encode(texts: list[str]) -> np.ndarray:
            encoder.queries += len(texts)
            return quick.encode(texts)

        return encode


def _in_bf16(model: Any) -> Any:
    """A copy of an fp32 module; None where bf16 is no faster."""
    on_cpu = model.device.type == "cpu"
    known = torch.cpu.get_capabilities() if on_cpu else {"amx_bf16": True}
    is_faster = known.get("amx_bf16") or known.get("avx512_bf16")
    return copy.deepcopy(model).to(torch.bfloat16) if is_faster and model.dtype == torch.float32 else None
