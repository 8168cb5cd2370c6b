"""Requests and pictures of jobs, side by side."""

from collections.abc import Sequence

import pytest

from messaging import SHARED, Queue
from messaging.broker import BrokerUnavailable, ClientBroken, Delivery, Message
from messaging.memory import MemoryBroker
from worker.consumer import Intake


def filled(requests: int, jobs: int) -> MemoryBroker:
    broker = MemoryBroker()
    for topic, count in (("requests", requests), ("jobs", jobs)):
        for number in range(count):
            broker.publish(topic, Message(f"{topic} {number}".encode()))
    return broker


def intake(broker: MemoryBroker) -> Intake:
    return Intake(broker, Queue(SHARED, "requests", "jobs"), "g", "")


def counts(deliveries: Sequence[Delivery]) -> tuple[int, int]:
    """How many of either."""
    topics = [delivery.topic for delivery in deliveries]
    return topics.count("requests"), topics.count("jobs")


def test_behind_a_backlog_of_jobs_requests_have_all_but_a_bounded_share() -> None:
    taking = intake(filled(requests=100, jobs=1000))
    assert [counts(taking.receive(32, 1, 8)) for _ in range(5)] == [(24, 8)] * 4 + [(4, 8)]


def test_behind_a_backlog_of_requests_jobs_have_their_share() -> None:
    taking = intake(filled(requests=1000, jobs=12))
    assert [counts(taking.receive(32, 1, 8)) for _ in range(3)] == [(24, 8), (28, 4), (32, 0)]


def test_no_more_is_taken_than_asked_for() -> None:
    taking = intake(filled(requests=10, jobs=10))
    assert counts(taking.receive(4, 1, 8)) == (2, 2)
    assert counts(taking.receive(9, 1, 8)) == (5, 4)


def test_one_at_a_time_requests_come_before_jobs() -> None:
    taking = intake(filled(requests=2, jobs=2))
    assert [counts(taking.receive(1, 0.01, 8)) for _ in range(5)] == [(1, 0), (1, 0), (0, 1), (0, 1), (0, 0)]


def test_jobs_can_be_left_where_they_are() -> None:
    taking = intake(filled(requests=1, jobs=2))
    without = [counts(taking.receive(32, 0.01, max_jobs=0)) for _ in range(2)]
    assert [*without, counts(taking.receive(32, 0.01, 8))] == [(1, 0), (0, 0), (0, 2)]


def test_nothing_is_taken_where_there_is_nothing() -> None:
    assert intake(MemoryBroker()).receive(32, 0.01, 8) == []


def test_what_is_not_acknowledged_comes_again_from_both() -> None:
    broker = filled(requests=3, jobs=3)
    first = intake(broker)
    taken = first.receive(32, 1, 8)
    first.acknowledge([each for each in taken if each.message.body not in (b"requests 1", b"jobs 2")])
    first.close()
    again = intake(broker).receive(32, 1, 8)
    assert sorted(each.message.body for each in again) == [b"jobs 2", b"requests 1"]


@pytest.mark.parametrize("error", [BrokerUnavailable, ClientBroken])
def test_jobs_in_hand_are_not_lost_when_requests_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """A client that cannot go on ends, and its jobs come to another."""
    taking = intake(filled(requests=0, jobs=3))

    def fail(*_: object) -> None:
        raise error("away")

    monkeypatch.setattr(taking._requests, "receive", fail)
    if error is ClientBroken:
        with pytest.raises(ClientBroken):
            taking.receive(32, 1, 8)
    else:
        assert counts(taking.receive(32, 1, 8)) == (0, 3)
        with pytest.raises(BrokerUnavailable):
            taking.receive(32, 1, 8)
