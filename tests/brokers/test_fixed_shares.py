"""Members that share a topic without a group, as the workers of `mlaas up` do over its own broker."""

import time
import uuid
from collections.abc import Callable

import pytest

from deploy.kafka.local_kafka import LocalKafka
from messaging import connect
from messaging.broker import Broker, Delivery, Message
from messaging.kafka import EmbeddedBroker, url_of_share
from tests.brokers.conftest import create_topic, partition_of

PATIENCE_S = 30.0


class Sharing:
    def __init__(self, url: str) -> None:
        self.topic = f"t-{uuid.uuid4().hex[:8]}"
        # The embedded broker takes no offsets from outside of a group that has members.
        self.group = f"of-{self.topic}"
        self._url = url
        self._made: list[Broker] = []

    def member(self, number: int, of: int) -> Broker:
        self._made.append(connect(url_of_share(self._url, number, of)))
        return self._made[-1]

    def publish(self, *partitions: int) -> None:
        for partition in partitions:
            self._made[0].publish(f"{self.topic}/{partition}", Message(b"")).result(PATIENCE_S)

    def close(self) -> None:
        for broker in self._made:
            broker.close()


@pytest.fixture(params=["embedded", "kafka"])
def sharing(request: pytest.FixtureRequest):
    if request.param == "embedded":
        embedded: EmbeddedBroker = request.getfixturevalue("embedded")
        made = Sharing(embedded.url)
    else:
        kafka: LocalKafka = request.getfixturevalue("apache_kafka")
        made = Sharing(f"kafka://{kafka.bootstrap_servers}?client.id=test")
        create_topic(kafka.bootstrap_servers, made.topic, partitions=4)
    yield made
    made.close()


def received(receive: Callable[[int, float], object], count: int) -> list[Delivery]:
    found: list[Delivery] = []
    end = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} came"
        found += receive(count - len(found), 0.5)  # type: ignore[arg-type]
    return found


def test_each_has_its_partitions(sharing: Sharing) -> None:
    members = [sharing.member(number, 3).subscribe(sharing.topic, sharing.group) for number in (1, 2, 3)]
    sharing.publish(0, 1, 2, 3)
    its = [{partition_of(each) for each in received(member.receive, 1)} for member in members[1:]]
    assert [{partition_of(each) for each in received(members[0].receive, 2)}, *its] == [{0, 3}, {1}, {2}]
    for member in members:
        member.close()


def test_who_comes_in_the_place_of_a_killed_one_goes_on_where_that_one_was(sharing: Sharing) -> None:
    killed = sharing.member(1, 2).subscribe(sharing.topic, sharing.group, "worker-1")
    sharing.publish(0, 0, 2)
    taken = received(killed.receive, 3)
    killed.acknowledge(taken[:1])
    again: list[Delivery] = []
    end = time.monotonic() + PATIENCE_S
    while len(again) != 2:  # what was acknowledged is committed a second later
        assert time.monotonic() < end
        killed.receive(1, 0.5)
        other = sharing.member(1, 2).subscribe(sharing.topic, sharing.group, "worker-1")
        again = [*received(other.receive, 2), *other.receive(1, 1.0)]
        other.close()
    assert {each.position for each in again} == {each.position for each in taken[1:]}
    killed.close()
