"""Run: one inversion in the lab, step by step."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from invlib import metrics
from invlib.inverter import Inverter
from invlib.sampler import row_streams
from invlib.search import Found, improve
from invlib.trajectory import Step, Trajectory
from invlib.widgets.lab.settings import Settings

ROWS = ("tokens", "confidence", "top_ids", "top_probs")  # of a trajectory, one per step


@dataclass(eq=False)
class Run:
    """What `Inverter.invert` does with one vector, for somebody who watches.

    Iterate `work` for every Step of the drafts and the best `Found` of every round of a search, as they happen. Who
    stops has all that there is by then, and may go on later.
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
    model_calls: int = 0
    encoder_queries: int = 0
    error: str | None = None  # what ended a search before its time
    is_whole: bool = False  # nobody stopped it
    began: float = field(default_factory=time.perf_counter)

    @cached_property
    def work(self) -> Iterator[Step | Found]:
        options = self.settings.options | self.steering
        strategies, _ = options.pop("search", ()), options.pop("verify", False)
        streams = row_streams(options.pop("candidates", 1), torch.Generator().manual_seed(self.settings.seed))
        yield from self._drafts(streams, **options)
        if strategies:
            yield from self._search(streams[0])
        else:
            encode, self.encoder_queries = self.inverter.encoder.encode, int(bool(self.text.strip()))
            self.cosine = float(metrics.reencoded_cosines(self.vector[None], [self.text], encode)[0])
        self.is_whole = True

    @property
    def text(self) -> str:
        return self.trajectory.text if self.found is None else self.found.text

    @property
    def result(self) -> Trajectory:
        """The draft, and behind it what the search made of it."""
        if self.found is None:
            return self.trajectory
        pieces = self.inverter.tokenizer.pieces(self.found.tokens)
        return rewritten(self.trajectory, self.found.tokens, pieces, self.found.text)

    def _drafts(self, streams: list[torch.Generator], length: int | None = None, **options: Any) -> Iterator[Step]:
        vectors = np.tile(self.vector, (len(streams), 1))
        lengths = np.full(len(streams), length or self.inverter.predict_lengths(self.vector)[0])
        for step in self.inverter.steps(vectors, lengths, generator=streams, **options):
            self.steps.append(step)
            self.trajectory = self._draft(0)
            self.model_calls = int(step.model_calls.sum())
            yield step
        self.trajectory = self._draft(int(step.confidence.log().sum(dim=1).argmax()))

    def _draft(self, row: int) -> Trajectory:
        """One draft as far as it is written."""
        mask, tokenizer = self.inverter.config.mask_token_id, self.inverter.tokenizer
        tokens = self.steps[-1].tokens[row].tolist()
        text = tokenizer.decode([token for token in tokens if token != mask])
        told = {"mask_token_id": mask, "pieces": tokenizer.pieces, "text": text}
        return Trajectory.from_steps(self.steps, row, len(tokens), **told)

    def _search(self, stream: torch.Generator) -> Iterator[Found]:
        target = self.inverter.target(self.vector, pinned=self.steering.get("pinned"), generator=stream)
        drafts = [tuple(row) for row in self.steps[-1].tokens.tolist()]
        ledger, spent = target.ledger, self.model_calls
        for best in improve(target, self.settings.search, drafts):
            self.found, self.cosine = best, best.cosine
            self.model_calls, self.encoder_queries = spent + target.model_calls, ledger.queries
            yield best
        self.model_calls, self.encoder_queries, self.error = spent + target.model_calls, ledger.queries, ledger.error


def joined(before: Trajectory, after: Trajectory) -> tuple[Trajectory, int]:
    """One trajectory of two, and the step in which the second begins.

    A token that was only handed over keeps the probability with which it was once written.
    """
    skipped = int((after.tokens[0] == before.tokens[-1]).all())
    handed = np.minimum.accumulate(after.tokens == before.tokens[-1])
    after = replace(after, confidence=np.where(handed, before.confidence[-1], after.confidence))
    rows = {name: np.concatenate([getattr(before, name), getattr(after, name)[skipped:]]) for name in ROWS}
    return replace(after, **rows, pieces=before.pieces | after.pieces), len(before.tokens) - skipped


def rewritten(draft: Trajectory, tokens: tuple[int, ...], pieces: list[str], text: str) -> Trajectory:
    """The draft, and what a search made of its last step as one more; only the draft where the length is another."""
    if len(tokens) != len(draft) or text == draft.text:
        return draft
    unasked = {"confidence": np.nan, "top_ids": -1, "top_probs": 0}
    rows = {name: np.full_like(getattr(draft, name)[-1:], value) for name, value in unasked.items()}
    rows["tokens"] = np.array([tokens], draft.tokens.dtype)
    return joined(draft, replace(draft, **rows, pieces=dict(zip(tokens, pieces, strict=True)), text=text))[0]
