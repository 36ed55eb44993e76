"""Session: one person's work with an inverter, without any widget.

What takes long runs in a thread of its own. Between two steps the thread tells what it saw and asks whether it may go
on: so frames stream, Stop ends within a step, and Step once holds after one.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from invlib import metrics, perturb
from invlib.errors import InputError
from invlib.inverter import Inversion, Inverter, check_vectors
from invlib.policies import REMASKING
from invlib.search import Found
from invlib.trajectory import Step, Trajectory
from invlib.widgets.lab.alignment import Pair, aligned
from invlib.widgets.lab.settings import POLICY_BY_NAME, Limits, Settings

IDLE, RUNNING, HELD = "idle", "running", "held"


class Busy(InputError):
    """A wish that has to wait: an inversion is running."""


class Stopped(KeyboardInterrupt):
    """A person's wish, by a button instead of Ctrl-C: a search keeps what it has found so far."""


@dataclass(frozen=True)
class View:
    """The vector that is inverted, as a person sees it."""

    vector: np.ndarray  # [embed_dim] float32 of unit length: what the attacker inverts
    norm: float  # of what the store holds
    stored: int  # numbers in the store
    cosine: float  # to the clean vector; 1 where nothing happened to it


@dataclass(frozen=True)
class Outcome:
    """What came back, and what it cost. Where a run was stopped, what there was by then."""

    settings: Settings
    text: str
    cosine: float | None  # of the re-encoded text to the vector; None where it was not encoded
    scores: dict[str, float]  # of `metrics.PER_TEXT`; empty where a vector was the input
    pairs: list[Pair]  # original and text, word by word
    changes: list[Pair]  # the text before and this one; empty where they belong to other inputs
    model_calls: int
    encoder_queries: int
    seconds: float
    code: str | None  # repeats it; None for a run that was stopped
    note: str  # what is worth knowing about how it ended


@dataclass(frozen=True)
class Job:
    """One call of `Inverter.invert`. `steering`: its length, pinned and start, where a person intervened."""

    settings: Settings
    steering: dict[str, Any]
    before: Trajectory | None  # what it goes on from


class Session:
    """Invert, stop, step once; pin and re-mask tokens and run on from there.

    changed: called without arguments after every change, by whichever thread made it.

    Whatever starts work checks its settings first and raises `InputError`, also while other work is running. What
    fails later, in the thread, is told by `error` in one line, and the session stays usable.
    """

    def __init__(self, inverter: Inverter, limits: Limits | None = None, changed: Callable[[], None] = lambda: None):
        self.inverter, self.limits, self.changed = inverter, limits or Limits(), changed
        self.state, self.error = IDLE, ""
        self.trajectory: Trajectory | None = None
        self.pinned: dict[int, int] = {}  # position → token id, for every further run
        self.pinned_since: dict[int, int] = {}  # position → step of the trajectory from which on it holds
        self.masked: set[int] = set()  # positions that the next run writes anew
        self.found: Found | None = None  # the best text of a search that is running
        self.outcome: Outcome | None = None
        self.view: View | None = None  # of the vector that was looked at last
        self._job: Job | None = None
        self._steps: list[Step] = []  # of the job
        self._thread: threading.Thread | None = None
        self._turn = threading.Condition()
        self._allowed = 0.0  # steps until the thread holds
        self._stop = False
        self._clean: tuple[str, np.ndarray] | None = None  # the text that was encoded last

    # ── what is asked for ──

    def invert(self, settings: Settings) -> None:
        """Start from all masks but the pinned tokens."""
        self._refuse_while_running()
        self._start(self._from_masks(settings), allowed=np.inf)

    def run_on(self, settings: Settings, step: int | None = None) -> None:
        """Go on from what stands at `step` (default: the last one), with the pins and masks set since."""
        self._refuse_while_running()
        if self._may_resume(settings, step):
            self._resume(np.inf)
        else:
            self._start(self._from_step(settings, step), allowed=np.inf)

    def step_once(self, settings: Settings, step: int | None = None) -> None:
        """Take one step and hold: of the run that is held, on from what is masked, or from all masks."""
        self._refuse_while_running()
        if self._may_resume(settings, step):
            self._resume(1)
        elif self._is_about(settings) and self._grid(step)[1]:
            self._start(self._from_step(settings, step), allowed=1)
        else:
            self._start(self._from_masks(settings), allowed=1)

    def stop(self) -> None:
        """End the work within one step; what was seen so far stays. Without work it does nothing."""
        with self._turn:
            self._stop = True
            self._turn.notify_all()

    def wait(self, timeout: float | None = None) -> None:
        """Until the work is done or held. Raises `TimeoutError`."""
        with self._turn:
            if not self._turn.wait_for(lambda: self.state != RUNNING, timeout):
                raise TimeoutError(f"still running after {timeout} s")

    def pin(self, position: int, token: int | str | None = None, step: int | None = None) -> None:
        """Keep a token in every further run: the given one (id or piece), or the one that stands at `step`."""
        self._check_steerable(position)
        if token is None:
            token = int(self.trajectory.tokens[self._at(step), position])
            if token == self.trajectory.mask_token_id:
                raise InputError("this token is still masked; choose a word for it, or pin it when it is written")
        self._steer(position, pinned=self.inverter.token_id(token))

    def remask(self, position: int) -> None:
        """Have a token written anew by the next run."""
        self._check_steerable(position)
        self._steer(position, masked=True)

    def release(self, position: int) -> None:
        """Neither pinned nor to be masked."""
        self._check_steerable(position)
        self._steer(position)

    def look(self, settings: Settings) -> View:
        """The vector that these settings give; `view` is it from now on.

        Raises the `InputError` of a setting or vector that does not fit.
        """
        settings.check(self.limits)
        self.error = ""
        embed_dim = self.inverter.config.embedding_cond_dim
        is_text = settings.vector is None
        given = self._encoded(settings.text) if is_text else np.array([settings.vector], np.float64)
        vectors = check_vectors(given, embed_dim)
        if settings.is_clean:
            self.view = View(vectors[0], float(np.linalg.norm(given)), embed_dim, 1.0)
        else:
            seen = settings.perturbed(given if is_text else perturb.unit(given))
            norm, cosine = float(np.linalg.norm(seen.stored[0].astype(np.float64))), float(seen.cosines[0])
            self.view = View(check_vectors(seen.vectors, embed_dim)[0], norm, seen.stored.shape[1], cosine)
        self.changed()
        return self.view

    # ── steering ──

    def _steer(self, position: int, pinned: int | None = None, masked: bool = False) -> None:
        self.pinned.pop(position, None)
        self.masked.discard(position)
        if pinned is not None:
            self.pinned[position] = pinned
        if masked:
            self.masked.add(position)
        self.changed()

    def _check_steerable(self, position: int) -> None:
        self._refuse_while_running()
        if self.trajectory is None:
            raise InputError("there is no text yet; press Invert first")
        if position not in range(len(self.trajectory)):
            raise InputError(f"there is no position {position} in a text of {len(self.trajectory)} tokens")

    def _refuse_while_running(self) -> None:
        if self.state == RUNNING:
            raise Busy("an inversion is running; wait for it, or press Stop first")

    def _at(self, step: int | None) -> int:
        last = self.trajectory.num_steps
        if step is None:
            return last
        if step not in range(last + 1):
            raise InputError(f"there is no step {step}; there are 0 to {last}")
        return step

    def _grid(self, step: int | None) -> tuple[dict[int, int], set[int]]:
        """Tokens by position as a run from `step` would find them, and the positions that it would write."""
        hidden = self.masked | set(np.flatnonzero(self.trajectory.masked[self._at(step)]).tolist())
        tokens = enumerate(self.trajectory.tokens[self._at(step)].tolist())
        grid = {i: token for i, token in tokens if i not in hidden} | self.pinned
        return grid, hidden - set(self.pinned)

    def _is_about(self, settings: Settings) -> bool:
        """True when what is shown came from the same input."""
        return self.trajectory is not None and _is_same_input(self._job.settings, settings)

    # ── jobs ──

    def _from_masks(self, settings: Settings) -> Job:
        if not self._is_about(settings):
            self.pinned, self.masked = {}, set()  # positions of another text mean nothing here
        if not self.pinned:
            return Job(settings, {}, None)
        if len(self.pinned) == len(self.trajectory):
            raise InputError("every token is pinned, so there is nothing to write; release one")
        return Job(settings, {"length": len(self.trajectory), "pinned": dict(self.pinned)}, None)

    def _from_step(self, settings: Settings, step: int | None) -> Job:
        if not self._is_about(settings):
            raise InputError("there is nothing to run on from with this input; press Invert first")
        grid, hidden = self._grid(step)
        if not hidden:
            raise InputError("nothing is masked here; mask a token, go back some steps, or press Invert")
        start = {i: token for i, token in grid.items() if i not in self.pinned}
        steering = {"length": len(self.trajectory), "pinned": dict(self.pinned), "start": start}
        if POLICY_BY_NAME.get(settings.policy) not in REMASKING:  # more steps would show nothing
            steering["num_steps"] = min(settings.num_steps, len(hidden))
        return Job(settings, steering, _until(self.trajectory, self._at(step)))

    def _may_resume(self, settings: Settings, step: int | None) -> bool:
        """True when the held run can simply go on: nothing was changed since."""
        if self.state != HELD or settings != self._job.settings:
            return False
        is_steered = self.masked or self.pinned != self._job.steering.get("pinned", {})
        return not is_steered and self._at(step) == self.trajectory.num_steps

    # ── the thread ──

    def _start(self, job: Job, allowed: float) -> None:
        view = self.look(job.settings)
        if self.state == HELD:
            self.stop()
            self._thread.join()
        self._job, self._steps, self._allowed, self._stop = job, [], allowed, False
        self.state, self.found = RUNNING, None
        self._thread = threading.Thread(target=self._work, args=(job, view), daemon=True, name="inversion")
        self._thread.start()

    def _resume(self, allowed: float) -> None:
        with self._turn:
            self.state, self._allowed = RUNNING, allowed
            self._turn.notify_all()

    def _work(self, job: Job, view: View) -> None:
        self.changed()
        begin, before, outcome = time.perf_counter(), self.outcome, None
        try:
            inversion = self._inverted(job, view)
            outcome = self._outcome(job, inversion, before)
        except Stopped:
            outcome = self._partial(job, before)
        except Exception as error:  # in a thread nobody else would hear of it, and the person would wait for ever
            self.error = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        if outcome is not None:
            outcome = replace(outcome, seconds=time.perf_counter() - begin)
        with self._turn:  # whoever waits goes on when the change has been told
            self.state, self.outcome, self.found = IDLE, outcome, None
            self.changed()
            self._turn.notify_all()

    def _inverted(self, job: Job, view: View) -> Inversion:
        generator = torch.Generator().manual_seed(job.settings.seed)
        options = {**job.settings.options, **job.steering}
        inversion = self.inverter.invert(view.vector, generator=generator, watch=self._watch, **options)
        self._show(inversion.trajectories[0])
        self._show_found(inversion.texts[0])
        return inversion

    def _watch(self, seen: Step | Found | None) -> None:
        """Tell what was seen; hold where one step was asked for; raise `Stopped` where that was."""
        if isinstance(seen, Found):
            self.found = seen
            self.changed()
        if isinstance(seen, Step):
            self._steps.append(seen)
            self._show(self._drafted())
            if seen.index > 0:
                self._allowed -= 1
            if self._allowed <= 0 and seen.index < seen.num_steps:
                self._hold()
        if self._stop:
            raise Stopped

    def _hold(self) -> None:
        with self._turn:
            self.state = HELD
            self.changed()
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._allowed > 0 or self._stop)
            self.state = RUNNING
        self.changed()

    def _drafted(self) -> Trajectory:
        """What the first draft looks like so far."""
        tokenizer, mask = self.inverter.tokenizer, self.inverter.config.mask_token_id
        tokens = self._steps[-1].tokens[0].tolist()
        text = tokenizer.decode([token for token in tokens if token != mask])
        steps, pieces = self._steps, tokenizer.pieces
        return Trajectory.from_steps(steps, 0, len(tokens), mask_token_id=mask, pieces=pieces, text=text)

    def _show(self, own: Trajectory) -> None:
        """Put what this job has written behind what it goes on from."""
        before, since = self._job.before, 0
        if before is None:
            self.pinned_since = {}
        else:
            own, since = _joined(before, own)
        pinned = self._job.steering.get("pinned", {})
        self.pinned_since = {i: self.pinned_since.get(i, since) for i in pinned}
        if own.num_steps == since:
            self.masked = set()  # from here on they are masked in the grid itself
        self.trajectory = own
        self.changed()

    def _show_found(self, text: str) -> None:
        """What the search made of the draft as one more step, where it has as many tokens."""
        found, draft = self.found, self.trajectory
        if found is None or found.text != text or len(found.tokens) != len(draft) or text == draft.text:
            return
        pieces = dict(zip(found.tokens, self.inverter.tokenizer.pieces(found.tokens), strict=True))
        written = found.tokens == draft.tokens[-1]
        self.trajectory = replace(
            draft,
            tokens=np.vstack([draft.tokens, np.array([found.tokens], draft.tokens.dtype)]),
            confidence=np.vstack([draft.confidence, np.where(written, draft.confidence[-1:], np.nan)]),
            top_ids=np.concatenate([draft.top_ids, np.full_like(draft.top_ids[:1], -1)]),
            top_probs=np.concatenate([draft.top_probs, np.zeros_like(draft.top_probs[:1])]),
            pieces=draft.pieces | pieces,
            text=text,
        )

    # ── what came back ──

    def _outcome(self, job: Job, inversion: Inversion, before: Outcome | None) -> Outcome:
        note = inversion.errors[0] or ""
        cosine = float(inversion.cosines[0])
        return replace(
            self._described(job, inversion.texts[0], before),
            cosine=None if np.isnan(cosine) else cosine,  # stopped before the search encoded anything
            model_calls=int(inversion.model_calls[0]),
            encoder_queries=int(inversion.encoder_queries[0]),
            code=None if note else self._code(job),
            note=f"{note}; this is the best text by then" if note else "",
        )

    def _partial(self, job: Job, before: Outcome | None) -> Outcome:
        if not self._steps:
            return replace(self._described(job, "", before), note="stopped before the first step")
        last = self._steps[-1]
        note = f"stopped at step {last.index} of {last.num_steps}"
        calls = int(last.model_calls.sum())
        return replace(self._described(job, self.trajectory.text, before), model_calls=calls, note=note)

    def _described(self, job: Job, text: str, before: Outcome | None) -> Outcome:
        scores, pairs, changes = {}, [], []
        original = job.settings.text
        if job.settings.vector is None and metrics.words(original):
            scores = {name: metric(original, text) for name, metric in metrics.PER_TEXT.items()}
            pairs = aligned(original, text)
        if before is not None and before.text not in ("", text) and _is_same_input(before.settings, job.settings):
            changes = aligned(before.text, text)
        return Outcome(job.settings, text, None, scores, pairs, changes, 0, 0, 0.0, None, "")

    def _code(self, job: Job) -> str:
        model, load = self.inverter.model, [repr(self.inverter.name)]
        if model.device.type != "cpu":
            load.append(f"device={str(model.device)!r}")
        dtype = next(model.parameters()).dtype
        if dtype != torch.float32:
            load.append(f"dtype={dtype}")
        given = {name: value for name, value in job.steering.items() if value}
        for name in {"pinned", "start"} & set(given):
            given[name] = {i: self._written(token) for i, token in sorted(given[name].items())}
        return job.settings.code(", ".join(load), self.inverter.config.embedding_cond_dim, given)

    def _written(self, token: int) -> int | str:
        """The piece, where it alone names the token; else the id."""
        (piece,) = self.inverter.tokenizer.pieces([token])
        try:
            return piece if self.inverter.token_id(piece) == token else token
        except InputError:
            return token

    def _encoded(self, text: str) -> np.ndarray:
        if self._clean is None or self._clean[0] != text:
            self._clean = text, self.inverter.encoder.encode([text])
        return self._clean[1]


def _is_same_input(a: Settings, b: Settings) -> bool:
    return (a.text, a.vector) == (b.text, b.vector)


def _until(trajectory: Trajectory, step: int) -> Trajectory:
    """The trajectory up to and with `step`."""
    rows = {name: getattr(trajectory, name)[: step + 1] for name in ("tokens", "confidence", "top_ids", "top_probs")}
    return replace(trajectory, **rows)


def _joined(before: Trajectory, after: Trajectory) -> tuple[Trajectory, int]:
    """One trajectory of two, and the step in which the second begins.

    A token that was only handed over keeps the probability with which it was once written.
    """
    is_same = (after.tokens[0] == before.tokens[-1]).all()
    fresh = after.tokens[1:] if is_same else after.tokens
    skipped = len(after.tokens) - len(fresh)
    handed = (np.minimum.accumulate(after.tokens == before.tokens[-1]))[skipped:]
    confidence = np.where(handed, before.confidence[-1], after.confidence[skipped:])
    joined = replace(
        after,
        tokens=np.vstack([before.tokens, fresh]),
        confidence=np.vstack([before.confidence, confidence]),
        top_ids=np.concatenate([before.top_ids, after.top_ids[skipped:]]),
        top_probs=np.concatenate([before.top_probs, after.top_probs[skipped:]]),
        pieces=before.pieces | after.pieces,
    )
    return joined, len(before.tokens) - skipped
