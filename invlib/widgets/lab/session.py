"""Session: one person's work with an inverter, without any widget.

What takes long runs in a thread of its own, which tells every step that it sees: so frames stream, and Stop ends
within a step. A run that is held is a generator that nobody iterates.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from invlib.errors import InputError, first_line
from invlib.inverter import Inverter
from invlib.policies import REMASKING
from invlib.search import Found
from invlib.trajectory import Step, Trajectory
from invlib.widgets.lab.outcome import Outcome
from invlib.widgets.lab.run import ROWS, Run, joined
from invlib.widgets.lab.settings import POLICY_BY_NAME, Limits, Settings, View

IDLE, RUNNING, HELD = "idle", "running", "held"


class Busy(InputError):
    """A wish that has to wait: an inversion is running."""


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
        self.outcome: Outcome | None = None
        self.view: View | None = None  # of the vector that was looked at last
        self._run: Run | None = None  # the one that works, is held or was the last
        self._shown: Run | None = None  # the one whose trajectory it is
        self._thread: threading.Thread | None = None
        self._stop, self._lock = False, threading.Lock()
        self._encoded = lru_cache(maxsize=1)(lambda text: self.inverter.encoder.encode([text]))

    @property
    def found(self) -> Found | None:
        """The best text of a search that is running."""
        return self._run.found if self.state == RUNNING else None

    def invert(self, settings: Settings) -> None:
        """Start from all masks but the pinned tokens."""
        self._refuse_while_running()
        self._go(self._from_masks(settings), np.inf)

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
            self._stop, was_held = True, self.state == HELD
        if was_held:
            self._finish()

    def wait(self, timeout: float | None = None) -> None:
        """Until the work is done or held. Raises `TimeoutError`."""
        if self._thread is not None:
            self._thread.join(timeout)
        if self.state == RUNNING:
            raise TimeoutError(f"still running after {timeout} s")

    def look(self, settings: Settings) -> View:
        """The vector that these settings give; `view` is it from now on.

        Raises the `InputError` of a setting or vector that does not fit.
        """
        settings.check(self.limits)
        self.error = ""
        given = self._encoded(settings.text) if settings.vector is None else np.array([settings.vector], np.float64)
        self.view = View.of(given, settings, self.inverter.config.embedding_cond_dim)
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

    def _refuse_while_running(self) -> None:
        if self.state == RUNNING:
            raise Busy("an inversion is running; wait for it, or press Stop first")

    def _at(self, step: int | None) -> int:
        last = self.trajectory.num_steps
        if step not in (None, *range(last + 1)):
            raise InputError(f"there is no step {step}; there are 0 to {last}")
        return last if step is None else step

    def _grid(self, step: int | None) -> tuple[dict[int, int], set[int]]:
        """Tokens by position as a run from `step` would find them but for the pinned, and what it would write."""
        tokens = self.trajectory.tokens[self._at(step)].tolist()
        hidden = self.masked | {i for i, token in enumerate(tokens) if token == self.trajectory.mask_token_id}
        start = {i: token for i, token in enumerate(tokens) if i not in hidden and i not in self.pinned}
        return start, hidden - set(self.pinned)

    def _is_about(self, settings: Settings) -> bool:
        """True when what is shown came from the same input."""
        return self.trajectory is not None and self._shown.settings.is_same_input(settings)

    def _from_masks(self, settings: Settings) -> Run:
        """From all masks but the pinned."""
        if not self._is_about(settings):
            self.pinned, self.masked = {}, set()  # positions of another text mean nothing here
        if self.pinned and len(self.pinned) == len(self.trajectory):
            raise InputError("every token is pinned, so there is nothing to write; release one")
        steering = {"length": len(self.trajectory), "pinned": dict(self.pinned)} if self.pinned else {}
        return Run(self.inverter, settings, self.look(settings).vector, steering)

    def _from_step(self, settings: Settings, step: int | None) -> Run:
        if not self._is_about(settings):
            raise InputError("there is nothing to run on from with this input; press Invert first")
        start, hidden = self._grid(step)
        if not hidden:
            raise InputError("nothing is masked here; mask a token, go back some steps, or press Invert")
        steering = {"length": len(self.trajectory), "pinned": dict(self.pinned), "start": start}
        if POLICY_BY_NAME.get(settings.policy) not in REMASKING:  # more steps would show nothing
            steering["num_steps"] = min(settings.num_steps, len(hidden))
        before = {name: getattr(self.trajectory, name)[: self._at(step) + 1] for name in ROWS}
        return Run(self.inverter, settings, self.look(settings).vector, steering, replace(self.trajectory, **before))

    def _held(self, settings: Settings, step: int | None) -> Run | None:
        """The held run, if it can simply go on: nothing was changed since."""
        if self.state != HELD or settings != self._run.settings:
            return None
        is_steered = self.masked or self.pinned != self._run.steering.get("pinned", {})
        return None if is_steered or self._at(step) < self.trajectory.num_steps else self._run

    def _go(self, run: Run, allowed: float) -> None:
        """Work for as many steps, then hold."""
        self._run, self.state, self._stop = run, RUNNING, False
        self._thread = threading.Thread(target=self._work, args=(allowed,), daemon=True, name="inversion")
        self._thread.start()

    def _work(self, allowed: float) -> None:
        self.changed()
        try:
            for seen in self._run.work:
                self._show(self._run.trajectory)
                if isinstance(seen, Step):
                    allowed -= seen.index > 0
                    with self._lock:  # a Stop comes before or after this, not between
                        holds = allowed <= 0 and seen.index < seen.num_steps and not self._stop
                        self.state = HELD if holds else RUNNING
                    if holds:
                        return self.changed()
                if self._stop:
                    break
            self._finish()
        except Exception as error:  # in a thread nobody else would hear of it, and the person would wait for ever
            self.error, self.outcome, self.state = said(error), None, IDLE
            self.changed()

    def _finish(self) -> None:
        self._show(self._run.result)
        self.outcome, self.state = Outcome.of(self._run, self.outcome), IDLE
        self.changed()

    def _show(self, own: Trajectory) -> None:
        """Put what the run has written behind what it goes on from."""
        self._shown, since, known = self._run, 0, {}
        if self._run.before is not None:
            (own, since), known = joined(self._run.before, own), self.pinned_since
        self.pinned_since = {i: known.get(i, since) for i in self._run.steering.get("pinned", {})}
        if own.num_steps == since:
            self.masked = set()  # from here on they are masked in the grid itself
        self.trajectory = own
        self.changed()


def said(error: Exception) -> str:
    """An exception in one line."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
