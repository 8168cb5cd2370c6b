"""What a broker is to the rest of the system: verbs to publish and subscribe, and places to read from.

Its errors are named for what the caller does next.
"""

import logging
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

Opened = TypeVar("Opened")

ALONE = -1


class BrokerError(Exception):
    """The broker could not do what was asked. The only kind of exception that a broker raises."""


class BrokerUnavailable(BrokerError):
    """No broker answers: report it now, retry later."""


class BrokerRefuses(BrokerUnavailable):
    """It answers, but password or certificate is not accepted: correct the settings or the broker's."""


class TopicMissing(BrokerError):
    """The broker answers, but has no such topic or partition: create it."""


class QueueFull(BrokerError):
    """Too many messages are waiting to be sent: slow down."""


class MessageTooLarge(BrokerError):
    """The message exceeds the broker's limit: do not retry."""


class ClientBroken(BrokerError):
    """This process cannot go on, and replacing its clients did not help: exit and start a new one."""


class NoSuchRecord(BrokerError):
    """The topic has no record there, or not any more."""


class NotSupported(BrokerError):
    """This kind of broker cannot do it: do without."""


@dataclass(frozen=True, slots=True)
class Message:
    """What every broker can carry: bytes with text headers."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Position(Protocol):
    """Where a message is in its topic. Its broker makes it, and no one else looks inside.

    It can be sorted, hashed, compared, and printed.
    """

    def __lt__(self, other: Any, /) -> bool: ...

    def __hash__(self) -> int: ...


class LogPosition(NamedTuple):
    """The Position of brokers that number the records of each partition.

    place: in a frame, or ALONE.
    """

    partition: int
    offset: int
    place: int = ALONE

    def __str__(self) -> str:
        at = f"{self.partition}/{self.offset}"
        return at if self.place == ALONE else f"{at}.{self.place}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message from a subscription, and where it came from.

    timestamp_ms: when it was published (epoch, by the publisher's clock); 0 if the broker does not say.
    receipt: opaque; the broker needs it back with the acknowledgement.
    """

    message: Message
    topic: str
    position: Position
    timestamp_ms: int
    receipt: object = field(default=None, compare=False, repr=False)


class Subscription(Protocol):
    """A share of a topic. One thread receives; any thread may acknowledge.

    It outlives the topic: if that is deleted and created again, the new one is delivered from its beginning.
    """

    def receive(self, max_messages: int, timeout: float) -> Sequence[Delivery]:
        """Wait up to timeout seconds for one message, then take what is there, at most max_messages.

        What was sent together and exceeds max_messages is kept for the next call.
        Raises BrokerError; ClientBroken if new clients did not receive what the broker has, either.
        """

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Never deliver these to this group again. Any order; what is not acknowledged is redelivered."""

    def lag(self) -> int:
        """How many messages of its share it has not received, as far as it knows without asking the broker.

        Messages that were sent together may count as one. For the thread that receives.
        """

    def close(self) -> None:
        """Leave the group, so that the other members take over at once."""


class Inbox(Protocol):
    """A private place for replies."""

    @property
    def address(self) -> str:
        """What to put into reply_to: `topic/detail`. The detail is opaque.

        It changes only in receive(), and only if the topic was created again without that place.
        """

    def receive(self, max_messages: int, timeout: float) -> Sequence[Message]:
        """As Subscription.receive. Raises BrokerUnavailable when the last connection is lost."""

    def renew(self) -> None:
        """Replace a silent client, without losing the position. Raises BrokerError."""

    def close(self) -> None:
        """Stop listening."""


class Records(Protocol):
    """A topic as the broker stores it, read without taking anything from anybody. For one thread.

    Positions are given as they are printed. What is published after open is not necessarily seen.
    """

    def count(self, before: str = "") -> int:
        """How many there are now. before: only those that purge() with the same would delete."""

    def read(self, newest: int | None = None) -> Iterator[Delivery]:
        """Those that are there now, oldest first where the broker has an order.

        newest: at least as many of the newest as this, if there are. Raises BrokerUnavailable.
        """

    def find(self, position: str) -> Delivery:
        """Raises NoSuchRecord."""

    def delete(self, positions: Collection[str]) -> int:
        """Delete these for good, as far as the broker can. Returns how many. Raises NotSupported."""

    def purge(self, before: str = "") -> int:
        """Delete all for good. before: only older ones than this, of the same partition if there are any.

        Returns how many. Raises NoSuchRecord and NotSupported.
        """

    def close(self) -> None:
        """Stop reading."""


class LogRecords:
    """Implements Records for a topic that is a log, or several: its oldest records can be deleted."""

    def bounds(self) -> Mapping[int, range]:
        """The offsets that each partition has now."""
        raise NotImplementedError

    def read_offsets(self, partition: int, offsets: range) -> Iterator[Delivery]:
        """Those of the offsets that exist, oldest first. Raises BrokerUnavailable."""
        raise NotImplementedError

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        """In each of these partitions, delete everything before the offset. Raises NotSupported."""
        raise NotImplementedError

    def count(self, before: str = "") -> int:
        return sum(map(len, self._older(before).values()))

    def read(self, newest: int | None = None) -> Iterator[Delivery]:
        for partition, offsets in self.bounds().items():
            yield from self.read_offsets(partition, offsets if newest is None else offsets[-newest:])

    def find(self, position: str) -> Delivery:
        at = _log_position(position)
        held = self._held(at)
        if at.offset in held:
            for found in self.read_offsets(at.partition, range(at.offset, at.offset + 1)):
                return found
        has = f"{held[0]} to {held[-1]}" if held else "none"
        raise NoSuchRecord(f"no record {position}: partition {at.partition} has {has}")

    def delete(self, positions: Collection[str]) -> int:
        """Up to the first in each partition that is to be kept."""
        gone = set(map(_log_position, positions))
        return self._delete(
            {
                partition: range(
                    held.start, next((at for at in held if LogPosition(partition, at) not in gone), held.stop)
                )
                for partition, held in self.bounds().items()
            }
        )

    def purge(self, before: str = "") -> int:
        return self._delete(self._older(before))

    def _delete(self, deletable: Mapping[int, range]) -> int:
        self.delete_before({partition: held.stop for partition, held in deletable.items() if held})
        return sum(map(len, deletable.values()))

    def _older(self, before: str) -> Mapping[int, range]:
        if not before:
            return self.bounds()
        at = _log_position(before)
        held = self._held(at)
        return {at.partition: range(held.start, max(held.start, min(at.offset, held.stop)))}

    def _held(self, at: LogPosition) -> range:
        bounds = self.bounds()
        if at.partition not in bounds:
            raise NoSuchRecord(f"no record {at}: partitions are 0 to {max(bounds)}")
        return bounds[at.partition]


def _log_position(text: str) -> LogPosition:
    """Raises NoSuchRecord."""
    found = re.fullmatch(r"([0-9]{1,18})/([0-9]{1,18})", text, re.ASCII)
    if found is None:
        raise NoSuchRecord(f"{text!r} is not PARTITION/OFFSET, such as 3/12")
    return LogPosition(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that gateway and workers need.

    partitions: how many readers may share it, on brokers where that is limited. groups: those that read it,
    as far as they are known beforehand. is_kept: whether records() reads it.
    """

    name: str
    partitions: int
    retention_ms: int
    groups: Sequence[str] = ()
    is_kept: bool = False


class Planned(NamedTuple):
    """What the settings need on the broker: a topic, or a place to read one from.

    missing: apply() creates it. unfit: it must be changed, as fix says. differs: it works as it is.
    """

    what: str
    state: Literal["ready", "missing", "unfit", "differs"]
    detail: str = ""
    fix: str = ""


class Right(NamedTuple):
    """To do something with a topic or a group, or with all whose names begin like this."""

    operation: Literal["write", "read", "delete"]
    kind: Literal["topic", "group"]
    name: str
    is_prefix: bool = False


class Administration(Protocol):
    """Makes a broker have what gateways and workers need."""

    def plan(self, topics: Sequence[Topic], timeout: float = 30.0) -> Sequence[Planned]:
        """Compare what the broker has with these. Changes nothing. Raises BrokerError."""

    def apply(self, topics: Sequence[Topic], timeout: float = 30.0) -> Mapping[str, bool]:
        """Create what is missing. Returns for each thing whether it was created now. Raises BrokerError."""

    def grant(self, user: str, rights: Sequence[Right], timeout: float = 30.0) -> None:
        """Allow the user these things. What it was allowed before stays.

        Raises NotSupported and BrokerError.
        """


def feed(topic: str) -> str:
    """The address that every listener of the topic receives."""
    return f"{topic}/0"


@dataclass(slots=True)
class FrameCounts:
    """How many frames were sent, and the messages in them."""

    frames: int = 0
    messages: int = 0


class Broker(Protocol):
    """Thread-safe. Create it in the process that uses it: clients do not survive a fork."""

    frame_counts: FrameCounts

    def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
        """Send to a topic or to an inbox's address. Returns at once; the future ends when the broker has it.

        gather: it may wait some milliseconds to travel with others in a frame, which is cheaper for each.
        Only for places whose readers all read frames.
        The future fails with BrokerError. Raises QueueFull, MessageTooLarge, and BrokerUnavailable if closed.
        """

    def subscribe(self, topic: str, group: str, instance_id: str = "") -> Subscription:
        """Join the group, whose members share the topic, from the oldest unacknowledged message on.

        A member that has an instance id and is killed keeps its share for a short time. A new member with
        the same id takes over that share; if the old one is still alive, it continues without an id.
        Raises BrokerError.
        """

    def open_inbox(self, topic: str, instance_id: str) -> Inbox:
        """Open an inbox that receives every message sent to its address from now on. Raises BrokerError."""

    def listen(self, topic: str) -> Inbox:
        """Open an inbox that receives every message sent to feed(topic) from now on. Raises BrokerError."""

    def records(self, topic: str) -> Records:
        """Look at what the topic stores. Raises TopicMissing."""

    def close(self) -> None:
        """Send what is still waiting, for a short while, then disconnect."""


class Retries:
    """Pauses between attempts while a broker is unavailable. Logs the first failure of each kind in a series.

    For one thread. on_failure is told about every failure, before the pause.
    """

    def __init__(
        self,
        what: str,
        log: logging.Logger,
        pause_s: float,
        stopping: threading.Event,
        on_failure: Callable[[BrokerError], None] = lambda _: None,
    ) -> None:
        """what: to do, for the log: "read replies". stopping: ends the pauses and the attempts."""
        self._what = what
        self._log = log
        self._pause_s = pause_s
        self._stopping = stopping
        self._on_failure = on_failure
        self._logged: set[type[BrokerError]] = set()

    def until_success(self, attempt: Callable[[], Opened]) -> Opened | None:
        """Retry while the attempt raises BrokerError. Returns its result; None if stopping is set first."""
        while not self._stopping.is_set():
            try:
                return attempt()
            except BrokerError as error:
                self.failed(error)
        return None

    def failed(self, error: BrokerError) -> None:
        """An attempt has failed: pause."""
        if type(error) not in self._logged:
            self._log.warning("cannot %s, retrying: %s", self._what, error)
        self._logged.add(type(error))
        self._on_failure(error)
        self._stopping.wait(self._pause_s)

    def succeeded(self) -> None:
        """The broker is back: log the next failure again."""
        self._logged.clear()
