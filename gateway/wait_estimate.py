"""How long a request that comes now would wait, judged by those that were answered lately."""

import math

_MEMORY_S = 2.0
_BUSY_MEMORY_S = 5.0
_STANDSTILL_S = 1.0
# The first answers of a worker that has just started are slow.
_ENOUGH = 5.0
# Of the time that the caller gives: what is admitted to the last of it comes too late at the next hiccup.
_SAFE_SHARE = 0.7
# A worker takes so many at once: a few that wait are answered together, in the time of one.
_SURE_FROM_PLACE = 32


class WaitEstimate:
    """What a place in the queue costs, the lesser of two estimates. Answers count less the older they are.

    A request that came when n were waiting, itself counted, and was answered after t seconds says t / n.
    After a standstill that says too much: the first answers then waited longest at the lowest places. So many
    answers in so many seconds that somebody waited say the other; of a standstill, one second counts.
    Times are in seconds.
    """

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._places = 0.0
        self._busy_s = 0.0
        self._answers = 0.0
        self._updated_at = 0.0

    def answered(self, place: int, waited_s: float, now: float) -> None:
        """A request that came at this place, counted from 1, has its answer."""
        since_s = max(0.0, now - self._updated_at) if self._answers else waited_s
        kept = math.exp(-since_s / _MEMORY_S)
        self._waited_s = self._waited_s * kept + waited_s
        self._places = self._places * kept + place
        busy_s = min(since_s, waited_s, _STANDSTILL_S)
        kept = math.exp(-busy_s / _BUSY_MEMORY_S)
        self._busy_s = self._busy_s * kept + busy_s
        self._answers = self._answers * kept + 1
        self._updated_at = now

    def wait_s(self, place: int) -> float:
        """Until one that comes at this place is answered; 0 before enough was learned."""
        if self._answers < _ENOUGH:
            return 0.0
        return place * min(self._waited_s / self._places, self._busy_s / self._answers)

    def is_too_long(self, place: int, timeout_s: float) -> bool:
        """Whether one that comes at this place will be answered too late. Of the first few nobody knows."""
        return place > _SURE_FROM_PLACE and self.wait_s(place) > _SAFE_SHARE * timeout_s

    def retry_after_s(self, waiting: int, timeout_s: float) -> int:
        """Whole seconds until those that wait now are so few that one more would be answered in time."""
        excess_s = self.wait_s(waiting) - _SAFE_SHARE * timeout_s
        return max(1, math.ceil(excess_s if excess_s > 0 else self.wait_s(waiting)))
