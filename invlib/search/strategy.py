"""Strategy: a budget, and rounds that improve on what was found; the plainest is BestOf."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from invlib.errors import InputError
from invlib.search.target import Target


class Strategy:
    """A frozen dataclass, whose whole numbers are counts. Raises `InputError` for a count below 1."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type is int and getattr(self, field.name) < 1:
                raise InputError(f"{field.name} must be at least 1, got {getattr(self, field.name)}")

    def budget(self, queries: int) -> int:
        """How many queries there may be in all after `queries`."""
        raise NotImplementedError

    def improve(self, target: Target) -> Iterator[None]:
        """One piece of work for every yield, so that whoever iterates may stop."""
        raise NotImplementedError


@dataclass(frozen=True)
class BestOf(Strategy):
    """Re-encode n drafts, those that there are and new ones of random lengths and orders; the closest one stays.

    Drafts that come out alike are encoded once, so that short texts may cost fewer than n queries.
    """

    n: int = 32
    temperature: float = 0.7
    order_noise: float = 1.0

    def budget(self, queries: int) -> int:
        return max(queries, self.n)

    def improve(self, target: Target) -> Iterator[None]:
        missing = self.n - target.ledger.queries
        if missing > 0:
            target.ledger.score(target.draft(missing, self.temperature, self.order_noise))
        yield
