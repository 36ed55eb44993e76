"""SwapBeam: edits of the closest texts, alone and combined."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from invlib.door.options import within
from invlib.search import edits
from invlib.search.edits import Edit
from invlib.search.ledger import Found, Ledger, Tokens
from invlib.search.strategy import COUNT, Strategy
from invlib.search.target import Target

MAX_COMBINED = 6  # edits that are tried together
PASSES = 2  # of combinations after the single edits: the second one builds on what the first one measured
COMBINATIONS = 32  # encoded in one pass


@dataclass(frozen=True)
class SwapBeam(Strategy):
    """Edits of the closest texts, scored by the encoder in batches; a beam of `width` survives.

    The denoiser proposes tokens for every position and every gap; deletions, swaps and moves come without it. Since
    mean-pooled vectors are nearly additive, the changes that single edits made to the vector predict what several
    of them make together: the best predicted combinations are encoded, too.

    max_queries: of the whole inversion, the queries of the strategies before included.
    """

    width: int = within(COUNT, default=4)
    max_queries: int = within(COUNT, default=3000)
    breadth: int = within(COUNT, default=96)  # single edits that are encoded at once
    top_k: int = within(COUNT, default=24)  # proposals per position and per gap

    def budget(self, queries: int) -> int:
        return self.max_queries

    def improve(self, target: Target) -> Iterator[None]:
        """The least tried text of the beam is edited in every round: its single edits, then their combinations."""
        ledger, attempts, width = target.ledger, {}, self.width
        while ledger.left > 0 and width <= self.width + ledger.queries:
            before = ledger.queries
            beam = [attempts.setdefault(found.text, Attempts(found)) for found in ledger.best(width)]
            current = min(beam, key=lambda attempt: (attempt.rounds, -attempt.text.cosine))
            if current.waiting is None:
                current.waiting = self._edits(target, current.text)
                yield  # whoever stops waits for the denoiser or for the encoder, not for both
            current.rounds += 1
            new, current.waiting = current.waiting[: self.breadth], current.waiting[self.breadth :]
            new = new or (yield from self._rewritten_spans(target, current.text.tokens))
            current.measure(ledger, new)
            yield
            for _ in range(PASSES):
                current.measure(ledger, current.combinations(ledger))
                yield
            if ledger.queries - before < max(1, self.breadth // 8):  # all that is near was encoded: look further away
                width += 1

    def _edits(self, target: Target, text: Found) -> list[Edit]:
        """Single edits, the most promising of every kind first: in every round the share of its kind."""
        tokens, toward = text.tokens, target.beyond(text)
        instead, between = target.alternatives(tokens, toward), target.insertions(tokens, toward)
        kinds = (
            (8, edits.substitutions(instead, tokens, self.top_k)),
            (3, edits.insertions(between, self.top_k)),
            (3, edits.deletions(instead, tokens)),
            (5, edits.swaps(instead, tokens)),
            (4, edits.moves(instead, between, tokens)),
        )
        rounds = [(place // share, edit) for share, kind in kinds for place, edit in enumerate(kind)]
        return [edit for _, edit in sorted(rounds, key=lambda item: item[0])]

    def _rewritten_spans(self, target: Target, tokens: Tokens) -> Generator[None, None, list[Edit]]:
        """Random spans written anew by the denoiser, for a text whose single edits are all tried."""
        spans, starts = [], []
        for _ in range(self.breadth // 2):
            length = int(target.random.integers(1, max(2, len(tokens) // 2 + 1)))
            first = int(target.random.integers(0, len(tokens) - length + 1))
            room = len(target.length_probs) - len(tokens) + length
            size = min(max(1, length + int(target.random.integers(-1, 2))), room)
            spans.append((first, length, size))
            starts.append(tokens[:first] + (target.mask_token_id,) * size + tokens[first + length :])
        filled = yield from target.refill(starts, 1.0, 1.0)
        return [
            Edit.of((first, first + length, new[first : first + size]))
            for (first, length, size), new in zip(spans, filled, strict=True)
        ]


@dataclass
class Attempts:
    """A text of the beam, the edits of it that wait, and what the measured ones did to its vector."""

    text: Found
    waiting: list[Edit] | None = None
    changes: dict[Edit, np.ndarray] = field(default_factory=dict)  # vector after - vector before
    rounds: int = 0

    def measure(self, ledger: Ledger, new: Sequence[Edit]) -> None:
        """Encode what the edits make of the text."""
        results = ledger.score(edit(self.text.tokens) for edit in new)
        for edit, result in zip(new, results, strict=True):
            if result is not None:
                self.changes.setdefault(edit, result.vector - self.text.vector)

    def combinations(self, ledger: Ledger) -> list[Edit]:
        """Edits that are apart and should come closest together, by adding up what each did to the vector alone."""
        if not self.changes:
            return []
        edits, change, combined = list(self.changes), np.stack(list(self.changes.values())), {}
        alone = _cosine(self.text.vector + change, ledger.vector)
        for first in np.argsort(-alone)[: COMBINATIONS // 2]:
            chosen, total, closest = [int(first)], self.text.vector + change[first], alone[first]
            combined[frozenset(chosen)] = float(closest)
            while len(chosen) < MAX_COMBINED:
                taken = frozenset().union(*(edits[k].places for k in chosen))
                free = [taken.isdisjoint(edit.places) for edit in edits]
                cosine = np.where(free, _cosine(total + change, ledger.vector), -1)
                best = int(cosine.argmax())
                if cosine[best] <= closest:
                    break
                chosen, total, closest = [*chosen, best], total + change[best], cosine[best]
                combined[frozenset(chosen)] = float(closest)
        ranked = sorted(combined, key=lambda chosen: -combined[chosen])
        together = (sum((edits[k] for k in chosen), Edit(())) for chosen in ranked)
        new = (edit for edit in together if ledger.decode(edit(self.text.tokens)) not in ledger.found)
        return list(itertools.islice(new, COMBINATIONS))


def _cosine(vectors: np.ndarray, target: np.ndarray) -> np.ndarray:
    return vectors @ target / np.linalg.norm(vectors, axis=-1)
