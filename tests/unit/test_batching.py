"""What waits in lanes: batches of small pictures, larger ones to be prepared, and those that are."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from messaging.broker import Delivery, LogPosition, Message
from messaging.picture_header import Size
from tests.faults.corpus.expensive import jpeg, png, webp
from tests.unit.workers import LARGE_SANDAL, MEDIUM_SANDAL, SANDAL
from worker.batching import BATCH_MS, BatchLane, Lanes, PriorityLane, Queued, assess
from worker.pipe import PreparedPicture

FOREVER = 60.0
REQUESTS, JOBS = "requests", "jobs"


def delivery(offset: int, picture: bytes = b"", topic: str = REQUESTS, mode: str = "") -> Delivery:
    return Delivery(Message(picture, {"mode": mode} if mode else {}), topic, LogPosition(0, offset), 0)


def number(delivery: Delivery) -> int:
    assert isinstance(delivery.position, LogPosition)
    return delivery.position.offset


def queued(*offsets: int, cost_ms: float = 0.0, at: float = 0.0, topic: str = REQUESTS) -> list[Queued]:
    return [Queued(delivery(offset, topic=topic), cost_ms, at) for offset in offsets]


def offsets(batch: Sequence[Queued] | None) -> list[int]:
    return [number(each.delivery) for each in batch or []]


def prepared(*offsets: int, topic: str = REQUESTS) -> list[Queued]:
    pixels = PreparedPicture(b"", "image", (), 1.0, ("m", "1"), False)
    return [each.made_into(pixels, "") for each in queued(*offsets, cost_ms=50.0, topic=topic)]


def all_of(lane: PriorityLane) -> list[int]:
    lane.close()
    found = []
    while (batch := lane.take()) is not None:
        found += offsets(batch)
    return found


@pytest.fixture
def other_thread():
    with ThreadPoolExecutor(1) as threads:
        yield threads


def test_what_is_ready_need_not_be_waited_for() -> None:
    now = 0.0
    lane = BatchLane(3, 1.0, clock=lambda: now)
    assert lane.take_ready() is None
    lane.add(queued(0, 1))
    assert lane.take_ready() is None
    lane.add(queued(2))
    assert offsets(lane.take_ready()) == [0, 1, 2]
    lane.add(queued(3))
    assert lane.take_ready() is None
    now = 1.0
    assert offsets(lane.take_ready()) == [3]


def test_without_a_wait_a_lone_message_goes_on_at_once() -> None:
    lane = BatchLane(10, 0)
    lane.add(queued(0))
    assert offsets(lane.take()) == [0]


def test_what_comes_while_the_model_is_busy_is_one_batch() -> None:
    lane = BatchLane(10, 0)
    for offset in range(3):
        lane.add(queued(offset))
    assert offsets(lane.take()) == [0, 1, 2]
    assert lane.is_empty()


def test_a_batch_grows_until_it_is_full() -> None:
    lane = BatchLane(3, 0)
    lane.add(queued(0))
    assert lane.wait_for_room(FOREVER) == 2
    lane.add(queued(1, 2))
    assert lane.wait_for_room(0.0) == 0


def test_together_its_pictures_cost_no_more_than_a_batch_may() -> None:
    lane = BatchLane(10, 0)
    lane.add(queued(0, 1, 2, 3, 4, cost_ms=0.4 * BATCH_MS))
    lane.add(queued(5, cost_ms=2 * BATCH_MS))
    lane.add(queued(6))
    assert [offsets(lane.take()) for _ in range(4)] == [[0, 1], [2, 3], [4], [5]]
    assert offsets(lane.take()) == [6]


def test_who_waits_for_room_goes_on_when_the_batch_is_taken(other_thread: ThreadPoolExecutor) -> None:
    lane = BatchLane(2, 0)
    lane.add(queued(0, 1))
    room: Future[int] = other_thread.submit(lane.wait_for_room, FOREVER)
    assert offsets(lane.take()) == [0, 1]
    assert room.result(FOREVER) == 2


def test_who_waits_for_a_batch_gets_it_when_a_message_comes(other_thread: ThreadPoolExecutor) -> None:
    lane = BatchLane(2, 0)
    taken = other_thread.submit(lane.take)
    lane.add(queued(7))
    assert offsets(taken.result(FOREVER)) == [7]


def test_with_a_wait_a_batch_that_fills_up_goes_on_before_it_is_over(
    other_thread: ThreadPoolExecutor,
) -> None:
    lane = BatchLane(2, FOREVER, clock=lambda: 0.0)
    lane.add(queued(0))
    taken = other_thread.submit(lane.take)
    lane.add(queued(1))
    assert offsets(taken.result(FOREVER)) == [0, 1]


def test_the_wait_counts_from_the_first_message() -> None:
    lane = BatchLane(10, 2.0, clock=lambda: 7.0)
    lane.add(queued(0, at=5.0))
    lane.add(queued(1, at=6.5))
    batch = lane.take()
    assert offsets(batch) == [0, 1]
    assert batch is not None
    assert batch[0].received_at == 5.0


def test_what_is_in_hand_is_taken_after_closing_and_then_nothing(other_thread: ThreadPoolExecutor) -> None:
    lane = BatchLane(10, FOREVER)
    lane.add(queued(0))
    lane.close()
    assert offsets(lane.take()) == [0]
    assert other_thread.submit(lane.take).result(FOREVER) is None


def test_in_turn_goes_what_came_first_unless_it_costs_much_more() -> None:
    lane = PriorityLane(JOBS, 10_000, 1_000)
    for each in (
        *queued(0, cost_ms=600),
        *queued(1, cost_ms=50, at=0.1),
        *queued(2, cost_ms=50, at=0.2),
        *queued(3, cost_ms=50, at=5.6),
    ):
        assert lane.add(each)
    assert all_of(lane) == [1, 2, 0, 3]


def test_a_jobs_picture_lets_others_go_first_for_a_while() -> None:
    lane = PriorityLane(JOBS, 10_000, 1_000)
    for each in (*queued(0, topic=JOBS), *queued(1, at=1.9), *queued(2, at=2.1)):
        lane.add(each)
    assert all_of(lane) == [1, 0, 2]


def test_there_is_room_for_a_bounded_cost_and_always_for_one_and_for_jobs() -> None:
    lane = PriorityLane(JOBS, 1_000, 1_000)
    assert [lane.add(each) for each in queued(0, 1, cost_ms=5_000)] == [True, False]
    assert [lane.add(each) for each in queued(2, 3, cost_ms=5_000, topic=JOBS)] == [True, True]
    assert lane.count_of(JOBS) == 2
    lane.take()
    assert not lane.add(queued(4, cost_ms=1)[0])
    assert lane.add(queued(5, cost_ms=1)[0], force=True)


def test_and_for_a_bounded_number_of_bytes() -> None:
    lane = PriorityLane(JOBS, 1_000, 1_000)
    added = [lane.add(Queued(delivery(offset, bytes(400)), 1.0, 0.0)) for offset in range(3)]
    assert added == [True, True, False]


@pytest.mark.parametrize(
    ("picture", "mode", "size"),
    [
        (b"", "", Size.SMALL),
        (b"no picture" * 1_000_000, "", Size.SMALL),
        (SANDAL, "", Size.SMALL),
        (SANDAL, "photo", Size.MEDIUM),
        (MEDIUM_SANDAL, "", Size.MEDIUM),
        (LARGE_SANDAL, "", Size.LARGE),
        (png(100), "raw28", Size.SMALL),
        (png(100), "", Size.MEDIUM),
        (png(3_000), "", Size.LARGE),
        (webp(), "", Size.LARGE),
        (jpeg(100), "", Size.LARGE),
        (jpeg(101), "", Size.SMALL),
        (webp(5_001), "", Size.SMALL),
    ],
    ids=[
        *("nothing", "no picture", "small", "as a photo", "medium", "large", "as it is", "product", "pixels"),
        *("webp", "scans", "refused for its scans", "refused for its pixels"),
    ],
)
def test_the_header_chooses_the_lane(picture: bytes, mode: str, size: Size) -> None:
    lanes = Lanes(
        JOBS,
        max_batch_size=10,
        max_batch_wait_s=0,
        max_waiting_cost_ms=1_000,
        max_waiting_bytes=100_000_000,
        max_pixels=25_000_000,
    )
    assert lanes.add([delivery(0, picture, mode=mode)]) == []
    counts = [lane.count_of(REQUESTS) for lane in (lanes.small, lanes.medium, lanes.large)]
    assert counts.index(1) == size
    assert sum(counts) == 1


def test_what_is_not_to_be_decoded_says_why() -> None:
    refused = assess(delivery(0, webp(5_001)), 25_000_000, 1.5)
    assert refused.refusal == "The picture has 5001 x 5001 pixels; at most 25000000 are allowed."
    assert refused.received_at == 1.5
    assert assess(delivery(0, jpeg(101)), 25_000_000, 0).refusal == "The JPEG picture has over 100 scans."
    assert "incomplete" in assess(delivery(0, b"\xff\xd8\xff"), 25_000_000, 0).refusal
    assert assess(delivery(0, webp()), 25_000_000, 0).refusal == ""


def lanes_with_few_places() -> Lanes:
    return Lanes(
        JOBS,
        max_batch_size=10,
        max_batch_wait_s=0,
        max_waiting_cost_ms=200,
        max_waiting_bytes=100_000_000,
        max_pixels=25_000_000,
    )


def test_requests_without_room_are_handed_back_and_the_others_wait_in_their_lanes() -> None:
    lanes = lanes_with_few_places()
    pictures = [LARGE_SANDAL, SANDAL, LARGE_SANDAL, MEDIUM_SANDAL, SANDAL]
    left = lanes.add(delivery(offset, picture) for offset, picture in enumerate(pictures))
    assert [number(each) for each in left] == [2]
    assert offsets(lanes.small.take()) == [1, 4]
    assert (all_of(lanes.medium), all_of(lanes.large)) == ([3], [0])


def test_no_more_of_a_job_is_taken_while_a_large_picture_of_one_waits() -> None:
    lanes = lanes_with_few_places()
    lanes.add([delivery(0, SANDAL, JOBS), delivery(1, MEDIUM_SANDAL, JOBS), delivery(2, LARGE_SANDAL)])
    assert lanes.room_for_jobs(8) == 6
    lanes.add([delivery(3, LARGE_SANDAL, JOBS)])
    assert lanes.room_for_jobs(8) == 0


def test_prepared_pictures_wait_in_a_lane_of_their_own_and_go_one_at_a_time() -> None:
    lanes = lanes_with_few_places()
    assert all(map(lanes.pass_on, prepared(0, 1)))
    assert lanes.small.is_empty()
    assert lanes.room_for_jobs(8) == 8
    assert [offsets(lanes.prepared.take()) for _ in range(2)] == [[0], [1]]


def test_a_decoder_is_only_two_pictures_ahead_of_the_model(other_thread: ThreadPoolExecutor) -> None:
    lanes = lanes_with_few_places()
    added = other_thread.submit(lambda: [lanes.pass_on(each) for each in prepared(*range(20))])
    taken = []
    while len(taken) < 20:
        taken += offsets(lanes.prepared.take())
        assert lanes.prepared.count_of(REQUESTS) <= 2
    assert taken == list(range(20))
    assert all(added.result(FOREVER))


def test_nothing_is_passed_on_once_nothing_is_predicted(other_thread: ThreadPoolExecutor) -> None:
    lanes = lanes_with_few_places()
    waiting = other_thread.submit(lambda: [lanes.pass_on(each) for each in prepared(*range(3))])
    lanes.prepared.close()
    assert waiting.result(FOREVER)[2] is False
    assert lanes.pass_on(*prepared(9)) is False


def test_pictures_of_jobs_leave_no_room_for_others_while_they_wait_prepared() -> None:
    lanes = lanes_with_few_places()
    (waiting,) = prepared(0, topic=JOBS)
    lanes.pass_on(waiting)
    assert lanes.room_for_jobs(8) == 7


def test_what_was_in_a_batch_that_ended_the_process_goes_one_by_one_before_larger_ones() -> None:
    lanes = lanes_with_few_places()
    lanes.add([delivery(0, MEDIUM_SANDAL)])
    lanes.isolate(queued(1, 2, at=0.0))
    assert all_of(lanes.medium) == [1, 2, 0]
