"""Remask: what hurts is masked again and refilled."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from invlib.door.options import NOT_NEGATIVE, SHARE, within
from invlib.search.ledger import Found, Tokens
from invlib.search.strategy import COUNT, Strategy
from invlib.search.target import Target


@dataclass(frozen=True)
class Remask(Strategy):
    """Leave-one-out cosines say which tokens hurt; those and a few at random are masked again and refilled."""

    rounds: int = within(COUNT, default=4)
    share: float = within(SHARE, default=0.3)
    refills: int = within(COUNT, default=16)
    temperature: float = within(NOT_NEGATIVE, default=0.7)

    def budget(self, queries: int) -> int:
        return queries + self.rounds * (self.refills + 32)  # the refills, and a text without each token

    def improve(self, target: Target) -> Iterator[None]:
        """One round for every yield; a refill that is further away than the best so far is forgotten."""
        ledger = target.ledger
        for _ in range(self.rounds):
            if not ledger.found or ledger.left <= 0:
                return
            best = ledger.best(1)[0]
            without = ledger.score(best.tokens[:i] + best.tokens[i + 1 :] for i in range(len(best.tokens)))
            ledger.score(target.refill(self._starts(target, best.tokens, without), self.temperature, 1.0))
            yield

    def _starts(self, target: Target, tokens: Tokens, without: list[Found | None]) -> list[Tokens]:
        """The text with `share` of its tokens masked, `refills` times: the most harmful mostly, others sometimes."""
        harm = np.array([-np.inf if found is None else found.cosine for found in without])
        count, starts = max(1, round(self.share * len(tokens))), []
        for _ in range(self.refills):
            order = np.argsort(-(harm / 0.02 + target.random.gumbel(size=len(harm))))  # Gumbel-top-k
            masked = set(order[:count].tolist())
            starts.append(tuple(target.mask_token_id if i in masked else t for i, t in enumerate(tokens)))
        return starts
