"""Edits: small changes of a text, ranked by what the denoiser thinks of them."""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from invlib.search.ledger import Tokens

LONGEST_MOVE = 6  # tokens that change their place together


@dataclass(frozen=True)
class Edit:
    """Places of a text and what stands there instead: (start, stop, new tokens), in order.

    A place is one token (stop = start + 1) or the gap before it (stop = start), so that edits apart can be joined.
    """

    changes: tuple[tuple[int, int, Tokens], ...]

    @classmethod
    def of(cls, *spans: tuple[int, int, Tokens]) -> "Edit":
        """Spans of any length: the new tokens stand in the place of the first one, the others go."""
        units = [
            (i, min(i + 1, stop), new if i == start else ())
            for start, stop, new in spans
            for i in range(start, max(stop, start + 1))
        ]
        return cls(tuple(sorted(units)))

    @cached_property
    def places(self) -> frozenset[tuple[int, int]]:
        """The tokens and gaps that are changed."""
        return frozenset((start, stop) for start, stop, _ in self.changes)

    def __call__(self, tokens: Tokens) -> Tokens:
        """The text after the edit."""
        text, done = [], 0
        for start, stop, new in self.changes:
            text += [*tokens[done:start], *new]
            done = stop
        return (*text, *tokens[done:])

    def __add__(self, other: "Edit") -> "Edit":
        """Both at once; they must be apart."""
        return Edit(tuple(sorted(self.changes + other.changes)))


def substitutions(instead: Float[Tensor, "length vocab"], tokens: Tokens, top_k: int) -> list[Edit]:
    """Another token at one position, the largest gain in log-probability first; `top_k` a position."""
    gain = instead - instead[:, list(tokens)].diagonal()[:, None]
    return [Edit.of((i, i + 1, (v,))) for i, v in _ranked(gain, top_k) if tokens[i] != v]


def insertions(between: Float[Tensor, "gap vocab"], top_k: int) -> list[Edit]:
    """A token in one gap, the likeliest first; `top_k` a gap."""
    return [Edit.of((gap, gap, (v,))) for gap, v in _ranked(between, top_k)]


def deletions(instead: Float[Tensor, "length vocab"], tokens: Tokens) -> list[Edit]:
    """One token less, the least likely first."""
    return [Edit.of((i, i + 1, ())) for i in instead[:, list(tokens)].diagonal().argsort().tolist()]


def swaps(instead: Float[Tensor, "length vocab"], tokens: Tokens) -> list[Edit]:
    """Two tokens in each other's place, the likeliest first: log p of both there against log p of both here."""
    at = instead[:, list(tokens)]  # [i, j]: log p of token j at position i
    gain = (at + at.T - at.diagonal()[:, None] - at.diagonal()[None]).numpy()
    pairs = [(i, j) for i, j in combinations(range(len(tokens)), 2) if tokens[i] != tokens[j]]
    ranked = sorted(pairs, key=lambda pair: -gain[pair])
    return [Edit.of((i, i + 1, (tokens[j],)), (j, j + 1, (tokens[i],))) for i, j in ranked]


def moves(instead: Float[Tensor, "length vocab"], between: Float[Tensor, "gap some"], tokens: Tokens) -> list[Edit]:
    """Spans in another gap, the likeliest first: log p of their ends there against log p of their ends here."""
    n = len(tokens)
    here = instead[:, list(tokens)].diagonal().numpy()
    there = between[:, list(tokens)].numpy() if len(between) else np.zeros((n + 1, n))
    spans = [(i, j) for i, j in combinations(range(n + 1), 2) if j - i <= LONGEST_MOVE]
    found = [(i, j, gap) for i, j in spans for gap in range(n + 1) if not i <= gap <= j]
    gain = [there[gap, i] + there[gap, j - 1] - here[i] - here[j - 1] for i, j, gap in found]
    ranked: dict[tuple[int, ...], tuple[int, int, int]] = {}
    for k in np.argsort(gain)[::-1]:
        # A span that goes behind its neighbour, or the neighbour in front of it: the same three ends, the same text.
        ranked.setdefault(tuple(sorted(found[k])), found[k])
    return [Edit.of((i, j, ()), (gap, gap, tokens[i:j])) for i, j, gap in ranked.values()]


def _ranked(score: Tensor, top_k: int) -> list[tuple[int, int]]:
    """(row, token) of the top_k tokens of every row, best first over all rows."""
    values, ids = score.topk(min(top_k, score.shape[1]), dim=1)
    order = values.flatten().argsort(descending=True)
    return [(int(k) // ids.shape[1], int(ids.flatten()[k])) for k in order]
