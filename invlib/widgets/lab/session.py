"""Session: one person's work with an inverter, without any widget.

What takes long runs in a thread of its own, which tells every step that it sees: so frames stream, and Stop ends
within a step. A run that is held is a generator that nobody iterates.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from invlib.errors import InputError, first_line
from invlib.inverter import Inverter
from invlib.policies import REMASKING
from invlib.search import Found
from invlib.trajectory import Step, Trajectory
from invlib.widgets.lab.outcome import Outcome
from invlib.widgets.lab.run import ROWS, Run, edited, joined
from invlib.widgets.lab.settings import POLICY_BY_NAME, Limits, Settings, View, out_of_range
from invlib.widgets.lab.verdict import SAME, advice
from invlib.widgets.player import ABSENT

IDLE, RUNNING, HELD = "idle", "running", "held"


class Busy(InputError):
    """A wish that has to wait: an inversion is running."""


class Session:
    """Invert, search closer, stop, step once; pin and re-mask tokens and run on from there.

    changed: called without arguments after every change, by whichever thread made it.
    Positions are those of the trajectory's columns; at some steps a column may hold no token.
    Whatever starts work checks its settings first and raises `InputError`, also while other work is running. What
    fails later, in the thread, is told by `error` in one line, and the session stays usable.
    """

    def __init__(self, inverter: Inverter, limits: Limits | None = None, changed: Callable[[], None] = lambda: None):
        self.inverter, self.limits, self.changed = inverter, limits or Limits(), changed
        self.state, self.error = IDLE, ""
        self.trajectory: Trajectory | None = None  # the draft, and behind it what a search made of it
        self.asked: dict[int, tuple[float, int]] = {}  # step of the trajectory → cosine of its text, queries by then
        self.pinned: dict[int, int] = {}  # position → token id, for every further run
        self.pinned_since: dict[int, int] = {}  # position → step of the trajectory from which on it holds
        self.masked: set[int] = set()  # positions that the next run writes anew
        self.outcome: Outcome | None = None  # of what is shown; None while a run works
        self.view: View | None = None  # of the vector that was looked at last
        self.run: Run | None = None  # the one that works, is held or was the last
        self.is_stopped = False  # what works ends as soon as it can
        self._before: Outcome | None = None  # the outcome before the run that works
        self.shown: Run | None = None  # the one whose trajectory it is
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._encoded = lru_cache(maxsize=1)(lambda text: self.inverter.encoder.encode([text]))

    @property
    def open_until(self) -> int:
        """The step of the trajectory from which on nothing that is visible may change."""
        settings = self.shown.settings
        if POLICY_BY_NAME[settings.policy] not in REMASKING and not settings.max_queries:
            return 0
        return self.trajectory.num_steps + (self.state != IDLE)

    def invert(self, settings: Settings) -> None:
        """Start from all masks but the pinned tokens."""
        self._refuse_while_running()
        self._go(self._from_masks(settings), np.inf)

    def search(self, settings: Settings) -> None:
        """Ask the encoder, from the draft that is shown where these settings gave it, else from a new one."""
        self._refuse_while_running()
        settings.check(self.limits)
        if not settings.max_queries:
            raise out_of_range("max_queries", 1, self.limits.max_queries, 0)
        self._go(self._closer(settings) or self._from_masks(settings), np.inf)

    def run_on(self, settings: Settings, step: int | None = None) -> None:
        """Go on from what stands at `step` (default: the last one), with the pins and masks set since."""
        self._refuse_while_running()
        self._go(self._held(settings, step) or self._from_step(settings, step), np.inf)

    def step_once(self, settings: Settings, step: int | None = None) -> None:
        """Take one step and hold: of the run that is held, on from what is masked, or from all masks."""
        self._refuse_while_running()
        run = self._held(settings, step)
        if run is None:
            goes_on = self._is_about(settings) and self._grid(step)[1]
            run = self._from_step(settings, step) if goes_on else self._from_masks(settings)
        self._go(run, 1)

    def stop(self) -> None:
        """End the work within one step; what was seen so far stays. Without work it does nothing."""
        with self._lock:
            self.is_stopped, was_held = True, self.state == HELD
        if was_held:
            self._finish()

    def wait(self, timeout: float | None = None) -> None:
        """Until the work is done or held. Raises `TimeoutError`."""
        if self._thread is not None:
            self._thread.join(timeout)
        if self.state == RUNNING:
            raise TimeoutError(f"still running after {timeout} s")

    def occupy(self, work: Callable[[], None]) -> None:
        """Do other work in this session's thread: nothing else runs beside it, and its errors are told."""
        self._refuse_while_running()
        self._start(lambda: (work(), self._idle()))

    def look(self, settings: Settings) -> View:
        """The vector that these settings give; `view` is it from now on.

        Raises the `InputError` of a setting or vector that does not fit.
        """
        settings.check(self.limits)
        self.error = ""
        given = self._encoded(settings.text) if settings.vector is None else np.array([settings.vector], np.float64)
        self.view = View.of(given, settings, self.inverter.config.embedding_cond_dim)
        if settings.vector is None:
            ids, most = self.inverter.tokenizer.encode([settings.text])[0], self.inverter.config.max_seq_len
            told = advice(settings.text, ids, self.inverter.tokenizer, most)
            self.view = replace(self.view, pieces=len(ids), advice=told)
        self.changed()
        return self.view

    def pin(self, position: int, token: int | str | None = None, step: int | None = None) -> None:
        """Keep a token in every further run: the given one (id or piece), or the one that stands at `step`."""
        self._check_steerable(position)
        if token is None:
            token = int(self.trajectory.tokens[self._at(step), position])
            if token == self.trajectory.mask_token_id:
                raise InputError("this token is still masked; choose a word for it, or pin it when it is written")
        self._steer(position, {position: self.inverter.token_id(token)}, set())

    def remask(self, position: int) -> None:
        """Have a token written anew by the next run."""
        self._steer(position, {}, {position})

    def release(self, position: int) -> None:
        """Neither pinned nor to be masked."""
        self._steer(position, {}, set())

    def _steer(self, position: int, pinned: dict[int, int], masked: set[int]) -> None:
        self._check_steerable(position)
        self.pinned = {i: token for i, token in self.pinned.items() if i != position} | pinned
        self.masked = (self.masked - {position}) | masked
        self.changed()

    def _check_steerable(self, position: int) -> None:
        self._refuse_while_running()
        if self.trajectory is None:
            raise InputError("there is no text yet; press Invert first")
        if position not in range(len(self.trajectory)):
            raise InputError(f"there is no position {position} in a text of {len(self.trajectory)} tokens")
        if position not in self._columns(None):
            raise InputError(f"the search took away what stood at position {position}; choose another token")

    def _refuse_while_running(self) -> None:
        if self.state == RUNNING:
            raise Busy("an inversion is running; wait for it, or press Stop first")

    def _at(self, step: int | None) -> int:
        last = self.trajectory.num_steps
        if step not in (None, *range(last + 1)):
            raise InputError(f"there is no step {step}; there are 0 to {last}")
        return last if step is None else step

    def _columns(self, step: int | None) -> list[int]:
        """The columns that hold a token at `step`: column of every position of its text."""
        return np.flatnonzero(self.trajectory.tokens[self._at(step)] != ABSENT).tolist()

    def _pins(self, step: int | None) -> dict[int, int]:
        """The pinned tokens by their positions in the text that stands at `step`."""
        columns = self._columns(step)
        if not set(self.pinned) <= set(columns):
            raise InputError("a pinned token does not stand in this step yet; release it, or choose a later step")
        return {columns.index(i): token for i, token in sorted(self.pinned.items())}

    def _grid(self, step: int | None) -> tuple[dict[int, int], set[int]]:
        """Tokens by position as a run from `step` would find them but for the pinned, and what it would write."""
        row, mask, columns = self.trajectory.tokens[self._at(step)], self.trajectory.mask_token_id, self._columns(step)
        hidden = {i for i, column in enumerate(columns) if column in self.masked or row[column] == mask}
        pins = self._pins(step)
        start = {i: int(row[column]) for i, column in enumerate(columns) if i not in hidden and i not in pins}
        return start, hidden - set(pins)

    def _is_about(self, settings: Settings) -> bool:
        """True when what is shown came from the same input."""
        return self.trajectory is not None and self.shown.settings.is_same_input(settings)

    def _from_masks(self, settings: Settings) -> Run:
        """From all masks but the pinned."""
        if not self._is_about(settings):
            self.pinned, self.masked = {}, set()  # positions of another text mean nothing here
        steering = {}
        if self.pinned:
            steering = {"length": len(self._columns(None)), "pinned": self._pins(None)}
            if len(self.pinned) == steering["length"]:
                raise InputError("every token is pinned, so there is nothing to write; release one")
        run = Run(self.inverter, settings, self.look(settings).vector, steering)
        self.pinned = dict(steering.get("pinned", {}))  # the new text has no columns without a token
        return run

    def _from_step(self, settings: Settings, step: int | None) -> Run:
        if not self._is_about(settings):
            raise InputError("there is nothing to run on from with this input; press Invert first")
        start, hidden = self._grid(step)
        if not hidden:
            raise InputError("nothing is masked here; mask a token, go back some steps, or press Invert")
        steering = {"length": len(self._columns(step)), "pinned": self._pins(step), "start": start}
        if POLICY_BY_NAME.get(settings.policy) not in REMASKING:  # more steps would show nothing
            steering["num_steps"] = min(settings.num_steps, len(hidden))
        before = {name: getattr(self.trajectory, name)[: self._at(step) + 1] for name in ROWS}
        return Run(self.inverter, settings, self.look(settings).vector, steering, replace(self.trajectory, **before))

    def _held(self, settings: Settings, step: int | None) -> Run | None:
        """The held run, if it can simply go on: nothing was changed since."""
        if self.state != HELD or settings != self.run.settings:
            return None
        is_steered = self.masked or self._pins(None) != self.run.steering.get("pinned", {})
        return None if is_steered or self._at(step) < self.trajectory.num_steps else self.run

    def _closer(self, settings: Settings) -> Run | None:
        """A search from the draft that is shown, if it is the one that these settings give."""
        run = self.run
        if self.state != IDLE or run is None or self.masked or not run.is_whole or not self._is_about(settings):
            return None
        if replace(run.settings, max_queries=settings.max_queries) != settings:
            return None
        if self._pins(None) != run.steering.get("pinned", {}):
            return None
        if run.cosine is not None and run.cosine >= SAME:
            raise InputError("this text has the same vector already; no search comes closer")
        if run.settings == settings:
            spent = f"{run.encoder_queries:,} of {settings.max_queries:,} queries"
            raise InputError(f"the search has ended here after {spent}; raise the budget, or choose another seed")
        return run.closer(settings.max_queries)

    def _go(self, run: Run, allowed: float) -> None:
        """Work for as many steps, then hold."""
        self.run, self._before, self.outcome = run, self.outcome or self._before, None
        self._start(partial(self._work, allowed))

    def _start(self, work: Callable[[], None]) -> None:
        self.state, self.is_stopped = RUNNING, False
        self.changed()  # before the caller goes on: whoever asked sees that it works
        self._thread = threading.Thread(target=self._guarded, args=(work,), daemon=True, name="inversion")
        self._thread.start()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # in a thread nobody else would hear of it, and the person would wait for ever
            self.error, self.outcome = said(error), None
            self._idle()

    def _work(self, allowed: float) -> None:
        if self.run.steps:
            self._show(self.run.trajectory)
        for seen in self.run.work:
            if isinstance(seen, Found):
                self._edit(seen)
            else:
                self._show(self.run.trajectory)
                if self._holds(seen, allowed := allowed - (seen.index > 0)):
                    return self.changed()
            if self.is_stopped:
                break
        self._finish()
        return None

    def _holds(self, step: Step, allowed: float) -> bool:
        with self._lock:  # a Stop comes before or after this, not between
            holds = allowed <= 0 and step.index < step.num_steps and not self.is_stopped
            self.state = HELD if holds else RUNNING
        return holds

    def _finish(self) -> None:
        if self.run.cosine is not None:
            self.asked[self.trajectory.num_steps] = self.run.cosine, self.run.encoder_queries
        self.outcome = Outcome.of(self.run, self._before)
        self._idle()

    def _idle(self) -> None:
        self.state = IDLE
        self.changed()

    def _show(self, own: Trajectory) -> None:
        """Put what the run has written behind what it goes on from."""
        self.shown, since, known, columns = self.run, 0, {}, range(len(own))
        if self.run.before is not None:
            columns = np.flatnonzero(self.run.before.tokens[-1] != ABSENT).tolist()
            (own, since), known = joined(self.run.before, own), self.pinned_since
        pinned = (columns[i] for i in self.run.steering.get("pinned", {}))
        self.pinned_since = {i: known.get(i, since) for i in pinned}
        earlier = {step: told for step, told in self.asked.items() if step <= since} if since else {}
        self.asked = earlier | {since + step: told for step, told in self.run.asked.items()}
        if own.num_steps == since:
            self.masked = set()  # from here on they are masked in the grid itself
        self.trajectory = own
        self.changed()

    def _edit(self, found: Found) -> None:
        """Put what a search found behind the draft, as a step of its own where it is another text."""
        before = self._columns(None)
        if found.tokens != tuple(self.trajectory.tokens[-1, before].tolist()):
            pieces = self.inverter.tokenizer.pieces(found.tokens)
            self.trajectory = edited(self.trajectory, found.tokens, pieces, found.text)
            to = dict(zip(before, self._columns(None), strict=False))  # a pinned token keeps its place in the text
            self.pinned = {to[i]: token for i, token in self.pinned.items()}
            self.pinned_since = {to[i]: step for i, step in self.pinned_since.items()}
        self.asked[self.trajectory.num_steps] = found.cosine, self.run.encoder_queries
        self.changed()


def said(error: Exception) -> str:
    """An exception in one line."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
