"""How long the caller waits."""

import time
from dataclasses import dataclass

from starlette.requests import Request

from gateway.errors import InvalidRequest, ReplyTimeout

HEADER = "X-Request-Timeout-Ms"


@dataclass(frozen=True, slots=True)
class Deadline:
    """Monotonic seconds."""

    started: float
    timeout_s: float

    def left_s(self) -> float:
        """Raises ReplyTimeout when nothing is left."""
        left = self.started + self.timeout_s - time.monotonic()
        if left <= 0:
            raise ReplyTimeout(f"no answer within {self.timeout_s:g} s: sending the picture took all of it")
        return left


def read_deadline(request: Request, most_ms: int) -> Deadline:
    """From now on; what the caller says, at most so many milliseconds. Raises InvalidRequest."""
    given = request.headers.get(HEADER)
    timeout_ms = most_ms if given is None else min(_milliseconds(given), most_ms)
    return Deadline(time.monotonic(), timeout_ms / 1000)


def shortened(given: str, most_ms: int) -> int:
    """As read_deadline, but that what is no number of milliseconds shortens nothing."""
    return min(int(given), most_ms) if _is_milliseconds(given) else most_ms


def _milliseconds(given: str) -> int:
    if _is_milliseconds(given):
        return int(given)
    raise InvalidRequest(f"{HEADER} {given[:20]!r} is not a whole number of milliseconds above 0")


def _is_milliseconds(given: str) -> bool:
    return given.isascii() and given.isdigit() and len(given) <= 15 and int(given) > 0
