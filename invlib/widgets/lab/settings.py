"""Settings: what a person has set in the lab, checked against its limits, and the code that repeats it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from invlib import perturb
from invlib.errors import InputError
from invlib.policies import POLICIES
from invlib.search import BestOf, Strategy, SwapBeam

POLICY_BY_NAME = {policy.__name__: policy for policy in POLICIES}
DRAFTS = 32  # encoded before a search edits the closest of them


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for. A machine of two cores stays usable for the next one."""

    characters: int = 1000
    num_steps: int = 64
    candidates: int = 32
    max_queries: int = 2000


@dataclass(frozen=True)
class Kind:
    """One perturbation of the lab, with the range of its slider.

    make: strength and embed_dim → the perturbation.
    """

    label: str
    low: float
    high: float
    step: float
    default: float
    make: Callable[[float, int], perturb.Perturbation]


KINDS: dict[str, Kind] = {
    "gaussian": Kind(
        *("Gaussian noise, σ per coordinate", 0.0, 0.1, 0.002, 0.0),
        lambda sigma, _: perturb.GaussianNoise(sigma),
    ),
    "bounded": Kind(
        *("Bounded noise, largest length", 0.0, 2.0, 0.05, 0.5),
        lambda radius, _: perturb.BoundedNoise(radius),
    ),
    "quantised": Kind(
        *("Quantised, bits a coordinate", 2, 8, 1, 4),
        lambda bits, _: perturb.AbsmaxQuantisation(int(bits)),
    ),
    "binary": Kind(
        *("Signs only, 1 bit a coordinate", 1, 1, 1, 1),
        lambda _, embed_dim: perturb.Binary(embed_dim),
    ),
    "truncated": Kind(
        *("Cut off, share of coordinates kept", 0.05, 1.0, 0.05, 0.5),
        lambda share, embed_dim: perturb.Truncation(max(1, round(share * embed_dim)), embed_dim),
    ),
    "dropout": Kind(
        *("Coordinates set to 0, share", 0.0, 0.95, 0.05, 0.3),
        lambda share, _: perturb.CoordinateDropout(share),
    ),
}


@dataclass(frozen=True)
class Settings:
    """One inversion to be done. Either `text` or `vector` is the input: a vector, where there is one.

    perturbation, strength: a key of `KINDS` and its strength; of Gaussian noise, 0 leaves the vector as it is.
    candidates: drafts, of which the likeliest stays. max_queries: of the encoder, for a search; 0 for none.
    """

    text: str = ""
    vector: tuple[float, ...] | None = None
    perturbation: str = "gaussian"
    strength: float = 0.0
    policy: str = "top_confidence"
    num_steps: int = 8
    candidates: int = 1
    max_queries: int = 0
    seed: int = 0

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Settings":
        """Settings from a message; what is not among them is an error, and so is a number of the wrong kind."""
        kinds = {name: field.type for name, field in cls.__dataclass_fields__.items()}
        for name, value in values.items():
            if name not in kinds:
                raise InputError(f"there is no setting {name!r}; there are {', '.join(kinds)}")
            label, kind = LABELS.get(name, f"the {name}"), kinds[name]
            if kind is str and not isinstance(value, str):
                raise InputError(f"{label} must be text, got {value!r}")
            is_number = type(value) in (int, float) and math.isfinite(value)
            if kind is float and not is_number:
                raise InputError(f"{label} must be a number, got {value!r}")
            if kind is int and not (is_number and value == int(value)):
                raise InputError(f"{label} must be a whole number, got {value!r}")
        return cls(**{name: int(value) if kinds[name] is int else value for name, value in values.items()})

    def check(self, limits: Limits) -> None:
        """Raise the `InputError` of the first setting outside its limits."""
        if self.vector is None and not self.text.strip():
            raise InputError("there is no text to invert; type a sentence, or choose Vector and paste one")
        if len(self.text) > limits.characters:
            raise InputError(
                f"the text has {len(self.text):,} characters; the lab takes {limits.characters:,} at most: shorten it"
            )
        if self.policy not in POLICY_BY_NAME:
            raise InputError(f"there is no policy {self.policy!r}; choose one of {', '.join(POLICY_BY_NAME)}")
        if self.perturbation not in KINDS:
            raise InputError(f"there is no perturbation {self.perturbation!r}; choose one of {', '.join(KINDS)}")
        for name, low in (("num_steps", 1), ("candidates", 1), ("max_queries", 0)):
            value, high = getattr(self, name), getattr(limits, name)
            if not low <= value <= high:
                raise InputError(f"{LABELS[name]} must be from {low} to {high:,}, got {value:,}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"the seed must be from 0 to 2^63 - 1, got {self.seed}")

    def perturbed(self, clean: np.ndarray) -> perturb.Perturbed:
        """What a store would hold of a unit vector [1, embed_dim], and what an attacker makes of it."""
        perturbation = KINDS[self.perturbation].make(self.strength, clean.shape[1])
        return perturb.apply(perturbation, clean, torch.Generator().manual_seed(self.seed))

    @property
    def is_clean(self) -> bool:
        """True when nothing happens to the vector."""
        return self.perturbation == "gaussian" and self.strength == 0

    @property
    def options(self) -> dict[str, Any]:
        """The options of `Inverter.invert`, but for the generator."""
        options: dict[str, Any] = {"num_steps": self.num_steps, "policy": POLICY_BY_NAME[self.policy]}
        if self.candidates > 1:
            options |= {"candidates": self.candidates, "order_noise": 1.0}
        if self.max_queries:
            return options | {"search": self.search}
        return options | {"verify": True}

    @property
    def search(self) -> tuple[Strategy, ...]:
        """The best of some drafts, then edits, within the budget."""
        if self.max_queries <= DRAFTS:
            return (BestOf(self.max_queries),)
        return (BestOf(DRAFTS), SwapBeam(max_queries=self.max_queries))

    def code(self, load: str, embed_dim: int, steering: Mapping[str, Any]) -> str:
        """The imports and the three lines that repeat this inversion.

        load: the arguments of `Inverter.load`. steering: further options, where a person intervened.
        """
        seeded = f"torch.Generator().manual_seed({self.seed})"
        options = self.options | steering | {"policy": _Name(self.policy), "generator": _Name(seeded)}
        needs_numpy = self.vector is not None and not self.is_clean
        imports = [*(["import numpy as np"] if needs_numpy else []), "import torch", "", "import invlib"]
        if not self.is_clean:
            imports.append("from invlib import perturb")
        imports.append(f"from invlib.policies import {self.policy}")
        if self.max_queries:
            imports.append(f"from invlib.search import {', '.join(type(s).__name__ for s in self.search)}")
        lines = [
            f"inverter = invlib.Inverter.load({load})",
            f"vectors = {self._vectors_code(embed_dim, seeded)}",
            f"result = inverter.invert(vectors, {', '.join(f'{name}={value!r}' for name, value in options.items())})",
        ]
        return "\n".join([*imports, "", *lines])

    def _vectors_code(self, embed_dim: int, seeded: str) -> str:
        given = f"inverter.encoder.encode([{self.text!r}])" if self.vector is None else f"[{list(self.vector)!r}]"
        if self.is_clean:
            return given
        unit = given if self.vector is None else f"perturb.unit(np.array({given}))"
        perturbation = KINDS[self.perturbation].make(self.strength, embed_dim)
        return f"perturb.apply(perturb.{perturbation!r}, {unit}, {seeded}).vectors"


LABELS = {
    "num_steps": "steps",
    "candidates": "candidates",
    "max_queries": "the search budget",
    "seed": "the seed",
    "strength": "the strength",
}


class _Name(str):
    """Code that stands for itself: its repr has no quotation marks."""

    def __repr__(self) -> str:
        return str(self)
