"""Survey: one look through a whole source before anything is inverted. What there is, and a fair sample of it."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from invlib.errors import InputError
from invlib.sources import Source

SAMPLE = 256  # rows of a sample at most, half as many at least where there are that many


@dataclass
class Survey:
    """What stands in a source. The sample is stratified: one row at random from each of equal stretches."""

    rows: int = 0
    problems: Counter = field(default_factory=Counter)  # why rows cannot be used
    lengths: Counter = field(default_factory=Counter)  # how many numbers rows have
    low: float = np.inf  # of all numbers
    high: float = -np.inf
    is_whole: bool = True  # are all of them whole numbers?
    sample: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))  # as stored, [n, d]

    @property
    def usable(self) -> int:
        return self.rows - self.problems.total()

    @classmethod
    def of(cls, source: Source, chunk: int, seed: int = 0) -> "Survey":
        """Raises `InputError` for a source without a single usable vector, with the first reason."""
        survey, strata = cls(), Strata(np.random.default_rng(seed))
        for found in source.chunks(chunk):
            good = found.vectors[found.finite()]
            survey.rows += len(found.ids)
            survey.problems.update(problem for problem in found.problems if problem)
            survey.lengths.update(length for length in found.lengths.tolist() if length)
            if len(good):
                survey.low, survey.high = min(survey.low, good.min()), max(survey.high, good.max())
                survey.is_whole = survey.is_whole and bool((good == np.rint(good)).all())
            strata.extend(good)
        if not survey.usable:
            why = f": {next(iter(survey.problems))}" if survey.problems else ""
            raise InputError(f"{source.name} holds 0 usable vectors in {survey.rows} rows{why}")
        survey.sample = strata.sample()
        return survey


class Strata:
    """A stratified sample of rows whose number is not known before: when there are too many, stretches are joined."""

    def __init__(self, random: np.random.Generator):
        self._random, self._width, self._seen, self._kept = random, 1, 0, []

    def extend(self, rows: np.ndarray) -> None:
        """Take in rows [n, d], in their order."""
        for row in rows:
            place = self._seen % self._width
            if place == 0:
                self._kept.append(row)
            elif self._random.integers(place + 1) == 0:
                self._kept[-1] = row
            self._seen += 1
            if len(self._kept) == SAMPLE and self._seen % self._width == 0:
                pairs = zip(self._kept[::2], self._kept[1::2], strict=True)
                self._kept = [pair[self._random.integers(2)] for pair in pairs]
                self._width *= 2

    def sample(self) -> np.ndarray:
        """One row of each stretch [n, d]."""
        return np.stack(self._kept)
