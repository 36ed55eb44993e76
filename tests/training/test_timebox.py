"""TimeBox: a training that ends with its time; and one that cannot says so early."""

import pytest

from invlib.config import TrainingConfig
from invlib.errors import InputError
from invlib.training.timebox import TimeBox
from invlib.training.trainer import learning_rate_factor


class Clock:
    """Stands still until a test sets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def boxed(minutes: float = 10, share: float = 0.25, *, opening: float = 60) -> tuple[TimeBox, Clock]:
    clock = Clock()
    box = TimeBox(minutes, share, clock)
    clock.now = opening
    box.begin()
    return box, clock


def test_the_last_validation_and_its_files_end_with_the_box():
    box, clock = boxed()
    box.keep(20)
    assert box.passed == 0
    clock.now = 600 - 1.25 * 20
    assert box.passed == pytest.approx(1)
    box.keep(10)
    assert box.passed == pytest.approx(1), "the longest validation counts"


def test_before_the_first_validation_a_tenth_is_kept_for_the_last():
    box, clock = boxed(opening=0)
    clock.now = 540
    assert box.passed == pytest.approx(1)


def test_the_rate_is_constant_and_falls_over_the_last_share_of_the_time():
    config = TrainingConfig(batch_size=1, max_steps=10**6, lr=1, warmup_steps=10, decay_share=0.25, min_lr_ratio=0.1)
    passed = (0, 0.5, 0.75, 0.875, 1, 1.2)
    factors = [learning_rate_factor(100, config, share) for share in passed]
    assert factors == pytest.approx([1, 1, 1, 0.55, 0.1, 0.1])
    assert learning_rate_factor(4, config, 0.0) == pytest.approx(0.5)


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_are_a_positive_number(minutes):
    with pytest.raises(InputError, match="--minutes must be a positive number"):
        TimeBox(minutes, 0.5)


def test_a_box_that_is_over_before_the_first_step_is_refused():
    with pytest.raises(InputError, match="--minutes 1 are too short: 55 s had gone by before the first step"):
        boxed(minutes=1, opening=55)


def test_a_warm_up_that_meets_the_cool_down_is_refused_half_way():
    box, clock = boxed(opening=0)  # 540 s of training, of which 405 at a constant rate
    clock.now = 200
    box.check(49, 100)
    box.check(50, 100)
    clock.now = 203
    box.check(49, 100)
    with pytest.raises(InputError, match="too short: 50 of 100 warm-up steps took 203 s, the cool-down is to take 135"):
        box.check(50, 100)
    box.check(100, 100)


def test_a_warm_up_that_has_met_the_cool_down_is_refused_at_once():
    box, clock = boxed(opening=0)
    clock.now = 406
    with pytest.raises(InputError, match="1 of 100 warm-up steps"):
        box.check(1, 100)
