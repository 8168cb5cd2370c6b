from messaging.kafka_reader import OffsetTracker


def tracker(*offsets: int) -> OffsetTracker:
    made = OffsetTracker()
    for offset in offsets:
        made.received(offset)
    return made


def test_in_order_each_finish_moves_the_commit_on() -> None:
    tracked = tracker(5, 6)
    assert tracked.finished(5) == 6
    assert tracked.finished(6) == 7


def test_nothing_is_committed_past_a_message_that_is_not_finished() -> None:
    tracked = tracker(5, 6, 7)
    assert tracked.finished(7) is None
    assert tracked.finished(6) is None
    assert tracked.finished(5) == 8


def test_gaps_in_offsets_do_not_hold_the_commit_up() -> None:
    tracked = tracker(5, 9)
    assert tracked.finished(5) == 6
    assert tracked.finished(9) == 10


def test_a_partition_read_anew_forgets_what_was_finished_before() -> None:
    tracked = tracker(5, 6, 7)
    tracked.finished(6)
    for offset in (5, 6, 7):
        tracked.received(offset)
    assert tracked.finished(5) == 6


def test_what_was_never_received_or_is_finished_already_changes_nothing() -> None:
    tracked = tracker(5)
    assert tracked.finished(4) is None
    assert tracked.finished(5) == 6
    assert tracked.finished(5) is None


def test_a_frame_is_finished_when_each_of_its_messages_is_however_often_one_is_said_to_be() -> None:
    tracked = OffsetTracker()
    tracked.received(5, messages=3)
    tracked.received(6)
    assert tracked.finished(6) is None
    assert [tracked.finished(5, place) for place in (2, 2, 0, 2, 0)] == [None] * 5
    assert tracked.finished(5, 1) == 7
