"""What a broker is to the rest of the system: three verbs and three places to read from.

Errors, named for what the caller does next:

    BrokerError
    ├── BrokerUnavailable   nobody answers: tell the caller now, try again later
    ├── TopicMissing        the broker answers, there is no such topic or partition: create it
    ├── QueueFull           more is waiting to be sent than may wait: slow down
    ├── MessageTooLarge     it will never be accepted: do not retry
    ├── NotSupported        this kind of broker cannot do it: do without
    └── ClientBroken        this process cannot go on, and a new one may: end
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol


class BrokerError(Exception):
    """The broker could not do what was asked. The only exception that leaves a broker."""


class BrokerUnavailable(BrokerError):
    """No broker answers."""


class TopicMissing(BrokerError):
    """The broker answers, and has no such topic or partition."""


class QueueFull(BrokerError):
    """Too much is waiting to be sent."""


class MessageTooLarge(BrokerError):
    """The message is over the broker's limit."""


class ClientBroken(BrokerError):
    """This process cannot go on, whatever the broker does: new clients in it were of no help."""


class NotSupported(BrokerError):
    """This kind of broker cannot do it."""


@dataclass(frozen=True, slots=True)
class Message:
    """What every broker can carry: bytes, and text beside them."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as a subscription hands it out, with where it came from.

    timestamp_ms is when it was published (epoch, the publisher's clock), 0 where the broker does not say.
    receipt is what the broker wants back with the acknowledgement.
    """

    message: Message
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    receipt: object = field(default=None, compare=False, repr=False)


class Subscription(Protocol):
    """A share of a topic. One thread receives; any thread may acknowledge.

    It outlives the topic: one that was deleted and created again is delivered from its beginning.
    """

    def receive(self, max_messages: int, timeout: float) -> Sequence[Delivery]:
        """Wait up to timeout seconds for one message, then take what is there, at most max_messages.

        Raises ClientBroken where messages are there, and reading anew did not bring them.
        """

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Never deliver these again to this group. In any order; what is not acknowledged comes again."""

    def close(self) -> None:
        """Leave the group, so that the others take over at once."""


class Inbox(Protocol):
    """A private place for replies."""

    @property
    def address(self) -> str:
        """What to put into reply_to: `topic/detail`, opaque but for the topic before the slash.

        Only receive() changes it, and only where the topic was created again without that place.
        """

    def receive(self, max_messages: int, timeout: float) -> Sequence[Message]:
        """As Subscription.receive. Raises BrokerUnavailable when the last connection is lost."""

    def renew(self) -> None:
        """Go on where it is with another client, for one that is silent. Raises BrokerError."""

    def close(self) -> None:
        """Stop listening."""


class Records(Protocol):
    """A topic as the broker keeps it, read without a group: nothing is acknowledged, nobody notices.

    Owned by one thread.
    """

    def bounds(self) -> Mapping[int, range]:
        """For each partition the offsets that it has now."""

    def read(self, partition: int, offsets: range) -> Iterator[Delivery]:
        """Those of the offsets that are there, oldest first; it ends. Raises BrokerUnavailable."""

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        """Delete in each of these partitions all that is older than the offset. Raises NotSupported."""

    def close(self) -> None:
        """Stop reading."""


def feed(topic: str) -> str:
    """The address that all who listen to the topic hear."""
    return f"{topic}/0"


class Broker(Protocol):
    """Safe to use from several threads. Make it in the process that uses it: no client survives a fork."""

    def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
        """Send to a topic or to an inbox's address. Returns at once; the future ends when the broker has it.

        gather: it may wait some milliseconds for others to be sent with it, which costs all of them less.
        The future fails with BrokerError. Raises QueueFull and MessageTooLarge at once.
        """

    def subscribe(self, topic: str, group: str, instance_id: str = "") -> Subscription:
        """Join the group; its members share the topic, from the oldest message nobody acknowledged.

        A member with an instance id that is killed, not closed, keeps its share for a short time. Another
        with the same id takes its place; the first goes on without an id.
        """

    def open_inbox(self, topic: str, instance_id: str) -> Inbox:
        """Open an inbox that gets every message sent to its address from now on."""

    def listen(self, topic: str) -> Inbox:
        """Every listener gets each message sent to feed(topic) from now on."""

    def records(self, topic: str) -> Records:
        """Look at what the topic has. Raises TopicMissing."""

    def close(self) -> None:
        """Send what is still waiting, for a short while, then disconnect."""
