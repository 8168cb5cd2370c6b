"""So many requests a second on average, and so many at once."""

from typing import NamedTuple


class Rate(NamedTuple):
    """burst: how many may come at once after a pause."""

    per_second: float
    burst: int


class TokenBucket:
    """Full at first. Times are monotonic seconds."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate.burst)
        self._counted_at = now

    def take(self, now: float) -> float:
        """0 if a token was there and is taken; else in how many seconds there will be one."""
        passed = max(0.0, now - self._counted_at)
        self._tokens = min(float(self.rate.burst), self._tokens + passed * self.rate.per_second)
        self._counted_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate.per_second
