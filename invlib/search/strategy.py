"""Strategy: a budget, and rounds that improve on what was found; the plainest is BestOf."""

from collections.abc import Iterator
from dataclasses import dataclass

from invlib.door.options import NOT_NEGATIVE, Checked, Domain, whole, within
from invlib.search.target import Target

COUNT = whole(1, 2**20)
AT_ONCE = 16  # drafts: whoever watches sees that it works


class Strategy(Checked):
    """A frozen dataclass whose fields say what they may be. Raises `InputError` for a value outside."""

    def budget(self, queries: int) -> int:
        """How many queries there may be in all after `queries`."""
        raise NotImplementedError

    def check(self, target: Target) -> None:
        """Raise `InputError` where the target lacks what the strategy needs; asked before the first query."""

    def improve(self, target: Target) -> Iterator[None]:
        """One piece of work for every yield, so that whoever iterates may stop."""
        raise NotImplementedError


@dataclass(frozen=True)
class BestOf(Strategy):
    """Re-encode n drafts, those that there are and new ones of random lengths and orders; the closest one stays.

    Drafts that come out alike are encoded once, so that short texts may cost fewer than n queries.
    """

    n: int = within(COUNT, default=32)
    temperature: float = within(NOT_NEGATIVE, default=0.7)
    order_noise: float = within(NOT_NEGATIVE, default=1.0)

    def budget(self, queries: int) -> int:
        return max(queries, self.n)

    def improve(self, target: Target) -> Iterator[None]:
        for first in range(target.ledger.queries, self.n, AT_ONCE):
            drafts = yield from target.draft(min(AT_ONCE, self.n - first), self.temperature, self.order_noise)
            target.ledger.score(drafts)
            yield


STRATEGIES = Domain(
    "strategies of invlib.search, such as (BestOf(32), SwapBeam())",
    lambda value: isinstance(value, Strategy) or all(isinstance(own, Strategy) for own in value),
)
