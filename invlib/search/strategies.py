"""The encoder in the loop: drafts are re-encoded, compared with the vector and mended.

Three strategies that compose, `search=(BestOf(32), Remask(2), SwapBeam(8))`: each takes over what the ones before it
found. All go through one `Target`, which encodes no text twice and never asks more often than it may.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from invlib.errors import InputError
from invlib.masking import subs_logits
from invlib.sampler import Predict, denoise, leave_one_out
from invlib.trajectory import Step

Encode = Callable[[list[str]], np.ndarray]
Watch = Callable[["Step | Found | None"], None]
Tokens = tuple[int, ...]
# New contents of some slots of a text of n tokens: slot 2i + 1 is token i, slot 2i the gap before it.
Edit = dict[int, Tokens]
DRAFT_STEPS = 8
REFILL_STEPS = 4
MAX_COMBINED = 6  # edits that are tried together
PASSES = 2  # of combinations after the single edits: the second one builds on what the first one measured
LONGEST_MOVE = 6  # tokens that change their place together
OVERSHOOT = 0.5  # how far beyond the vector the denoiser listens, seen from the text that is to be edited


class Target:
    """One vector, the denoiser that listens to it, and all texts that were encoded on the way to it.

    denoiser: lengths of a batch and a vector → the `Predict` for it, under that vector's modulation in every row.
    encode: texts → vectors [n, embed_dim]; an `Encoder.encode` or any function, such as a remote service.
    pinned: {position: token id} that every text must have.
    watch: called with None before every batch of texts and after every step of a refill; what it raises ends the work.

    `max_queries`: how many texts may be encoded; `stop_cosine`: a text this close is taken to be the text.
    """

    def __init__(
        self,
        vector: Float[np.ndarray, "embed"],
        denoiser: Callable[[Tensor, np.ndarray], Predict],
        decode: Callable[[Sequence[int]], str],
        encode: Encode,
        *,
        mask_token_id: int,
        length_probs: Float[np.ndarray, "max_length"],
        pinned: Mapping[int, int],
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        watch: Watch | None = None,
    ):
        self.vector, self.denoiser, self.decode, self.encode = vector, denoiser, decode, encode
        self.mask_token_id, self.pinned, self.device = mask_token_id, pinned, torch.device(device)
        self.length_probs, self.max_length = length_probs, len(length_probs)
        self.generator, self.watch = generator, watch or (lambda _: None)
        self.random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        self.max_queries, self.stop_cosine = 0, 1 - 1e-4
        self.model_calls = 0
        self.found: dict[str, Found] = {}
        self.error: str | None = None  # what the encoder did wrong; the search ends there

    @property
    def queries(self) -> int:
        """Texts encoded so far."""
        return len(self.found)

    @property
    def left(self) -> int:
        """Texts that may still be encoded; none after an error or when the text is found."""
        is_over = self.error or (self.found and self.best(1)[0].cosine >= self.stop_cosine)
        return 0 if is_over else self.max_queries - self.queries

    def best(self, count: int) -> list["Found"]:
        """The closest texts so far, best first."""
        return sorted(self.found.values(), key=lambda found: -found.cosine)[:count]

    def score(self, candidates: Iterable[Tokens]) -> list["Found | None"]:
        """Encode what is new among the candidates, as far as the budget goes; None where it did not."""
        candidates = [tokens if self._is_allowed(tokens) else () for tokens in candidates]
        texts = [self.decode(tokens) for tokens in candidates]
        new = {text: tokens for text, tokens in zip(texts, candidates, strict=True) if text.strip()}
        asked = [text for text in new if text not in self.found][: max(0, self.left)]
        for text, vector in zip(asked, self._encoded(asked), strict=False):  # nothing came back after an error
            self.found[text] = Found(text, new[text], vector, float(vector @ self.vector))
        return [self.found.get(text) for text in texts]

    def draft(self, count: int, temperature: float, order_noise: float) -> list[Tokens]:
        """Fresh drafts that differ in length, order and words."""
        lengths = self.random.choice(self.max_length, count, p=self.length_probs / self.length_probs.sum()) + 1
        return self.refill([(self.mask_token_id,) * int(n) for n in lengths], temperature, order_noise, DRAFT_STEPS)

    def refill(
        self, starts: Sequence[Tokens], temperature: float, order_noise: float, num_steps: int = REFILL_STEPS
    ) -> list[Tokens]:
        """The starts with their masks filled by the denoiser; those without a mask stay as they are."""
        starts = [tuple(self.pinned.get(i, token) for i, token in enumerate(start)) for start in starts]
        open_starts = [start for start in starts if self.mask_token_id in start]
        if not open_starts:
            return starts
        lengths = torch.tensor([len(start) for start in open_starts], device=self.device)
        steps = denoise(
            self.denoiser(lengths, self.vector),
            lengths,
            mask_token_id=self.mask_token_id,
            num_steps=num_steps,
            temperature=temperature,
            order_noise=order_noise,
            start=_padded(open_starts, self.device),
            top_k=0,
            generator=self.generator,
        )
        for step in steps:
            self.watch(None)
            last = step
        self.model_calls += int(last.model_calls.sum())
        filled = iter([tuple(row[:n].tolist()) for row, n in zip(last.tokens, lengths, strict=True)])
        return [next(filled) if self.mask_token_id in start else start for start in starts]

    def beyond(self, text: "Found") -> Float[np.ndarray, "embed"]:
        """The vector, moved on in the direction from the text's own to it: what the text lacks stands out there."""
        ahead = self.vector + OVERSHOOT * (self.vector - text.vector)
        return ahead / np.linalg.norm(ahead)

    def is_new(self, tokens: Tokens) -> bool:
        """Whether the text was not encoded yet."""
        return self.decode(tokens) not in self.found

    def alternatives(self, tokens: Tokens, toward: np.ndarray) -> Float[Tensor, "length vocab"]:
        """log p(. | all other tokens) at every position, under the modulation of the vector `toward`."""
        grid = torch.tensor([tokens], device=self.device)
        self.model_calls += len(tokens)
        predict = self.denoiser(torch.tensor([len(tokens)], device=self.device), toward)
        return leave_one_out(predict, grid, torch.ones_like(grid, dtype=torch.bool), self.mask_token_id).cpu()

    def insertions(self, tokens: Tokens, toward: np.ndarray) -> Float[Tensor, "gap vocab"]:
        """log p(. | all tokens) of a new token in every gap, the one before the first token first."""
        rows = [(*tokens[:gap], self.mask_token_id, *tokens[gap:]) for gap in range(len(tokens) + 1)]
        if len(rows) > self.max_length:  # the text is as long as it may be: no gap takes a token
            return torch.empty(0, 0)
        grid = torch.tensor(rows, device=self.device)
        self.model_calls += len(rows)
        predict = self.denoiser(torch.full((len(rows),), len(rows), device=self.device), toward)
        with torch.no_grad():
            logits = predict(grid, torch.arange(len(rows), device=self.device), grid == self.mask_token_id)
        return subs_logits(logits.float(), self.mask_token_id).log_softmax(dim=-1).cpu()

    def _is_allowed(self, tokens: Tokens) -> bool:
        fits = 0 < len(tokens) <= self.max_length and self.mask_token_id not in tokens
        return fits and all(i < len(tokens) and tokens[i] == token for i, token in self.pinned.items())

    def _encoded(self, texts: list[str]) -> np.ndarray:
        if not texts:
            return np.empty((0, len(self.vector)))
        self.watch(None)
        try:
            vectors = np.asarray(self.encode(texts), dtype=np.float32)
        except Exception as error:  # whatever a service raises: what was found so far must not be lost
            self.error = f"the encoder failed after {self.queries} queries ({type(error).__name__}: {error})"
            return np.empty((0, len(self.vector)))
        if vectors.shape[1:] != self.vector.shape and not self.found:
            raise InputError(
                f"the encoder gives vectors of shape {vectors.shape[1:]}, the one to invert has {self.vector.shape}; "
                "search with the encoder that made it"
            )
        if vectors.shape != (len(texts), len(self.vector)):
            self.error = f"the encoder gave {vectors.shape} for {len(texts)} texts of {len(self.vector)} dimensions"
        elif not np.isfinite(vectors).all() or not np.linalg.norm(vectors, axis=1).all():
            self.error = f"the encoder gave NaN, infinite or zero vectors after {self.queries} queries"
        if self.error:
            return np.empty((0, len(self.vector)))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True)
class Found:
    """A text that was encoded, its tokens, its vector (unit length) and the cosine to the target."""

    text: str
    tokens: Tokens
    vector: np.ndarray = field(repr=False)
    cosine: float


@dataclass(frozen=True)
class BestOf:
    """Re-encode n drafts, those that there are and new ones of random lengths and orders; the closest one stays.

    Drafts that come out alike are encoded once, so that short texts may cost fewer than n queries.
    """

    n: int = 32
    temperature: float = 0.7
    order_noise: float = 1.0

    def __post_init__(self) -> None:
        _require_one("n", self.n)

    def budget(self, queries: int) -> int:
        """How many queries there may be in all after `queries`."""
        return max(queries, self.n)

    def improve(self, target: Target) -> Iterator[None]:
        """One round."""
        missing = self.n - target.queries
        if missing > 0:
            target.score(target.draft(missing, self.temperature, self.order_noise))
        yield


@dataclass(frozen=True)
class Remask:
    """Leave-one-out cosines say which tokens hurt; those and a few at random are masked again and refilled."""

    rounds: int = 4
    share: float = 0.3
    refills: int = 16
    temperature: float = 0.7

    def __post_init__(self) -> None:
        _require_one("rounds", self.rounds)
        _require_one("refills", self.refills)

    def budget(self, queries: int) -> int:
        """How many queries there may be in all after `queries`: a text without each token, and the refills."""
        return queries + self.rounds * (self.refills + 32)

    def improve(self, target: Target) -> Iterator[None]:
        """One round for every yield; a refill that is further away than the best so far is forgotten."""
        for _ in range(self.rounds):
            if not target.found or target.left <= 0:
                return
            best = target.best(1)[0]
            without = target.score(best.tokens[:i] + best.tokens[i + 1 :] for i in range(len(best.tokens)))
            harm = np.array([-np.inf if found is None else found.cosine for found in without])
            count = max(1, round(self.share * len(best.tokens)))
            starts = []
            for _ in range(self.refills):
                # Gumbel-top-k: the most harmful mostly, others sometimes.
                order = np.argsort(-(harm / 0.02 + target.random.gumbel(size=len(harm))))
                masked = set(order[:count].tolist())
                starts.append(tuple(target.mask_token_id if i in masked else t for i, t in enumerate(best.tokens)))
            target.score(target.refill(starts, self.temperature, 1.0))
            yield


@dataclass
class Attempts:
    """A text of the beam, the edits of it that wait, and what the measured ones did to its vector."""

    text: Found
    waiting: list[Edit]
    edits: list[Edit] = field(default_factory=list)
    changes: list[np.ndarray] = field(default_factory=list)  # one for every edit: vector after - vector before
    rounds: int = 0

    def measure(self, target: Target, edits: Sequence[Edit]) -> None:
        """Encode what the edits make of the text."""
        results = target.score(_apply(self.text.tokens, edit) for edit in edits)
        for edit, result in zip(edits, results, strict=True):
            if result is not None and edit not in self.edits:
                self.edits.append(edit)
                self.changes.append(result.vector - self.text.vector)


@dataclass(frozen=True)
class SwapBeam:
    """Edits of the closest texts, scored by the encoder in batches; a beam of `width` survives.

    The denoiser proposes tokens for every position and every gap; deletions, swaps and moves come without it. Since
    mean-pooled vectors are nearly additive, the changes that single edits made to the vector predict what several
    of them make together: the best predicted combinations are encoded, too.

    max_queries: of the whole inversion, the queries of the strategies before included.
    """

    width: int = 4
    max_queries: int = 3000
    stop_cosine: float = 1 - 1e-4
    breadth: int = 96  # single edits that are encoded at once
    top_k: int = 24  # proposals per position and per gap

    def __post_init__(self) -> None:
        for name in ("width", "max_queries", "breadth", "top_k"):
            _require_one(name, getattr(self, name))

    def budget(self, queries: int) -> int:
        """How many queries there may be in all."""
        return self.max_queries

    def improve(self, target: Target) -> Iterator[None]:
        """One text of the beam is edited for every yield."""
        target.stop_cosine = self.stop_cosine
        attempts: dict[str, Attempts] = {}
        width = self.width
        while target.left > 0 and width <= self.width + target.queries:
            before = target.queries
            # The text of the beam that was worked on least; the closest of those.
            text = min(target.best(width), key=lambda found: (_rounds(attempts.get(found.text)), -found.cosine))
            if text.text not in attempts:
                attempts[text.text] = Attempts(text, list(self._edits(target, text)))
            current = attempts[text.text]
            current.rounds += 1
            edits, current.waiting = current.waiting[: self.breadth], current.waiting[self.breadth :]
            current.measure(target, edits or self._rewritten_spans(target, text.tokens))
            for _ in range(PASSES):
                current.measure(target, _combined(target, current))
            if target.queries - before < max(1, self.breadth // 8):  # all that is near was encoded: look further away
                width += 1
            yield

    def _edits(self, target: Target, text: Found) -> Iterator[Edit]:
        """Single edits, the most promising of every kind first, the kinds interleaved."""
        tokens, toward = text.tokens, target.beyond(text)
        instead, between = target.alternatives(tokens, toward), target.insertions(tokens, toward)
        here = instead.gather(1, torch.tensor(tokens)[:, None])
        substitutions = self._ranked(instead - here, tokens, lambda i, v: {2 * i + 1: (v,)})
        insertions = self._ranked(between, None, lambda gap, v: {2 * gap: (v,)})
        deletions = [{2 * int(i) + 1: ()} for i in here[:, 0].argsort()]
        swaps, moves = _swaps(tokens, instead), _moves(tokens, instead, between)
        return _interleaved([substitutions, insertions, deletions, swaps, moves], (8, 3, 3, 5, 4))

    def _ranked(self, score: Tensor, tokens: Tokens | None, edit_of: Callable[[int, int], Edit]) -> list[Edit]:
        """The top_k tokens of every row, best first over all rows; a token is no edit of itself."""
        values, ids = score.topk(min(self.top_k, score.shape[1]), dim=1)
        order = values.flatten().argsort(descending=True)
        places = [(int(k) // ids.shape[1], int(ids.flatten()[k])) for k in order]
        return [edit_of(i, v) for i, v in places if tokens is None or tokens[i] != v]

    def _rewritten_spans(self, target: Target, tokens: Tokens) -> list[Edit]:
        """Random spans written anew by the denoiser, for a text whose single edits are all tried."""
        spans, starts = [], []
        for _ in range(self.breadth // 2):
            length = int(target.random.integers(1, max(2, len(tokens) // 2 + 1)))
            first = int(target.random.integers(0, len(tokens) - length + 1))
            size = max(1, length + int(target.random.integers(-1, 2)))
            size = min(size, target.max_length - len(tokens) + length)
            spans.append((first, length, size))
            starts.append(tokens[:first] + (target.mask_token_id,) * size + tokens[first + length :])
        return [
            {**{2 * i + 1: () for i in range(first, first + length)}, 2 * first + 1: new[first : first + size]}
            for (first, length, size), new in zip(spans, target.refill(starts, 1.0, 1.0), strict=True)
        ]


Strategy = BestOf | Remask | SwapBeam


def improve(target: Target, strategies: Sequence[Strategy], drafts: Sequence[Tokens]) -> Iterator[Found]:
    """Encode the drafts, run the strategies one after the other; yields the best text so far after every round."""
    for number, strategy in enumerate(strategies):
        target.max_queries = strategy.budget(target.queries)
        if number == 0:
            target.score(drafts)
        for _ in strategy.improve(target):
            if target.found:
                yield target.best(1)[0]
            if target.left <= 0:
                break


def _apply(tokens: Tokens, edit: Edit) -> Tokens:
    """The tokens with the edited slots exchanged."""
    slots = [edit.get(slot, (tokens[slot // 2],) if slot % 2 else ()) for slot in range(2 * len(tokens) + 1)]
    return tuple(token for slot in slots for token in slot)


def _swaps(tokens: Tokens, instead: Tensor) -> list[Edit]:
    """Two tokens in each other's place, the likeliest first: log p of both there against log p of both here."""
    n = len(tokens)
    at = instead[:, list(tokens)]  # [i, j]: log p of token j at position i
    gain = (at + at.T - at.diagonal()[:, None] - at.diagonal()[None]).numpy()
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if tokens[i] != tokens[j]]
    return [{2 * i + 1: (tokens[j],), 2 * j + 1: (tokens[i],)} for i, j in sorted(pairs, key=lambda pair: -gain[pair])]


def _moves(tokens: Tokens, instead: Tensor, between: Tensor) -> list[Edit]:
    """Spans in another gap, the likeliest first: log p of their ends there against log p of their ends here."""
    n = len(tokens)
    here = instead[:, list(tokens)].diagonal().numpy()
    there = between[:, list(tokens)].numpy() if len(between) else np.zeros((n + 1, n))
    moves = [
        (i, j, gap)
        for i in range(n)
        for j in range(i + 1, min(n, i + LONGEST_MOVE) + 1)
        for gap in range(n + 1)
        if not i <= gap <= j
    ]
    gain = [there[gap, i] + there[gap, j - 1] - here[i] - here[j - 1] for i, j, gap in moves]
    ranked: dict[tuple[int, ...], tuple[int, int, int]] = {}
    for k in np.argsort(gain)[::-1]:
        # A span that goes behind its neighbour, or the neighbour in front of it: the same three ends, the same text.
        ranked.setdefault(tuple(sorted(moves[k])), moves[k])
    return [{**{2 * k + 1: () for k in range(i, j)}, 2 * gap: tokens[i:j]} for i, j, gap in ranked.values()]


def _combined(target: Target, current: Attempts, count: int = 32) -> list[Edit]:
    """Compatible edits that should come closest together, by adding up what each did to the vector alone."""
    if not current.edits:
        return []
    edits, vector, change = current.edits, target.vector, np.stack(current.changes)
    alone = _cosine(current.text.vector + change, vector)
    combinations: dict[frozenset[int], float] = {}
    for first in np.argsort(-alone)[: count // 2]:
        chosen, total, closest = [int(first)], current.text.vector + change[first], alone[first]
        combinations[frozenset(chosen)] = float(closest)
        while len(chosen) < MAX_COMBINED:
            taken = {slot for k in chosen for slot in edits[k]}
            free = np.array([taken.isdisjoint(edit) for edit in edits])
            cosine = np.where(free, _cosine(total + change, vector), -1)
            best = int(cosine.argmax())
            if cosine[best] <= closest:
                break
            chosen, total, closest = [*chosen, best], total + change[best], cosine[best]
            combinations[frozenset(chosen)] = float(closest)
    ranked = sorted(combinations, key=lambda chosen: -combinations[chosen])
    together = ({slot: new for k in chosen for slot, new in edits[k].items()} for chosen in ranked)
    new = (edit for edit in together if target.is_new(_apply(current.text.tokens, edit)))
    return list(itertools.islice(new, count))


def _cosine(vectors: np.ndarray, target: np.ndarray) -> np.ndarray:
    return vectors @ target / np.linalg.norm(vectors, axis=-1)


def _rounds(attempts: Attempts | None) -> int:
    return 0 if attempts is None else attempts.rounds


def _interleaved(kinds: Sequence[Sequence[Edit]], shares: Sequence[int]) -> Iterator[Edit]:
    """`shares[k]` edits of kind k in every round, until all are used up."""
    queues = [list(reversed(kind)) for kind in kinds]
    while any(queues):
        for queue, share in zip(queues, shares, strict=True):
            for _ in range(min(share, len(queue))):
                yield queue.pop()


def _padded(rows: Sequence[Tokens], device: torch.device) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)


def _require_one(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")
