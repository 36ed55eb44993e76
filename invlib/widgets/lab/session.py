"""Session: one person's work with an inverter, without any widget.

What takes long runs in a thread of its own. Between two things that it sees the thread tells the latest one and looks
whether it may go on: so frames stream, Stop ends within a step, and Step once holds after one.
"""

import threading
import time
from collections.abc import Callable

import numpy as np

from invlib.errors import InputError, first_line
from invlib.inverter import Inverter
from invlib.policies import REMASKING
from invlib.search import Found
from invlib.trajectory import Step, Trajectory
from invlib.widgets.lab.history import joined, until
from invlib.widgets.lab.outcome import Outcome
from invlib.widgets.lab.run import Job, Run
from invlib.widgets.lab.settings import POLICY_BY_NAME, Limits, Settings
from invlib.widgets.lab.view import View

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
        self.found: Found | None = None  # the best text of a search that is running
        self.outcome: Outcome | None = None
        self.view: View | None = None  # of the vector that was looked at last
        self._job: Job | None = None
        self._thread: threading.Thread | None = None
        self._turn = threading.Condition()
        self._allowed = 0.0  # steps until the thread holds
        self._stop = False
        self._encoded: tuple[str, np.ndarray] | None = None  # the text that was encoded last, and its vector

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

    def look(self, settings: Settings) -> View:
        """The vector that these settings give; `view` is it from now on.

        Raises the `InputError` of a setting or vector that does not fit.
        """
        settings.check(self.limits)
        self.error = ""
        given = self._vector_of(settings.text) if settings.vector is None else np.array([settings.vector], np.float64)
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
        pinned = self.inverter.token_id(token)
        self.release(position)
        self.pinned[position] = pinned
        self.changed()

    def remask(self, position: int) -> None:
        """Have a token written anew by the next run."""
        self.release(position)
        self.masked.add(position)
        self.changed()

    def release(self, position: int) -> None:
        """Neither pinned nor to be masked."""
        self._check_steerable(position)
        self.pinned.pop(position, None)
        self.masked.discard(position)
        self.changed()

    # ── what stands there ──

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
        """Tokens by position as a run from `step` would find them but for the pinned, and what it would write."""
        tokens = self.trajectory.tokens[self._at(step)].tolist()
        hidden = self.masked | {i for i, token in enumerate(tokens) if token == self.trajectory.mask_token_id}
        start = {i: token for i, token in enumerate(tokens) if i not in hidden and i not in self.pinned}
        return start, hidden - set(self.pinned)

    def _is_about(self, settings: Settings) -> bool:
        """True when what is shown came from the same input."""
        return self.trajectory is not None and self._job.settings.is_same_input(settings)

    def _vector_of(self, text: str) -> np.ndarray:
        if self._encoded is None or self._encoded[0] != text:
            self._encoded = text, self.inverter.encoder.encode([text])
        return self._encoded[1]

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
        start, hidden = self._grid(step)
        if not hidden:
            raise InputError("nothing is masked here; mask a token, go back some steps, or press Invert")
        steering = {"length": len(self.trajectory), "pinned": dict(self.pinned), "start": start}
        if POLICY_BY_NAME.get(settings.policy) not in REMASKING:  # more steps would show nothing
            steering["num_steps"] = min(settings.num_steps, len(hidden))
        return Job(settings, steering, until(self.trajectory, self._at(step)))

    def _may_resume(self, settings: Settings, step: int | None) -> bool:
        """True when the held run can simply go on: nothing was changed since."""
        if self.state != HELD or settings != self._job.settings:
            return False
        is_steered = self.masked or self.pinned != self._job.steering.get("pinned", {})
        return not is_steered and self._at(step) == self.trajectory.num_steps

    # ── the thread ──

    def _start(self, job: Job, allowed: float) -> None:
        run = Run(self.inverter, job, self.look(job.settings).vector)
        if self.state == HELD:
            self.stop()
            self._thread.join()
        self._job, self._allowed, self._stop = job, allowed, False
        self.state, self.found = RUNNING, None
        self._thread = threading.Thread(target=self._work, args=(run,), daemon=True, name="inversion")
        self._thread.start()

    def _resume(self, allowed: float) -> None:
        with self._turn:
            self.state, self._allowed = RUNNING, allowed
            self._turn.notify_all()

    def _work(self, run: Run) -> None:
        self.changed()
        begin, outcome = time.perf_counter(), None
        try:
            is_whole = self._follow(run)
            self._show(run.result)
            outcome = Outcome.of(run, self.outcome, time.perf_counter() - begin, is_whole=is_whole)
        except Exception as error:  # in a thread nobody else would hear of it, and the person would wait for ever
            self.error = said(error)
        with self._turn:  # whoever waits goes on when the change has been told
            self.state, self.outcome, self.found = IDLE, outcome, None
            self.changed()
            self._turn.notify_all()

    def _follow(self, run: Run) -> bool:
        """Show what a run sees, and hold where one step was asked for; False where a person stopped it."""
        for seen in run:
            self.found = run.found
            self._show(run.trajectory)
            if isinstance(seen, Step):
                self._allowed -= seen.index > 0
                if self._allowed <= 0 and seen.index < seen.num_steps:
                    self._hold()
            if self._stop:
                return False
        return True

    def _hold(self) -> None:
        with self._turn:
            self.state = HELD
            self.changed()
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._allowed > 0 or self._stop)
            self.state = RUNNING
        self.changed()

    def _show(self, own: Trajectory) -> None:
        """Put what this job has written behind what it goes on from."""
        since = 0
        if self._job.before is not None:
            own, since = joined(self._job.before, own)
        known = self.pinned_since if self._job.before is not None else {}
        self.pinned_since = {i: known.get(i, since) for i in self._job.steering.get("pinned", {})}
        if own.num_steps == since:
            self.masked = set()  # from here on they are masked in the grid itself
        self.trajectory = own
        self.changed()


def said(error: Exception) -> str:
    """An exception in one line."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
