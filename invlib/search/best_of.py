"""BestOf: many drafts, the closest one stays."""

from collections.abc import Iterator
from dataclasses import dataclass

from invlib.search.strategy import require_one
from invlib.search.target import Target


@dataclass(frozen=True)
class BestOf:
    """Re-encode n drafts, those that there are and new ones of random lengths and orders; the closest one stays.

    Drafts that come out alike are encoded once, so that short texts may cost fewer than n queries.
    """

    n: int = 32
    temperature: float = 0.7
    order_noise: float = 1.0

    def __post_init__(self) -> None:
        require_one(self, "n")

    def budget(self, queries: int) -> int:
        """How many queries there may be in all after `queries`."""
        return max(queries, self.n)

    def improve(self, target: Target) -> Iterator[None]:
        """One round."""
        missing = self.n - target.ledger.queries
        if missing > 0:
            target.ledger.score(target.draft(missing, self.temperature, self.order_noise))
        yield
