"""What a user is told when the input is wrong, and how a command ends on it."""

import dataclasses
import difflib
import errno
import functools
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

LONGEST = 300  # characters of an error: what is longer quotes a stranger's file
ANSI = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]")  # sequences that a terminal obeys
SURROGATES = re.compile("[\ud800-\udfff]")
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxdict = 2, 80, 80, 6


class InputError(ValueError):
    """One line: what was found, what was expected, what to do. Commands print it and exit with status 2."""

    def __init__(self, told: object = ""):
        printable = (character if character.isprintable() else " " for character in ANSI.sub("", str(told)))
        line = " ".join("".join(printable).split())
        super().__init__(line if len(line) <= LONGEST else f"{line[:180]} … {line[183 - LONGEST :]}")

    def _render_traceback_(self) -> list[str]:  # IPython asks for it: notebooks show no traceback
        return [f"InputError: {self}"]


def first_line(error: BaseException, limit: int = 160) -> str:
    """The first line of what an exception says, or its class where it says nothing."""
    return (str(getattr(error, "strerror", None) or error).strip() or type(error).__name__).splitlines()[0][:limit]


def shown(value: object) -> str:
    """A value as an error quotes it: short, whatever it holds."""
    try:
        return _REPR.repr(value)
    except Exception:  # an integer of too many digits, an object that cannot be shown
        return f"a {type(value).__name__}"


def is_full(error: BaseException) -> bool:
    """Does an exception say that the disk is full? Libraries in C++ and Rust say it in words of their own."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


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
        except OSError as error:  # of a file that no reader and no writer of ours guards, such as the terminal's own
            print(f"error: {InputError('the disk is full' if is_full(error) else first_line(error))}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stopped:
            print("; ".join(["stopped", *map(str, stopped.args)]), file=sys.stderr)
            return 130
        return 0

    return ending


def require(condition: bool, name: str, domain: str, found: object) -> None:
    """Raise the `InputError` of a value outside its domain."""
    if not condition:
        raise InputError(f"{name} must be {domain}, got {shown(found)}")


def nearest_name(name: object, known: Iterable[str]) -> str:
    """How an error ends that found an unknown name: with the nearest known one, else with all of them."""
    close = difflib.get_close_matches(str(name)[:LONGEST], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def options_of(kinds: Sequence[type], options: Mapping[str, Any]) -> list[Any]:
    """One value of each dataclass from named options. Raises `InputError` that names the nearest for an unknown one."""
    kind_of = {field.name: kind for kind in kinds for field in dataclasses.fields(kind)}
    for name in options:
        if name not in kind_of:
            raise InputError(f"there is no option {name!r}{nearest_name(name, kind_of)}")
    return [kind(**{name: value for name, value in options.items() if kind_of[name] is kind}) for kind in kinds]
