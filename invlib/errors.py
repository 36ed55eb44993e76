"""What a user is told when the input is wrong, and how a command ends on it."""

import dataclasses
import difflib
import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


class InputError(ValueError):
    """One line: what was found, what was expected, what to do. Commands print it and exit with status 2."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it: notebooks show no traceback
        return [f"InputError: {self}"]


def first_line(error: BaseException, limit: int = 160) -> str:
    """The first line of what an exception says, or its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:limit]


def command(main: Callable[[Sequence[str] | None], None]) -> Callable[[Sequence[str] | None], int]:
    """`main(arguments)` as a command: its exit status is 0, 2 after one line for an `InputError`, or 130 when stopped.

    A `KeyboardInterrupt` may carry what the same command does when it is called again.
    """

    @functools.wraps(main)
    def ending(arguments: Sequence[str] | None = None) -> int:
        try:
            main(arguments)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stopped:
            print("; ".join(["stopped", *map(str, stopped.args)]), file=sys.stderr)
            return 130
        return 0

    return ending


def require(condition: bool, name: str, domain: str, found: object) -> None:
    """Raise the `InputError` of a value outside its domain."""
    if not condition:
        raise InputError(f"{name} must be {domain}, got {found!r}")


def nearest_name(name: object, known: Iterable[str]) -> str:
    """How an error ends that found an unknown name: with the nearest known one, else with all of them."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def options_of(kinds: Sequence[type], options: Mapping[str, Any]) -> list[Any]:
    """One value of each dataclass from named options. Raises `InputError` that names the nearest for an unknown one."""
    kind_of = {field.name: kind for kind in kinds for field in dataclasses.fields(kind)}
    for name in options:
        if name not in kind_of:
            raise InputError(f"there is no option {name!r}{nearest_name(name, kind_of)}")
    return [kind(**{name: value for name, value in options.items() if kind_of[name] is kind}) for kind in kinds]
