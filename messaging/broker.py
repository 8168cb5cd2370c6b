"""What a broker is to the rest of the system: verbs to publish and subscribe, and places to read from.

Its errors are named for what the caller does next.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

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
    """A topic as the broker stores it, read without a group or acknowledgements. For one thread."""

    def bounds(self) -> Mapping[int, range]:
        """The offsets that each partition has now."""

    def read(self, partition: int, offsets: range) -> Iterator[Delivery]:
        """Those of the offsets that exist, oldest first. Raises BrokerUnavailable."""

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        """In each of these partitions, delete everything before the offset. Raises NotSupported."""

    def close(self) -> None:
        """Stop reading."""


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
