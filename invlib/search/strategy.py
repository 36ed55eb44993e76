"""What every strategy of a search is: a budget, and rounds that improve on what was found."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from invlib.errors import InputError
from invlib.search.target import Target


@runtime_checkable
class Strategy(Protocol):
    """A frozen value; `improve` does one piece of work for every yield, so that whoever iterates may stop."""

    def budget(self, queries: int) -> int: ...

    def improve(self, target: Target) -> Iterator[None]: ...


def require_one(strategy: Any, *names: str) -> None:
    """Raise `InputError` unless these counts of the strategy are 1 or more."""
    for name in names:
        if getattr(strategy, name) < 1:
            raise InputError(f"{name} must be at least 1, got {getattr(strategy, name)}")
