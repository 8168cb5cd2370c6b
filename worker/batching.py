"""Micro-batches: one grows while the model works on the one before."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from messaging.broker import Delivery


@dataclass(frozen=True, slots=True)
class Batch:
    """received_at: when its first message was in hand, in the clock's seconds."""

    deliveries: list[Delivery]
    received_at: float


class NextBatch:
    """Between the thread that receives and the one that has the model work.

    With max_wait_s 0 a lone message goes on at once; batches form while the model is busy. max_wait_s counts
    from a batch's first message. most_at_once: where fewer than max_size are to be taken together.
    """

    def __init__(
        self,
        max_size: int,
        max_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        most_at_once: int | None = None,
    ) -> None:
        self._max_size = max_size
        self._most_at_once = most_at_once or max_size
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._changed = threading.Condition()
        self._deliveries: list[Delivery] = []
        self._received_at = 0.0
        self._closed = False

    def is_empty(self) -> bool:
        return not self._deliveries

    def count_of(self, topic: str) -> int:
        """How many of this topic wait."""
        with self._changed:
            return sum(delivery.topic == topic for delivery in self._deliveries)

    def wait_for_room(self, timeout: float) -> int:
        """How many more may be added: 0 if it was full for so many seconds."""
        with self._changed:
            self._changed.wait_for(self._has_room, timeout)
            return self._max_size - len(self._deliveries)

    def wait_until_taken(self, timeout: float) -> None:
        """So many seconds at most."""
        with self._changed:
            self._changed.wait_for(self.is_empty, timeout)

    def add(self, deliveries: Iterable[Delivery]) -> None:
        with self._changed:
            if not self._deliveries:
                self._received_at = self._clock()
            self._deliveries += deliveries
            self._changed.notify_all()

    def take(self) -> Batch | None:
        """Waits for a first message. None when it is closed and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._deliveries or self._closed)
            if not self._deliveries:
                return None
            left_s = self._received_at + self._max_wait_s - self._clock()
            self._changed.wait_for(lambda: not self._has_room() or self._closed, max(0.0, left_s))
            batch = Batch(self._deliveries[: self._most_at_once], self._received_at)
            self._deliveries = self._deliveries[self._most_at_once :]
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        """Nothing will be added any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return len(self._deliveries) < self._max_size
