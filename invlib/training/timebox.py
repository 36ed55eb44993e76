"""TimeBox: a training that ends when its time does, the last validation and the last file included."""

import math
import time
from collections.abc import Callable

from invlib.errors import InputError, require


class TimeBox:
    """Minutes from now on. What comes before the first step counts, and so does what comes after the last.

    For the end `reserve` seconds are kept: a quarter more than the longest validation with its files took so far, a
    tenth of the time before there was one. Between the two lies the training; the last `decay_share` of it cools down.
    """

    def __init__(self, minutes: float, decay_share: float, clock: Callable[[], float] = time.perf_counter):
        require(0 < minutes < math.inf, "--minutes", "a positive number", minutes)
        self.minutes, self.decay_share, self._clock = minutes, decay_share, clock
        self.end, self.reserve = clock() + 60 * minutes, 6 * minutes
        self.start, self._longest = clock(), 0.0

    def begin(self) -> None:
        """What came before is done, the first step comes. Raises `InputError` when no time is left for it."""
        self.start = self._clock()
        if self._length <= 0:
            used = 60 * self.minutes - (self.end - self.start)
            raise self._too_short(f"{used:.0f} s had gone by before the first step")

    @property
    def _length(self) -> float:
        return self.end - self.reserve - self.start

    @property
    def passed(self) -> float:
        """The share of the training's time that is over: 0 at the first step, 1 where the last validation begins."""
        return (self._clock() - self.start) / max(self._length, 1e-9)

    def keep(self, seconds: float) -> None:
        """A validation with its files took so long."""
        self._longest = max(self._longest, seconds)
        self.reserve = 1.25 * self._longest

    def check(self, step: int, warmup_steps: int) -> None:
        """Raises `InputError` as soon as the warm-up, at the pace of its first half, will meet the cool-down."""
        if step < warmup_steps:
            pace = warmup_steps / step if 2 * step >= warmup_steps else 1
            if self.passed * pace > 1 - self.decay_share:
                took, cooling = (share * self._length for share in (self.passed, self.decay_share))
                found = f"{step} of {warmup_steps} warm-up steps took {took:.0f} s"
                raise self._too_short(f"{found}, the cool-down is to take {cooling:.0f} s of {self._length:.0f}")

    def _too_short(self, found: str) -> InputError:
        told = f"--minutes {self.minutes:g} are too short: {found}"
        return InputError(f"{told}; give more minutes, or a smaller warmup_steps or decay_share")
