"""The encoder in the loop: drafts are re-encoded, compared with the vector and mended.

Three strategies that compose, `search=(BestOf(32), Remask(2), SwapBeam(8))`: each takes over what the ones before it
found. All go through one `Target`, which encodes no text twice and never asks more often than it may.
"""

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


class Target:
    """One vector, the denoiser that listens to it, and all texts that were encoded on the way to it.

    denoiser: lengths of a batch → the `Predict` for it, under this vector's modulation in every row.
    encode: texts → vectors [n, embed_dim]; an `Encoder.encode` or any function, such as a remote service.
    pinned: {position: token id} that every text must have.
    watch: called with None before every batch of texts and after every step of a refill; what it raises ends the work.

    `max_queries`: how many texts may be encoded; `stop_cosine`: a text this close is taken to be the text.
    """

    def __init__(
        self,
        vector: Float[np.ndarray, "embed"],
        denoiser: Callable[[Tensor], Predict],
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
            self.denoiser(lengths),
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

    def alternatives(self, tokens: Tokens) -> Float[Tensor, "length vocab"]:
        """log p(. | all other tokens) at every position."""
        grid = torch.tensor([tokens], device=self.device)
        self.model_calls += len(tokens)
        predict = self.denoiser(torch.tensor([len(tokens)], device=self.device))
        return leave_one_out(predict, grid, torch.ones_like(grid, dtype=torch.bool), self.mask_token_id).cpu()

    def insertions(self, tokens: Tokens) -> Float[Tensor, "gap vocab"]:
        """log p(. | all tokens) of a new token in every gap, the one before the first token first."""
        rows = [(*tokens[:gap], self.mask_token_id, *tokens[gap:]) for gap in range(len(tokens) + 1)]
        if len(rows) > self.max_length:  # the text is as long as it may be: no gap takes a token
            return torch.empty(0, 0)
        grid = torch.tensor(rows, device=self.device)
        self.model_calls += len(rows)
        predict = self.denoiser(torch.full((len(rows),), len(rows), device=self.device))
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
        waiting: dict[str, list[Edit]] = {}  # edits of a text that were not tried yet
        tried: dict[str, dict[int, tuple[Edit, Found]]] = {}
        while target.left > 0:
            beam = target.best(self.width)
            # The text that was worked on least; the closest of those.
            current = min(beam, key=lambda found: (len(tried.get(found.text, ())) // self.breadth, -found.cosine))
            if current.text not in waiting:
                waiting[current.text] = list(self._edits(target, current.tokens))
                tried[current.text] = {}
            edits, waiting[current.text] = (
                waiting[current.text][: self.breadth],
                waiting[current.text][self.breadth :],
            )
            if not edits:
                edits = self._mutations(target, current.tokens)
            results = target.score(_apply(current.tokens, edit) for edit in edits)
            memory = tried[current.text]
            for edit, result in zip(edits, results, strict=True):
                memory[len(memory)] = (edit, result)
            singles = [(edit, found) for edit, found in memory.values() if found is not None]
            target.score(_apply(current.tokens, edit) for edit in _combined(target.vector, current, singles))
            yield

    def _edits(self, target: Target, tokens: Tokens) -> Iterator[Edit]:
        """Single edits, the most promising of every kind first, the kinds interleaved."""
        instead, between = target.alternatives(tokens), target.insertions(tokens)
        here = instead.gather(1, torch.tensor(tokens)[:, None])
        substitutions = self._ranked(instead - here, tokens, lambda i, v: {2 * i + 1: (v,)})
        insertions = self._ranked(between, None, lambda gap, v: {2 * gap: (v,)})
        deletions = [{2 * int(i) + 1: ()} for i in here[:, 0].argsort()]
        n = len(tokens)
        swaps = [
            {2 * i + 1: (tokens[j],), 2 * j + 1: (tokens[i],)}
            for gap in range(1, n)
            for i in range(n - gap)
            if tokens[i] != tokens[j := i + gap]
        ]
        moves = [
            {2 * i + 1: (), 2 * gap: (tokens[i],)} for i in range(n) for gap in range(n + 1) if gap not in (i, i + 1)
        ]
        moves = [moves[k] for k in target.random.permutation(len(moves))]
        return _interleaved([substitutions, insertions, deletions, swaps, moves], (10, 3, 2, 3, 2))

    def _ranked(self, score: Tensor, tokens: Tokens | None, edit_of: Callable[[int, int], Edit]) -> list[Edit]:
        """The top_k tokens of every row, best first over all rows; a token is no edit of itself."""
        values, ids = score.topk(min(self.top_k, score.shape[1]), dim=1)
        order = values.flatten().argsort(descending=True)
        places = [(int(k) // ids.shape[1], int(ids.flatten()[k])) for k in order]
        return [edit_of(i, v) for i, v in places if tokens is None or tokens[i] != v]

    def _mutations(self, target: Target, tokens: Tokens) -> list[Edit]:
        """Random spans written anew by the denoiser, for a text whose single edits are all tried."""
        starts = []
        for _ in range(self.breadth // 2):
            length = int(target.random.integers(1, max(2, len(tokens) // 2 + 1)))
            first = int(target.random.integers(0, len(tokens) - length + 1))
            size = max(1, length + int(target.random.integers(-1, 2)))
            size = min(size, target.max_length - len(tokens) + length)
            starts.append(tokens[:first] + (target.mask_token_id,) * size + tokens[first + length :])
        rewritten = target.refill(starts, 1.0, 1.0)
        everything = {2 * i + 1: () for i in range(1, len(tokens))}
        return [{**everything, 1: new} for new in rewritten]


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


def _combined(vector: np.ndarray, current: Found, singles: list[tuple[Edit, Found]], count: int = 32) -> list[Edit]:
    """Compatible edits that should come closest together, by adding up what each did to the vector alone."""
    if not singles:
        return []
    change = np.stack([found.vector - current.vector for _, found in singles])
    order = np.argsort([-found.cosine for _, found in singles])
    combinations: dict[frozenset[int], float] = {}
    for first in order[: count // 2]:
        chosen, total = [int(first)], current.vector + change[first]
        while len(chosen) < MAX_COMBINED:
            cosine = (total + change) @ vector / np.linalg.norm(total + change, axis=1)
            taken = {slot for k in chosen for slot in singles[k][0]}
            free = np.array([taken.isdisjoint(edit) for edit, _ in singles])
            best = int(np.where(free, cosine, -1).argmax())
            if not free[best] or cosine[best] <= total @ vector / np.linalg.norm(total):
                break
            chosen, total = [*chosen, best], total + change[best]
            combinations[frozenset(chosen)] = float(cosine[best])
    ranked = sorted(combinations, key=lambda chosen: -combinations[chosen])[:count]
    return [{slot: new for k in chosen for slot, new in singles[k][0].items()} for chosen in ranked]


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
