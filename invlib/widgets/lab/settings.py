"""Settings: what a person has set in the lab, checked against its limits; View: the vector that they give."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from invlib import perturb
from invlib.config import from_dict
from invlib.errors import InputError
from invlib.inverter import check_vectors
from invlib.policies import POLICY_BY_NAME
from invlib.search import Strategy, standard

LABELS = {"num_steps": "steps", "max_queries": "the search budget", "guidance_scale": "the guidance"} | {
    name: f"the {name}" for name in ("text", "perturbation", "strength", "policy", "seed")
}
KINDS_IN_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for. A machine of two cores stays usable for the next one."""

    characters: int = 1000
    num_steps: int = 64
    candidates: int = 32
    max_queries: int = 2000
    seed: int = 2**31 - 1
    guidance_scale: float = 8.0


@dataclass(frozen=True)
class Kind:
    """One perturbation of the lab, with the range of its slider."""

    make: Callable[[float, int], perturb.Perturbation]  # of a strength and embed_dim
    label: str
    low: float
    high: float
    step: float
    default: float


KINDS: dict[str, Kind] = {
    "gaussian": Kind(lambda s, _: perturb.GaussianNoise(s), "Gaussian noise, σ per coordinate", 0.0, 0.1, 0.002, 0.0),
    "bounded": Kind(lambda s, _: perturb.BoundedNoise(s), "Bounded noise, largest length", 0.0, 2.0, 0.05, 0.5),
    "quantised": Kind(lambda s, _: perturb.AbsmaxQuantisation(int(s)), "Quantised, bits a coordinate", 2, 8, 1, 4),
    "binary": Kind(lambda _, n: perturb.Binary(n), "Signs only, 1 bit a coordinate", 1, 1, 1, 1),
    "truncated": Kind(lambda s, n: perturb.Truncation(round(s * n), n), "Cut off, share kept", 0.05, 1.0, 0.05, 0.5),
    "dropout": Kind(lambda s, _: perturb.CoordinateDropout(s), "Coordinates set to 0, share", 0.0, 0.95, 0.05, 0.3),
}


@dataclass(frozen=True)
class Settings:
    """One inversion to be done. Either `text` or `vector` is the input: a vector, where there is one.

    perturbation, strength: a key of `KINDS` and its strength; of Gaussian noise, 0 leaves the vector as it is.
    candidates: drafts, of which the likeliest stays. max_queries: of the encoder, for a search; 0 for none.
    watch: encode the text of every step, for its cosine; a query each.
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
    guidance_scale: float = 1.0
    watch: bool = False

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Settings":
        """Settings from a page. Raises the `InputError` of the first that there is not, or that is of another kind."""
        try:
            return from_dict(cls, dict(values))
        except InputError as error:
            name, must, kind = str(error).partition(" must be ")
            kind, got, value = kind.partition(", got ")
            name, kind = LABELS.get(name, name), KINDS_IN_WORDS.get(kind, kind)
            raise InputError(name + must + kind + got + value) from None

    def check(self, limits: Limits) -> None:
        """Raise the `InputError` of the first setting outside its limits."""
        if self.vector is None and not self.text.strip():
            raise InputError("there is no text to invert; type a sentence, or choose Vector and paste one")
        length, most = len(self.text), limits.characters
        if length > most:
            raise InputError(f"the text has {length:,} characters; the lab takes {most:,} at most: shorten it")
        for name, known in (("policy", POLICY_BY_NAME), ("perturbation", KINDS)):
            if getattr(self, name) not in known:
                raise InputError(f"there is no {name} {getattr(self, name)!r}; choose one of {', '.join(known)}")
        if not math.isfinite(self.strength):
            raise InputError(f"the strength must be a number, got {self.strength!r}")
        counts = {"num_steps": 1, "candidates": 1, "seed": 0, "guidance_scale": 0}
        for name, low in (counts | {"max_queries": 1} if self.max_queries else counts).items():  # 0: no search
            value, most = getattr(self, name), getattr(limits, name)
            if not low <= value <= most:
                raise out_of_range(name, low, most, value)

    def is_same_input(self, other: "Settings") -> bool:
        """True when both invert the same text or vector."""
        return (self.text, self.vector) == (other.text, other.vector)

    @property
    def is_clean(self) -> bool:
        """True when nothing happens to the vector."""
        return self.perturbation == "gaussian" and self.strength == 0

    def disturbance(self, embed_dim: int) -> perturb.Perturbation:
        """What happens to the vector before it is inverted."""
        return KINDS[self.perturbation].make(self.strength, embed_dim)

    def options(self, corrects: bool) -> dict[str, Any]:
        """The options of `Inverter.invert`, but for the generator."""
        options: dict[str, Any] = {"num_steps": self.num_steps, "policy": POLICY_BY_NAME[self.policy]}
        if self.candidates > 1:
            options |= {"candidates": self.candidates, "order_noise": 1.0}
        if self.guidance_scale != 1:
            options["guidance_scale"] = self.guidance_scale
        return options | ({"search": self.search(corrects)} if self.max_queries else {"verify": True})

    def search(self, corrects: bool) -> tuple[Strategy, ...]:
        """Of a checkpoint that `corrects` or does not; none without a budget."""
        return standard(self.max_queries, corrects) if self.max_queries else ()


def out_of_range(name: str, low: float, most: float, value: float) -> InputError:
    """The error of a number outside its limits, in the words of the page."""
    return InputError(f"{LABELS.get(name, name)} must be from {low:,} to {most:,}, got {value:,}")


@dataclass(frozen=True)
class View:
    """A vector as a person sees it, and what a store holds of it."""

    vector: np.ndarray  # [embed_dim] float32 of unit length: what the attacker inverts
    norm: float  # of what the store holds
    stored: int  # numbers in the store
    cosine: float  # to the clean vector; 1 where nothing happened to it
    pieces: int = 0  # of the text; 0 where a vector was given
    advice: str = ""  # why that text cannot come back whole

    @classmethod
    def of(cls, given: np.ndarray, settings: Settings, embed_dim: int) -> "View":
        """What the settings make of a vector [1, n], as it was encoded or pasted. Raises `InputError` for a misfit."""
        vectors = check_vectors(given, embed_dim)
        if settings.is_clean:
            return cls(vectors[0], float(np.linalg.norm(given)), embed_dim, 1.0)
        clean = given if settings.vector is None else perturb.unit(given)
        seen = perturb.apply(settings.disturbance(embed_dim), clean, torch.Generator().manual_seed(settings.seed))
        norm = float(np.linalg.norm(seen.stored[0].astype(np.float64)))
        return cls(check_vectors(seen.vectors, embed_dim)[0], norm, len(seen.stored[0]), float(seen.cosines[0]))
