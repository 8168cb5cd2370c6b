"""Whether an answer can be expected at all, judged by the answers that came."""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Liveness:
    """Times are monotonic seconds. A worker counts as alive for worker_silence_s after its last reply."""

    worker_silence_s: float
    heard_at: float | None = None
    trouble: str = "the reply inbox is not open yet"

    def opened(self) -> None:
        self.trouble = "no worker has answered yet"

    def heard(self, now: float) -> None:
        self.heard_at = now

    def lost(self, reason: str) -> None:
        """The broker is away: nothing heard before counts."""
        self.heard_at = None
        self.trouble = reason

    def silence(self, now: float) -> float:
        """Seconds since the last reply."""
        return math.inf if self.heard_at is None else now - self.heard_at

    def why_not_ready(self, now: float) -> str | None:
        """None when ready."""
        if self.heard_at is None:
            return self.trouble
        if self.silence(now) > self.worker_silence_s:
            return f"no worker has answered for {self.silence(now):.0f} s"
        return None
