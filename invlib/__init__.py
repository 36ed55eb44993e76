"""Embedding inversion: given only a sentence embedding, recover the sentence.

>>> import invlib
>>> inverter = invlib.Inverter.load("minilm")
>>> vectors = inverter.encoder.encode(["Meet me at the station at nine."])
>>> inverter.invert(vectors, num_steps=8).texts  # doctest: +SKIP

The house, top first; imports run downwards, and everything is loaded when it is first used:
audit, widgets/lab, __main__ → studies, widgets → inverter, training, plots → search, probes, alignment → sampler,
checkpoint → model, encoder, tokenizer, policies, perturb → config, products, masking, trajectory, metrics,
sources → door → errors
"""

import importlib
from typing import Any

_NAMES = {
    "alignment": ("Alignment",),
    "config": ("Config", "load_config"),
    "encoder": ("Encoder",),
    "errors": ("InputError",),
    "inverter": ("Inversion", "Inverter"),
    "model": ("ConditionalMDLM", "Modulation"),
    "tokenizer": ("Tokenizer",),
    "trajectory": ("Step", "Trajectory"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = ("masking", "metrics", "perturb", "plots", "policies", "probes", "sampler", "search", "widgets")

__all__ = [*_MODULE_OF, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"invlib.{_MODULE_OF[name]}"), name)
    if name in _MODULES or name in _NAMES or name in ("audit", "checkpoint", "sources", "studies", "training"):
        return importlib.import_module(f"invlib.{name}")
    raise AttributeError(f"module 'invlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
