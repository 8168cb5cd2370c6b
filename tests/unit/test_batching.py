from collections.abc import Sequence

from messaging.broker import Delivery, Message
from worker.batching import Batch, collect


class Arrivals:
    """Messages by the time of their arrival; receiving moves the clock as a broker would."""

    def __init__(self, *times: float) -> None:
        self.now = 0.0
        self._waiting = [
            (time, Delivery(Message(b""), "t", 0, number, 0)) for number, time in enumerate(times)
        ]

    def receive(self, most: int, timeout: float) -> Sequence[Delivery]:
        end = self.now + timeout
        if not self._waiting or self._waiting[0][0] > end:
            self.now = end
            return []
        self.now = max(self.now, self._waiting[0][0])
        taken = [delivery for at, delivery in self._waiting if at <= self.now][:most]
        del self._waiting[: len(taken)]
        return taken

    def collect(self, max_size: int, max_wait_s: float) -> Batch | None:
        return collect(
            self.receive, max_size=max_size, max_wait_s=max_wait_s, patience_s=1.0, clock=lambda: self.now
        )


def offsets(batch: Batch | None) -> list[int]:
    return [delivery.offset for delivery in batch.deliveries] if batch else []


def test_without_a_wait_a_lone_message_goes_on_at_once() -> None:
    arrivals = Arrivals(0.5, 0.6)
    assert offsets(arrivals.collect(10, 0)) == [0]
    assert arrivals.now == 0.5


def test_without_a_wait_what_gathered_meanwhile_is_one_batch() -> None:
    arrivals = Arrivals(0.1, 0.2, 0.3)
    arrivals.now = 0.3
    assert offsets(arrivals.collect(10, 0)) == [0, 1, 2]


def test_a_batch_is_never_larger_than_allowed() -> None:
    arrivals = Arrivals(0, 0, 0)
    assert offsets(arrivals.collect(2, 1)) == [0, 1]
    assert offsets(arrivals.collect(2, 1)) == [2]


def test_the_wait_counts_from_the_first_message() -> None:
    arrivals = Arrivals(0.5, 0.55, 0.7)
    batch = arrivals.collect(10, 0.1)
    assert offsets(batch) == [0, 1]
    assert batch is not None
    assert batch.received_at == 0.5
    assert arrivals.now == 0.6


def test_a_full_batch_does_not_wait() -> None:
    arrivals = Arrivals(0, 0.05)
    assert offsets(arrivals.collect(2, 1)) == [0, 1]
    assert arrivals.now == 0.05


def test_nothing_comes_of_nothing() -> None:
    arrivals = Arrivals()
    assert arrivals.collect(10, 1) is None
    assert arrivals.now == 1.0
