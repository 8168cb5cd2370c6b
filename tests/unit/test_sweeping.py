"""When the store sweeps, and how much at once."""

from collections.abc import Callable
from typing import cast

import pytest

from gateway.jobs.collector import MOST_SWEPT, Sweeping, next_most
from gateway.jobs.store import Store, StoreError, StoreUnavailable

NOW_MS = 1_000_000


class Sweeps:
    """A store that is too slow to sweep more than so many jobs."""

    def __init__(self, at_most: int, error: Callable[[str], Exception] = StoreUnavailable) -> None:
        self._at_most = at_most
        self._error = error
        self.asked: list[int] = []

    def sweep(self, now_ms: int, most: int) -> int:
        assert now_ms == NOW_MS
        self.asked.append(most)
        if most > self._at_most:
            raise self._error("timeout")
        return most


def turned(sweeps: Sweeps, *at_s: float) -> list[int]:
    sweeping = Sweeping(cast(Store, sweeps), 10)
    for each in at_s:
        sweeping.turn(each, NOW_MS)
    return sweeps.asked


def test_it_sweeps_at_once_and_after_each_interval() -> None:
    assert turned(Sweeps(MOST_SWEPT), 0, 9, 10, 11, 20, 22) == 3 * [MOST_SWEPT]


@pytest.mark.parametrize("error", [StoreError, StoreUnavailable, ValueError])
def test_a_sweep_that_fails_waits_for_the_interval_too_and_is_of_half_as_many_jobs(
    error: Callable[[str], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    assert turned(Sweeps(300, error), 0, 1, 11, 12, 22) == [1_000, 500, 250]
    assert "sweeping 1000 jobs" in caplog.text


def test_there_is_always_one_job_to_sweep_and_never_more_than_the_most() -> None:
    assert next_most(1, failed=True) == 1
    assert next_most(3, failed=True) == 1
    assert next_most(1, failed=False) == 2
    assert next_most(501, failed=False) == MOST_SWEPT
