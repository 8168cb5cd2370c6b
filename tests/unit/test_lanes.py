"""Small pictures and large ones, side by side."""

import pytest

from messaging.broker import Delivery, Message
from worker.batching import NextBatch
from worker.lanes import Lanes, lane_of
from worker.pipe import Lane


def delivery(offset: int, size: int) -> Delivery:
    return Delivery(Message(bytes(size)), "t", 0, offset, 0)


def taken(batch: NextBatch) -> list[int]:
    found = batch.take()
    return [each.offset for each in found.deliveries] if found else []


@pytest.mark.parametrize(("size", "lane"), [(0, Lane.SMALL), (5_000, Lane.SMALL), (3_000_000, Lane.LARGE)])
def test_the_size_of_the_file_chooses_the_lane(size: int, lane: Lane) -> None:
    assert lane_of(delivery(0, size)) is lane


def test_small_ones_are_a_batch_and_large_ones_come_one_at_a_time() -> None:
    lanes = Lanes(10, 0)
    lanes.add(delivery(offset, 10 if offset % 2 else 1_000_000) for offset in range(5))
    lanes.close()
    assert [taken(lanes.small) for _ in range(2)] == [[1, 3], []]
    assert [taken(lanes.large) for _ in range(4)] == [[0], [2], [4], []]


def test_there_is_room_for_what_fits_into_either_lane() -> None:
    lanes = Lanes(3, 0)
    lanes.add([delivery(0, 10), delivery(1, 1_000_000), delivery(2, 1_000_000)])
    assert lanes.wait_for_room(0.0) == 1
    lanes.large.take()
    assert lanes.wait_for_room(0.0) == 2
