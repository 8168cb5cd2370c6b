from messaging.kafka_places import OffsetTracker


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
