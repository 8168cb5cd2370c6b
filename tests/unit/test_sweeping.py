"""When the store sweeps, and how much at once."""

from collections.abc import Callable
from typing import cast

import pytest

from gateway.jobs.collector import MOST_SWEPT, Sweeper
from gateway.jobs.store import Store, StoreError, StoreUnavailable

NOW_MS = 1_000_000


class Sweeps:
    """A store that is too slow to sweep more than so many jobs."""

    def __init__(self, at_most: int, error: Callable[[str], Exception] = StoreUnavailable) -> None:
        self.at_most = at_most
        self._error = error
        self.asked: list[int] = []

    def sweep(self, now_ms: int, most: int) -> int:
        assert now_ms == NOW_MS
        self.asked.append(most)
        if most > self.at_most:
            raise self._error("timeout")
        return most


def turned(sweeps: Sweeps, *at_s: float) -> list[int]:
    sweeper = Sweeper(cast(Store, sweeps), 10)
    for each in at_s:
        sweeper.turn(each, NOW_MS)
    return sweeps.asked


def test_it_sweeps_at_once_and_after_each_interval() -> None:
    assert turned(Sweeps(MOST_SWEPT), 0, 9, 10, 11, 20, 22) == 3 * [MOST_SWEPT]


@pytest.mark.parametrize("error", [StoreError, StoreUnavailable, ValueError])
def test_a_sweep_that_fails_waits_for_the_interval_too_and_is_of_half_as_many_jobs(
    error: Callable[[str], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    assert turned(Sweeps(300, error), 0, 1, 11, 12, 22) == [1_000, 500, 250]
    assert "sweeping 1000 jobs" in caplog.text


def test_a_sweep_is_of_one_job_at_least_and_doubles_up_to_the_most() -> None:
    failing = Sweeps(0)
    assert turned(failing, *range(0, 220, 20)) == [1_000, 500, 250, 125, 62, 31, 15, 7, 3, 1, 1]

    recovering = Sweeps(300)
    sweeper = Sweeper(cast(Store, recovering), 10)
    for each in (0, 20, 40):
        sweeper.turn(each, NOW_MS)
    recovering.at_most = MOST_SWEPT
    for each in (60, 80, 100):
        sweeper.turn(each, NOW_MS)
    assert recovering.asked == [1_000, 500, 250, 500, 1_000, 1_000]
