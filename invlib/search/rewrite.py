"""Rewrite: the closest texts written anew by a denoiser that hears how the encoder saw them."""

from collections.abc import Iterator
from dataclasses import dataclass

from invlib.door.options import NOT_NEGATIVE, within
from invlib.errors import InputError
from invlib.search.strategy import COUNT, Strategy
from invlib.search.target import Target

AT_FIRST = 8  # drafts, where there are fewer texts to begin with


@dataclass(frozen=True)
class Rewrite(Strategy):
    """Hypothesis and residual (vec2text, Morris et al. 2023): `each` new texts from each of the `width` closest ones.

    It ends when `patience` rounds have found nothing closer. What it needs is a checkpoint with a corrector; another
    one raises `InputError`.

    max_queries: of the whole inversion, the queries of the strategies before included.
    """

    width: int = within(COUNT, default=4)
    each: int = within(COUNT, default=4)
    max_queries: int = within(COUNT, default=100)
    patience: int = within(COUNT, default=4)
    temperature: float = within(NOT_NEGATIVE, default=0.7)
    order_noise: float = within(NOT_NEGATIVE, default=1.0)

    def budget(self, queries: int) -> int:
        return max(queries, self.max_queries)

    def check(self, target: Target) -> None:
        if not target.corrects:
            raise InputError("this checkpoint has no corrector, which Rewrite needs; search with BestOf and SwapBeam")

    def improve(self, target: Target) -> Iterator[None]:
        """The first round may have to write the texts that it needs."""
        ledger, fruitless, how = target.ledger, 0, (self.temperature, self.order_noise)
        if ledger.queries < AT_FIRST:
            ledger.score((yield from target.draft(AT_FIRST - ledger.queries, *how)))
            yield
        while ledger.left > 0 and ledger.found and fruitless < self.patience:
            (closest, *_), beam = ledger.best(1), ledger.best(self.width)
            ledger.score((yield from target.rewrite([text for text in beam for _ in range(self.each)], *how)))
            fruitless = 0 if ledger.best(1)[0].cosine > closest.cosine else fruitless + 1
            yield
