"""The encoder in the loop: drafts are re-encoded, compared with the vector and mended.

Three strategies that compose, `search=(BestOf(16), Rewrite(), SwapBeam())`: each takes over what the one before found.
All go through one `Ledger`, which encodes no text twice and never asks more often than it may.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tqdm.auto import tqdm

from invlib.search.ledger import Encode, Found, Ledger, Tokens
from invlib.search.rewrite import Rewrite
from invlib.search.strategy import STRATEGIES, BestOf, Strategy
from invlib.search.swap_beam import SwapBeam
from invlib.search.target import Target

FEWEST = 16  # queries; so many go to drafts first
DRAFTS = 32  # where nothing rewrites them
REWRITTEN = 100  # queries, from which on edits find more

__all__ = ["STRATEGIES", "BestOf", "Encode", "Ledger", "Rewrite", "Strategy", "SwapBeam", "Target"]
__all__ += ["closest", "improve", "search_all", "standard"]


def standard(queries: int, corrects: bool) -> tuple[Strategy, ...]:
    """What finds most within so many queries: drafts, rewritten where a checkpoint `corrects`, then edits."""
    drafts = FEWEST if corrects else DRAFTS
    if queries <= drafts:
        return (BestOf(queries),)
    rewritten = (Rewrite(max_queries=min(REWRITTEN, queries)),) if corrects else ()
    edited = (SwapBeam(max_queries=queries),) if queries > REWRITTEN or not corrects else ()
    return (BestOf(drafts), *rewritten, *edited)


def improve(target: Target, strategies: Sequence[Strategy], drafts: Sequence[Tokens]) -> Iterator[Found]:
    """Encode the drafts, run the strategies one after the other; yields the best text so far after every piece of work.

    The first draft goes alone: where it is the text, that is the only query. Whoever iterates may stop at any yield:
    what was found stays in `target.ledger`.
    """
    ledger = target.ledger
    for strategy in strategies:
        strategy.check(target)
    for number, strategy in enumerate(strategies):
        ledger.max_queries = strategy.budget(ledger.queries)
        if number == 0:
            ledger.score(drafts[:1])
            ledger.score(drafts[1:])
            yield from ledger.best(1)
        if ledger.left <= 0:
            continue
        for _ in strategy.improve(target):
            yield from ledger.best(1)
            if ledger.left <= 0:
                break


def search_all(
    targets: Iterable[Target], strategies: Strategy | Sequence[Strategy], drafts: Sequence[Sequence[Tokens]]
) -> list[tuple[Target, str | None]]:
    """Search for one vector after the other; with each target comes what ended its search before its time.

    Stopped (Ctrl-C), it returns the targets so far, with what was found for them.
    """
    strategies = [strategies] if isinstance(strategies, Strategy) else list(strategies)
    done = []
    with tqdm(total=len(drafts), desc="search", unit=" vectors") as bar:
        for target, own in zip(targets, drafts, strict=True):
            ledger = target.ledger
            try:
                for best in improve(target, strategies, own):
                    bar.set_postfix_str(f"{ledger.queries} queries, cosine {best.cosine:.3f}: {best.text[:60]}")
            except KeyboardInterrupt:
                return [*done, (target, "the search was stopped")]
            done.append((target, ledger.error))
            bar.update()
    return done


def closest(done: Sequence[tuple[Target, str | None]], texts: Sequence[str], model_calls: np.ndarray) -> dict:
    """Of `search_all`: the closest text for every vector, its cosine, what it cost, and what ended the search.

    texts, model_calls: of the drafts, [n]; they stay for vectors that a stopped search did not reach.
    """
    texts, calls = list(texts), model_calls.copy()
    cosines, queries = np.full(len(texts), np.nan), np.zeros(len(texts), int)
    errors: list[str | None] = ["the search was stopped before it began"] * len(texts)
    for row, (target, error) in enumerate(done):
        for best in target.ledger.best(1):
            texts[row], cosines[row] = best.text, best.cosine
        queries[row], errors[row] = target.ledger.queries, error
        calls[row] += target.model_calls
    return {"texts": texts, "cosines": cosines, "model_calls": calls, "encoder_queries": queries, "errors": errors}
