"""librdkafka's own log, made bearable: it repeats each failed connection ten times a second."""

import logging
import time
from collections.abc import Callable

REPEAT_AFTER_S = 30.0

_log = logging.getLogger("mlaas.kafka")


class ClientLog:
    """What librdkafka's client takes as its logger. Each kind of line comes once in 30 s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[object, float] = {}

    def log(self, level: int, text: str, kind: object = None, *args: object) -> None:
        """kind is librdkafka's facility: FAIL is a connection, CONFWARN a property of the other role."""
        now = self._clock()
        if kind == "CONFWARN" or now - self._last.get(kind, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return
        self._last[kind] = now
        # A lost connection is reported where it matters, by the one who waits for an answer.
        _log.log(min(level, logging.WARNING), text, kind, *args)
