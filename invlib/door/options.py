"""Options: what a value may be, told in words and tested in one place, for keyword arguments, files and commands."""

import argparse
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from invlib.errors import InputError, require, shown


@dataclass(frozen=True)
class Domain:
    """What a value may be: in words, and as a test, which may raise for what it cannot compare."""

    told: str
    holds: Callable[[Any], bool]
    parse: Callable[[str], Any] = str

    def fits(self, value: Any) -> bool:
        """Is the value inside?"""
        try:
            return bool(self.holds(value))
        except Exception:
            return False

    def check(self, name: str, value: Any) -> None:
        """Raise an `InputError` for a value outside."""
        require(self.fits(value), name, self.told, value)

    def __call__(self, text: str) -> Any:
        """The value that a command line means: argparse's `type`."""
        try:
            value = self.parse(text)
        except ValueError:
            value = None
        if value is None or not self.fits(value):
            raise argparse.ArgumentTypeError(f"must be {self.told}, got {shown(text)}")
        return value

    def or_none(self) -> "Domain":
        """The same, or None."""
        return Domain(f"{self.told}, or None", lambda value: value is None or self.holds(value), self.parse)


def whole(low: int, high: int) -> Domain:
    """An integer of Python or numpy, both ends included."""

    def holds(value: Any) -> bool:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= value <= high

    return Domain(f"an integer from {low} to {high}", holds, int)


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Domain:
    """A finite number from `low` to `high`, an integer below 2^63; above, below: without that end itself."""
    ends = f"{'>' if above else '≥'} {low:g}" + (f" and {'<' if below else '≤'} {high:g}" if high < math.inf else "")

    def holds(value: Any) -> bool:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        real = real and not (isinstance(value, numbers.Integral) and abs(value) >= 2**63)  # torch takes no larger one
        return real and (value > low if above else value >= low) and (value < high if below else value <= high)

    return Domain(f"a finite number {ends}", holds, float)


def one_of(*known: Any) -> Domain:
    """One of a few values; 1 is not True."""
    return Domain(f"one of {known}", lambda value: any(type(value) is type(own) and value == own for own in known))


def finite_array(*dims: int) -> Domain:
    """A numpy array of finite real numbers with one of these numbers of dimensions."""

    def holds(value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.ndim in dims and value.dtype.kind in "fiu" and value.size > 0 \
            and bool(np.isfinite(value).all())  # fmt: skip

    return Domain(f"an array of finite numbers with {' or '.join(map(str, dims))} dimensions", holds)


def _is_device(value: Any) -> bool:
    return isinstance(value, str | torch.device) and torch.empty(1, device=value).device.type != "meta"


def _is_pins(value: Any) -> bool:
    places = isinstance(value, Mapping) and all(PLACE.fits(position) for position in value)
    return places and all(isinstance(token, str) or PLACE.fits(token) for token in value.values())


FLAG = one_of(True, False)
POSITIVE, NOT_NEGATIVE, SHARE = number(0, above=True), number(0), number(0, 1)
COUNT, PLACE = whole(1, 2**31 - 1), whole(0, 2**31 - 1)
SEED = whole(0, 2**32 - 1)
DEVICE = Domain("a device that torch finds here, such as 'cpu' or 'cuda'", _is_device)
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
DTYPE = Domain("torch.float32, torch.bfloat16, torch.float16 or torch.float64", FLOATS.__contains__)
PRECISION = Domain(f"torch.int8, {DTYPE.told}", (torch.int8, *FLOATS).__contains__)
GENERATOR = Domain(
    "a torch.Generator of the CPU, such as torch.Generator().manual_seed(0), or None",
    lambda value: value is None or (isinstance(value, torch.Generator) and value.device.type == "cpu"),
)
ENCODER = Domain(
    "an Encoder or a function from texts to vectors, or None",
    lambda value: value is None or callable(getattr(value, "encode", value)),
)
FUNCTION = Domain("a function", callable)
NAME = Domain(
    "a name or a path",
    lambda value: isinstance(value, str | Path) and 0 < len(str(value)) < 4096 and "\0" not in str(value),
)
PINS = Domain("a dictionary of positions and tokens, such as {0: 'the'}, or None", lambda v: v is None or _is_pins(v))


def within(domain: Domain, **options: Any) -> Any:
    """A dataclass field whose value is checked by `Checked`; options: those of `dataclasses.field`."""
    return field(metadata={"domain": domain}, **options)


class Checked:
    """A dataclass whose fields say `within` what they lie. Raises an `InputError` for a value outside."""

    def __post_init__(self) -> None:
        for own in fields(self):
            if "domain" in own.metadata:
                own.metadata["domain"].check(own.name, getattr(self, own.name))


class Parser(argparse.ArgumentParser):
    """A command line whose integers are counts and whose other numbers are above 0, unless a `Domain` is their type.

    Its mistakes end in one line, like every other one.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.register("type", int, COUNT)
        self.register("type", float, POSITIVE)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help shows what there is")
