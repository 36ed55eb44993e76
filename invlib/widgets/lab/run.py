"""Run: one inversion in the lab, step by step."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from invlib import metrics
from invlib.inverter import Inverter
from invlib.sampler import row_streams
from invlib.search import Found, Tokens, improve
from invlib.trajectory import Step, Trajectory
from invlib.widgets.lab.settings import Settings
from invlib.widgets.player import ABSENT

ROWS = ("tokens", "confidence", "top_ids", "top_probs")  # of a trajectory, one per step


@dataclass(eq=False)
class Run:
    """What `Inverter.invert` does with one vector, for somebody who watches.

    Iterate `work` for every Step of the drafts and the best `Found` of every round of a search, as they happen. Who
    stops has all that there is by then, and may go on later; `closer` is the run that searches on from its drafts.
    """

    inverter: Inverter
    settings: Settings
    vector: np.ndarray  # [embed_dim]
    steering: dict[str, Any]  # length, pinned and start tokens of a person who intervened
    before: Trajectory | None = None  # what it goes on from
    steps: list[Step] = field(default_factory=list)  # of the drafts
    trajectory: Trajectory | None = None  # of the first draft while they grow, then of the likeliest
    found: Found | None = None  # the closest text of the search
    cosine: float | None = None  # of the text, encoded again, to the vector
    draft_cosine: float | None = None  # the same of the draft
    asked: dict[int, tuple[float, int]] = field(default_factory=dict)  # step → cosine of its text, queries by then
    model_calls: int = 0
    encoder_queries: int = 0
    error: str | None = None  # what ended a search before its time
    is_whole: bool = False  # nobody stopped it
    stream: torch.Tensor | None = None  # the state of the random numbers that a search goes on with
    steps_per_second: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @cached_property
    def work(self) -> Iterator[Step | Found]:
        if self.stream is None:
            yield from self._write()
        if self.settings.max_queries:
            yield from self._search()
        elif not self.settings.watch:
            self._look()
        self.is_whole = True

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    @property
    def progress(self) -> dict[str, Any]:
        """Where it is, in numbers."""
        told = {"cosine": self.cosine, "queries": self.encoder_queries, "budget": self.settings.max_queries}
        if self.steps:
            told |= {"step": self.steps[-1].index, "num_steps": self.steps[-1].num_steps}
        return told | {"steps_per_second": round(self.steps_per_second, 1)}

    def closer(self, max_queries: int) -> "Run":
        """A search from the drafts of this run, as if it had been asked for from the beginning."""
        watched = len(self.asked) if self.settings.watch else 0
        spent = {"encoder_queries": watched, "found": None, "cosine": None, "error": None, "is_whole": False}
        settings, began = replace(self.settings, max_queries=max_queries), time.perf_counter()
        return replace(self, settings=settings, model_calls=self.draft_calls, began=began, **spent)

    @property
    def text(self) -> str:
        return self.trajectory.text if self.found is None else self.found.text

    @property
    def draft_calls(self) -> int:
        """Model calls of the drafts; a guided one calls twice."""
        return int(self.steps[-1].model_calls.sum()) * (1 + (self.settings.guidance_scale != 1)) if self.steps else 0

    def _write(self) -> Iterator[Step]:
        options = self.settings.options(self.inverter.corrects) | self.steering
        options = {name: value for name, value in options.items() if name not in ("search", "verify")}
        streams = row_streams(options.pop("candidates", 1), torch.Generator().manual_seed(self.settings.seed))
        yield from self._drafts(streams, **options)
        self.stream = streams[0].get_state()

    def _drafts(self, streams: list[torch.Generator], length: int | None = None, **options: Any) -> Iterator[Step]:
        vectors = np.tile(self.vector, (len(streams), 1))
        lengths = np.full(len(streams), length or self.inverter.predict_lengths(self.vector)[0])
        for step in self.inverter.steps(vectors, lengths, generator=streams, **options):
            self.steps.append(step)
            is_last = step.index == step.num_steps
            self.trajectory = self._draft(int(step.confidence.log().sum(dim=1).argmax()) if is_last else 0)
            self.model_calls, self.steps_per_second = self.draft_calls, step.index / self.seconds
            if self.settings.watch and step.index:
                self._look()
            yield step

    def _look(self) -> None:
        """The cosine of the text so far, encoded again: one query."""
        text, encode = self.trajectory.text, self.inverter.encoder.encode
        self.cosine = self.draft_cosine = float(metrics.reencoded_cosines(self.vector[None], [text], encode)[0])
        self.encoder_queries += bool(text.strip())
        self.asked[self.steps[-1].index] = self.cosine, self.encoder_queries

    def _draft(self, row: int) -> Trajectory:
        """One draft as far as it is written."""
        mask, tokenizer = self.inverter.config.mask_token_id, self.inverter.tokenizer
        tokens = self.steps[-1].tokens[row].tolist()
        text = tokenizer.decode([token for token in tokens if token != mask])
        told = {"mask_token_id": mask, "pieces": tokenizer.pieces, "text": text}
        return Trajectory.from_steps(self.steps, row, len(tokens), **told)

    def _search(self) -> Iterator[Found]:
        stream = torch.Generator()
        stream.set_state(self.stream)
        target = self.inverter.target(self.vector, pinned=self.steering.get("pinned"), generator=stream)
        drafts = [tuple(row) for row in self.steps[-1].tokens.tolist()]
        ledger, calls, queries = target.ledger, self.model_calls, self.encoder_queries
        for best in improve(target, self.settings.search(self.inverter.corrects), drafts):
            self.found, self.cosine = best, best.cosine
            self.model_calls, self.encoder_queries = calls + target.model_calls, queries + ledger.queries
            self.draft_cosine = self.draft_cosine or next(iter(ledger.found.values())).cosine
            yield best
        self.model_calls, self.encoder_queries = calls + target.model_calls, queries + ledger.queries
        self.error = ledger.error


def joined(before: Trajectory, after: Trajectory) -> tuple[Trajectory, int]:
    """One trajectory of two, and the step in which the second begins; where the first ends without a token, none is.

    A token that was only handed over keeps the probability with which it was once written.
    """
    after = _spread(after, np.flatnonzero(before.tokens[-1] != ABSENT), len(before))
    skipped = int((after.tokens[0] == before.tokens[-1]).all())
    handed = np.minimum.accumulate(after.tokens == before.tokens[-1])
    after = replace(after, confidence=np.where(handed, before.confidence[-1], after.confidence))
    rows = {name: np.concatenate([getattr(before, name), getattr(after, name)[skipped:]]) for name in ROWS}
    return replace(after, **rows, pieces=before.pieces | after.pieces), len(before.tokens) - skipped


def edited(before: Trajectory, tokens: Tokens, pieces: Sequence[str], text: str) -> Trajectory:
    """The trajectory, and one step more with the text that a search found: new positions where it has grown."""
    columns = _columns(before.tokens[-1].tolist(), tokens)
    old, new = [column for column, _ in columns], np.array([token for _, token in columns], before.tokens.dtype)
    kept = [place for place, column in enumerate(old) if column is not None]
    wide = _spread(_taken(before, [column for column in old if column is not None]), np.array(kept), len(old))
    is_new = new != wide.tokens[-1]
    row = {"tokens": new, "confidence": np.where(is_new, np.nan, wide.confidence[-1])}
    row |= {"top_ids": np.full_like(wide.top_ids[-1], -1), "top_probs": np.zeros_like(wide.top_probs[-1])}
    rows = {name: np.concatenate([getattr(wide, name), row[name][None]]) for name in ROWS}
    return replace(wide, **rows, pieces=wide.pieces | dict(zip(tokens, pieces, strict=True)), text=text)


def _columns(row: list[int], tokens: Tokens) -> list[tuple[int | None, int]]:
    """Positions for a text that follows on a row: (position in the row, None for a new one; token or `ABSENT`)."""
    present = [i for i, token in enumerate(row) if token != ABSENT]
    stays, gaps = dict.fromkeys(present, ABSENT), [[] for _ in (*present, None)]  # a gap before each, and the last one
    for step in Levenshtein.opcodes([row[i] for i in present], tokens):
        new = tokens[step.dest_start : step.dest_end]
        if step.tag == "insert":
            gaps[step.src_start] += new
        elif new:
            stays |= dict(zip(present[step.src_start : step.src_end], new, strict=True))
    columns: list[tuple[int | None, int]] = []
    for first, last, inserted in zip([-1, *present], [*present, len(row)], gaps, strict=True):
        empty = range(first + 1, last)  # an absent position takes a new token before there is a new position for it
        columns += zip_longest(empty, inserted)
        if last < len(row):
            columns.append((last, stays[last]))
    return [(column, ABSENT if token is None else token) for column, token in columns]


def _taken(trajectory: Trajectory, columns: list[int]) -> Trajectory:
    return replace(trajectory, **{name: getattr(trajectory, name)[:, columns] for name in ROWS})


def _spread(trajectory: Trajectory, columns: np.ndarray, width: int) -> Trajectory:
    """The trajectory with its positions at these columns of a wider one, and nothing elsewhere."""
    rows = {}
    for name, nothing in zip(ROWS, (ABSENT, np.nan, -1, 0), strict=True):
        own = getattr(trajectory, name)
        rows[name] = np.full((len(own), width, *own.shape[2:]), nothing, own.dtype)
        rows[name][:, columns] = own
    return replace(trajectory, **rows)
