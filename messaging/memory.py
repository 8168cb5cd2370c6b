"""A broker in memory, for tests within one process."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from typing import TypeVar

from messaging import frames
from messaging.broker import (
    BrokerUnavailable,
    Delivery,
    FrameCounts,
    LogPosition,
    LogRecords,
    Message,
    MessageTooLarge,
    Position,
    feed,
)

T = TypeVar("T")


class MemoryBroker:
    """Implements Broker. Like Kafka, it keeps every message for groups that subscribe later."""

    def __init__(self, *, max_message_bytes: int = 1_000_000) -> None:
        self.frame_counts = FrameCounts()
        self._max_message_bytes = max_message_bytes
        self._changed = threading.Condition()
        self._topics: dict[str, list[Delivery]] = defaultdict(list)
        self._ends: dict[str, int] = defaultdict(int)
        self._waiting: dict[tuple[str, str], deque[Delivery]] = {}
        self._inboxes: dict[str, list[deque[Message]]] = defaultdict(list)
        self._numbers = count()
        self._closed = False

    def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
        if self._closed:
            raise BrokerUnavailable("the broker is closed")
        if len(message.body) > self._max_message_bytes:
            raise MessageTooLarge(
                f"{len(message.body)} bytes; at most {self._max_message_bytes} are accepted"
            )
        with self._changed:
            if "/" in address:
                for inbox in self._inboxes.get(address, ()):
                    inbox.extend(frames.messages_of(message) or [message])
            else:
                self._append(address, message)
            self._changed.notify_all()
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def subscribe(self, topic: str, group: str, instance_id: str = "") -> "MemorySubscription":
        with self._changed:
            kept = (each for delivery in self._topics[topic] for each in _apart(delivery))
            waiting = self._waiting.setdefault((topic, group), deque(kept))
        return MemorySubscription(self._changed, waiting)

    def open_inbox(self, topic: str, instance_id: str) -> "MemoryInbox":
        return self._inbox(f"{topic}/{next(self._numbers)}")

    def listen(self, topic: str) -> "MemoryInbox":
        return self._inbox(feed(topic))

    def records(self, topic: str) -> "MemoryRecords":
        return MemoryRecords(self, topic)

    def kept(self, topic: str) -> tuple[Sequence[Delivery], int]:
        """What the topic stores, and the offset of its next message."""
        with self._changed:
            return tuple(self._topics[topic]), self._ends[topic]

    def delete_before(self, topic: str, offset: int) -> None:
        with self._changed:
            first = LogPosition(0, offset)
            self._topics[topic] = [its for its in self._topics[topic] if not its.position < first]
            for (its_topic, _), waiting in self._waiting.items():
                while its_topic == topic and waiting and waiting[0].position < first:
                    waiting.popleft()

    def close(self) -> None:
        self._closed = True

    def _inbox(self, address: str) -> "MemoryInbox":
        waiting: deque[Message] = deque()
        with self._changed:
            self._inboxes[address].append(waiting)
        return MemoryInbox(self._changed, address, waiting)

    def _append(self, topic: str, message: Message) -> None:
        delivery = Delivery(message, topic, LogPosition(0, self._ends[topic]), int(time.time() * 1000))
        self._ends[topic] += 1
        self._topics[topic].append(delivery)
        for (its_topic, _), waiting in self._waiting.items():
            if its_topic == topic:
                waiting.extend(_apart(delivery))


class MemorySubscription:
    def __init__(self, changed: threading.Condition, waiting: deque[Delivery]) -> None:
        self._changed = changed
        self._waiting = waiting
        self._unacknowledged: dict[Position, Delivery] = {}

    def receive(self, max_messages: int, timeout: float) -> Sequence[Delivery]:
        with self._changed:
            taken = _take(self._changed, self._waiting, max_messages, timeout)
            self._unacknowledged.update({delivery.position: delivery for delivery in taken})
            return taken

    def lag(self) -> int:
        return len(self._waiting)

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        with self._changed:
            for delivery in deliveries:
                self._unacknowledged.pop(delivery.position, None)

    def close(self) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(self._unacknowledged.values()))
            self._unacknowledged.clear()
            self._changed.notify_all()


class MemoryInbox:
    def __init__(self, changed: threading.Condition, address: str, waiting: deque[Message]) -> None:
        self.address = address
        self._changed = changed
        self._waiting = waiting

    def receive(self, max_messages: int, timeout: float) -> Sequence[Message]:
        with self._changed:
            return _take(self._changed, self._waiting, max_messages, timeout)

    def renew(self) -> None:
        pass

    def close(self) -> None:
        with self._changed:
            self._waiting.clear()


class MemoryRecords(LogRecords):
    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic

    def bounds(self) -> Mapping[int, range]:
        kept, end = self._broker.kept(self._topic)
        return {0: range(end - len(kept), end)}

    def read_offsets(self, partition: int, offsets: range) -> Iterator[Delivery]:
        kept, end = self._broker.kept(self._topic)
        numbered = enumerate(kept, end - len(kept))
        return (delivery for offset, delivery in numbered if partition == 0 and offset in offsets)

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        for offset in offsets.values():
            self._broker.delete_before(self._topic, offset)

    def close(self) -> None:
        pass


def _apart(delivery: Delivery) -> list[Delivery]:
    """The messages of a frame."""
    messages = frames.messages_of(delivery.message)
    if messages is None:
        return [delivery]
    at = delivery.position
    assert isinstance(at, LogPosition)
    return [
        replace(delivery, message=message, position=at._replace(place=place))
        for place, message in enumerate(messages)
    ]


def _take(changed: threading.Condition, waiting: deque[T], most: int, timeout: float) -> list[T]:
    changed.wait_for(lambda: waiting, timeout)
    return [waiting.popleft() for _ in range(min(most, len(waiting)))]
