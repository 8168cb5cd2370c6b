from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from messaging.broker import Delivery, Message
from worker.batching import Batch, NextBatch

FOREVER = 60.0


def deliveries(*offsets: int) -> list[Delivery]:
    return [Delivery(Message(b""), "t", 0, offset, 0) for offset in offsets]


def offsets(batch: Batch | None) -> list[int]:
    return [delivery.offset for delivery in batch.deliveries] if batch else []


@pytest.fixture
def other_thread():
    with ThreadPoolExecutor(1) as threads:
        yield threads


def test_without_a_wait_a_lone_message_goes_on_at_once() -> None:
    coming = NextBatch(10, 0)
    coming.add(deliveries(0))
    assert offsets(coming.take()) == [0]


def test_what_comes_while_the_model_is_busy_is_one_batch() -> None:
    coming = NextBatch(10, 0)
    for offset in range(3):
        coming.add(deliveries(offset))
    assert offsets(coming.take()) == [0, 1, 2]
    assert coming.is_empty()


def test_a_batch_grows_until_it_is_full() -> None:
    coming = NextBatch(3, 0)
    coming.add(deliveries(0))
    assert coming.wait_for_room(FOREVER) == 2
    coming.add(deliveries(1, 2))
    assert coming.wait_for_room(0.0) == 0


def test_who_waits_for_room_goes_on_when_the_batch_is_taken(other_thread: ThreadPoolExecutor) -> None:
    coming = NextBatch(2, 0)
    coming.add(deliveries(0, 1))
    room: Future[int] = other_thread.submit(coming.wait_for_room, FOREVER)
    assert offsets(coming.take()) == [0, 1]
    assert room.result(FOREVER) == 2


def test_who_waits_for_a_batch_gets_it_when_a_message_comes(other_thread: ThreadPoolExecutor) -> None:
    coming = NextBatch(2, 0)
    taken = other_thread.submit(coming.take)
    coming.add(deliveries(7))
    assert offsets(taken.result(FOREVER)) == [7]


def test_with_a_wait_a_batch_that_fills_up_goes_on_before_it_is_over(
    other_thread: ThreadPoolExecutor,
) -> None:
    coming = NextBatch(2, FOREVER)
    coming.add(deliveries(0))
    taken = other_thread.submit(coming.take)
    coming.add(deliveries(1))
    assert offsets(taken.result(FOREVER)) == [0, 1]


def test_the_wait_counts_from_the_first_message() -> None:
    now = 5.0
    coming = NextBatch(10, 2.0, clock=lambda: now)
    coming.add(deliveries(0))
    now = 6.5
    coming.add(deliveries(1))
    now = 7.0
    batch = coming.take()
    assert offsets(batch) == [0, 1]
    assert batch is not None
    assert batch.received_at == 5.0


def test_what_is_in_hand_is_taken_after_closing_and_then_nothing(other_thread: ThreadPoolExecutor) -> None:
    coming = NextBatch(10, FOREVER)
    coming.add(deliveries(0))
    coming.close()
    assert offsets(coming.take()) == [0]
    assert other_thread.submit(coming.take).result(FOREVER) is None


def test_where_fewer_are_to_be_taken_at_once_the_others_wait() -> None:
    coming = NextBatch(3, 0, most_at_once=2)
    coming.add(deliveries(0, 1, 2))
    assert coming.wait_for_room(0.0) == 0
    assert offsets(coming.take()) == [0, 1]
    assert coming.wait_for_room(0.0) == 2
    assert coming.count_of("t") == 1
    assert offsets(coming.take()) == [2]
    assert coming.count_of("t") == 0
