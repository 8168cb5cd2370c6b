"""Having the store close and delete what is over, now and then."""

import logging

from gateway.jobs.store import Store, StoreError

_log = logging.getLogger("mlaas.jobs")

MOST_AT_ONCE = 1_000


class Sweeping:
    """A sweep that fails is logged, and the next is of half as many jobs: the store may be too slow."""

    def __init__(self, store: Store, interval_s: float) -> None:
        self._store = store
        self._interval_s = interval_s
        self._swept_at_s = float("-inf")
        self._most = MOST_AT_ONCE

    def turn(self, at_s: float, now_ms: int) -> None:
        """Sweep if it is time for that. at_s: of a clock that only goes forward."""
        if at_s - self._swept_at_s <= self._interval_s:
            return
        self._swept_at_s = at_s
        failed = True
        try:
            self._store.sweep(now_ms, self._most)
            failed = False
        except StoreError as error:
            _log.warning("sweeping %d jobs: %s", self._most, error)
        except Exception:
            _log.exception("sweeping %d jobs", self._most)
        self._most = next_most(self._most, failed=failed)


def next_most(most: int, *, failed: bool) -> int:
    """How many to sweep after a sweep of so many."""
    return max(1, most // 2) if failed else min(2 * most, MOST_AT_ONCE)
