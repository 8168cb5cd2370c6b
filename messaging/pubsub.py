"""Google Cloud Pub/Sub: a stream of messages from each subscription, and inboxes by a filter."""

import hashlib
import logging
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub as types

from messaging.broker import (
    BrokerError,
    BrokerRefuses,
    BrokerUnavailable,
    Delivery,
    Message,
    MessageTooLarge,
    TopicMissing,
    feed,
)
from messaging.frames import messages_of
from messaging.pubsub_admin import (
    LEASE_S,
    PubSubPosition,
    PubSubRecords,
    create_subscription,
    delivery_of,
    subscription_of,
)
from messaging.pubsub_link import (
    CLOSE_TIMEOUT_S,
    MOST_ACK_IDS,
    MOST_BODY_BYTES,
    REPLY_TO,
    RETRY_S,
    Link,
    Publisher,
    headers_of,
    parse_url,
    routing,
    translated,
)

_log = logging.getLogger("mlaas.pubsub")

_SUITABLE = re.compile(r"[A-Za-z0-9._-]{1,100}")

_EXTEND_AFTER_S = 4.0
_ACKNOWLEDGE_EVERY_S = 0.05
_MOST_UNACKNOWLEDGED = 128  # four batches
_MOST_UNACKNOWLEDGED_BYTES = 32 * 1024 * 1024
_SHORTEST_RETENTION_S = 600
_SHORTEST_EXPIRATION_S = 86_400
_HEARTBEAT_S = 30.0
# A stream that ends later than this has worked: the service ends each of them now and then.
_STREAM_WORKED_S = 1.0

_StreamingPullRequest = types.StreamingPullRequest.pb()
_StreamingPullResponse = types.StreamingPullResponse.pb()
_AcknowledgeRequest = types.AcknowledgeRequest.pb()
_ModifyAckDeadlineRequest = types.ModifyAckDeadlineRequest.pb()
_DeleteSubscriptionRequest = types.DeleteSubscriptionRequest.pb()
_ExpirationPolicy = types.ExpirationPolicy.pb()


class Stream:
    """What a subscription delivers to this process, which keeps it until it is acknowledged.

    One thread reads, one acknowledges and extends leases.
    """

    def __init__(
        self, link: Link, subscription: str, *, keep: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """keep: until acknowledge() is called; otherwise each is acknowledged as it comes."""
        self._link = link
        self._path = link.subscription(subscription)
        self._keep = keep
        self._first = _StreamingPullRequest(
            subscription=self._path,
            stream_ack_deadline_seconds=LEASE_S,
            client_id=uuid.uuid4().hex,
            max_outstanding_messages=_MOST_UNACKNOWLEDGED if keep else 0,
            max_outstanding_bytes=_MOST_UNACKNOWLEDGED_BYTES if keep else 0,
        )
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Any] = deque()
        self._failure: BrokerError | None = None
        self._over = threading.Event()
        self._streaming: Any = None
        self._leases: dict[str, float] = {}
        """When to extend each of those that are not acknowledged, in monotonic seconds."""
        self._acknowledged: list[str] = []
        self._reader = threading.Thread(target=self._run, name="pubsub-reader", daemon=True)
        self._keeper = threading.Thread(target=self._run_keeper, name="pubsub-keeper", daemon=True)
        self._reader.start()
        self._keeper.start()

    def take(self, most: int, timeout: float) -> list[Any]:
        """As Subscription.receive. Raises each failure of the stream once."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._failure, timeout)
            if self._waiting:
                return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return []

    def waiting(self) -> int:
        return len(self._waiting)

    def acknowledge(self, ids: Iterable[str]) -> None:
        with self._changed:
            for each in ids:
                if self._leases.pop(each, None) is not None:
                    self._acknowledged.append(each)

    def close(self) -> None:
        """Hand back what is not acknowledged, so that others get it at once."""
        if self._over.is_set():
            return
        self._over.set()
        if self._streaming is not None:
            self._streaming.cancel()
        self._reader.join()
        self._keeper.join()
        try:
            self._flush(CLOSE_TIMEOUT_S)
            self._modify(list(self._leases), 0, CLOSE_TIMEOUT_S)
        except BrokerError as error:
            _log.debug("close %s: %s", self._path, error)
        self._link.close()

    def _run(self) -> None:
        while not self._over.is_set():
            began = self._clock()
            failure: BrokerError = BrokerUnavailable(f"{self._path}: the stream ended")
            try:
                with translated(f"read {self._path.rpartition('/')[2]}"):
                    self._read()
            except BrokerError as error:
                failure = error
            except ValueError:  # the channel is closed
                return
            worked = self._clock() - began > _STREAM_WORKED_S
            if self._over.is_set() or (worked and type(failure) is BrokerUnavailable):
                continue
            with self._changed:
                self._failure = failure
                self._changed.notify_all()
            self._over.wait(RETRY_S)

    def _read(self) -> None:
        ended = threading.Event()
        call = self._link.call("Subscriber/StreamingPull", _StreamingPullResponse)
        self._streaming = call(self._asking(ended), metadata=routing(self._first))
        if self._over.is_set():
            self._streaming.cancel()
        try:
            for response in self._streaming:
                self._received(response.received_messages)
        finally:
            ended.set()

    def _asking(self, ended: threading.Event) -> Iterator[Any]:
        """The first request of a stream, then a sign of life now and then."""
        yield self._first
        while not ended.wait(_HEARTBEAT_S):
            yield _StreamingPullRequest()

    def _received(self, messages: Sequence[Any]) -> None:
        extend_at = self._clock() + _EXTEND_AFTER_S
        with self._changed:
            if self._keep:
                self._leases.update((each.ack_id, extend_at) for each in messages)
            else:
                self._acknowledged += [each.ack_id for each in messages]
            self._waiting.extend(messages)
            self._changed.notify_all()

    def _run_keeper(self) -> None:
        """Many are acknowledged together: each call costs as much as a message."""
        while not self._over.wait(_ACKNOWLEDGE_EVERY_S):
            try:
                self._flush()
                self._extend()
            except BrokerError as error:
                _log.debug("leases of %s: %s", self._path, error)

    def _flush(self, timeout: float = LEASE_S) -> None:
        """Raises BrokerError; what is not acknowledged is delivered again, and nobody waits for it."""
        with self._changed:
            ids, self._acknowledged = self._acknowledged, []
        for some in _pages(ids):
            request = _AcknowledgeRequest(subscription=self._path, ack_ids=some)
            self._link.ask("Subscriber/Acknowledge", request, Empty, timeout)

    def _extend(self) -> None:
        now = self._clock()
        with self._changed:
            due = [each for each, at in self._leases.items() if at <= now]
            self._leases.update(dict.fromkeys(due, now + _EXTEND_AFTER_S))
        self._modify(due, LEASE_S)

    def _modify(self, ids: list[str], seconds: int, timeout: float = LEASE_S) -> None:
        for some in _pages(ids):
            request = _ModifyAckDeadlineRequest(
                subscription=self._path, ack_ids=some, ack_deadline_seconds=seconds
            )
            self._link.ask("Subscriber/ModifyAckDeadline", request, Empty, timeout)


def _pages(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + MOST_ACK_IDS] for start in range(0, len(ids), MOST_ACK_IDS))


@dataclass(slots=True, eq=False)
class _Receipt:
    """Of a message, or of a frame. left: its messages that are not acknowledged."""

    ack_id: str
    left: set[int]


class PubSubSubscription:
    """The share of one member of a group, whose members read the same subscription."""

    def __init__(self, link: Link, topic: str, group: str) -> None:
        """Raises BrokerError."""
        self._topic = topic
        self._kept: deque[Delivery] = deque()
        self._lock = threading.Lock()
        try:
            create_subscription(link, topic, subscription_of(topic, group))
        except BrokerRefuses as error:  # it may read the one that is there
            _log.debug("%s", error)
        except BrokerError:
            link.close()
            raise
        self._stream = Stream(link, subscription_of(topic, group), keep=True)

    def receive(self, max_messages: int, timeout: float) -> Sequence[Delivery]:
        if room := max(0, max_messages - len(self._kept)):
            for each in self._stream.take(room, 0 if self._kept else timeout):
                self._kept.extend(_apart(delivery_of(self._topic, each)))
        return [self._kept.popleft() for _ in range(min(max_messages, len(self._kept)))]

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        done: list[str] = []
        with self._lock:
            for each in deliveries:
                at, receipt = each.position, each.receipt
                assert isinstance(at, PubSubPosition) and isinstance(receipt, _Receipt)
                receipt.left.discard(at.place)
                if not receipt.left:
                    done.append(receipt.ack_id)
        self._stream.acknowledge(done)

    def lag(self) -> int:
        return len(self._kept) + self._stream.waiting()

    def close(self) -> None:
        self._stream.close()


def _apart(delivery: Delivery) -> Iterator[Delivery]:
    """The messages of a frame."""
    at, ack_id = delivery.position, str(delivery.receipt)
    assert isinstance(at, PubSubPosition)
    messages = messages_of(delivery.message)
    if messages is None:
        yield replace(delivery, receipt=_Receipt(ack_id, {at.place}))
        return
    receipt = _Receipt(ack_id, set(range(len(messages))))
    for place, message in enumerate(messages):
        yield replace(delivery, message=message, position=at._replace(place=place), receipt=receipt)


class PubSubInbox:
    """A subscription of its own, to what is published to the topic with its name in REPLY_TO.

    It is deleted by close(); one that is left behind by a killed process expires after a day without readers.
    Inboxes of the same name receive the same messages.
    """

    def __init__(self, new_link: Callable[[], Link], topic: str, name: str) -> None:
        """Raises BrokerError."""
        self.address = f"{topic}/{name}"
        self._new_link = new_link
        self._topic = topic
        self._name = name
        self._subscription = ""
        self._kept: deque[Message] = deque()
        self._stream = self._open()

    def receive(self, max_messages: int, timeout: float) -> Sequence[Message]:
        if room := max(0, max_messages - len(self._kept)):
            try:
                self._keep(self._stream.take(room, 0 if self._kept else timeout))
            except TopicMissing:  # the subscription was deleted
                self._replace()
        return [self._kept.popleft() for _ in range(min(max_messages, len(self._kept)))]

    def renew(self) -> None:
        self._replace()

    def close(self) -> None:
        self._stream.close()
        link = self._new_link()
        try:
            request = _DeleteSubscriptionRequest(subscription=link.subscription(self._subscription))
            link.ask("Subscriber/DeleteSubscription", request, Empty, CLOSE_TIMEOUT_S)
        except BrokerError as error:
            _log.info("%s stays until it expires: %s", self._subscription, error)
        finally:
            link.close()

    def _replace(self) -> None:
        """Read by a new connection, and from a new subscription if that was deleted. Raises BrokerError."""
        stream = self._open()
        self._stream.close()
        self._keep(self._stream.take(self._stream.waiting(), 0))
        self._stream = stream

    def _keep(self, received: Iterable[Any]) -> None:
        for each in received:
            if each.message.attributes[REPLY_TO] == self._name:
                headers = headers_of(each.message.attributes)
                del headers[REPLY_TO]
                message = Message(each.message.data, headers)
                self._kept.extend(messages_of(message) or [message])

    def _open(self) -> Stream:
        link = self._new_link()
        try:
            self._subscribe(link)
        except BrokerError:
            link.close()
            raise
        return Stream(link, self._subscription, keep=False)

    def _subscribe(self, link: Link) -> None:
        """Create the subscription, unless it exists and reads the topic. Raises BrokerError."""
        if self._subscription:
            if link.topic_of(self._subscription) == link.topic(self._topic):
                return
            _log.warning("the inbox %s was lost: opening another", self._subscription)
        self._subscription = f"{self._topic}.{self._name}.{uuid.uuid4().hex[:12]}"
        create_subscription(
            link,
            self._topic,
            self._subscription,
            filter=f'attributes.{REPLY_TO} = "{self._name}"',
            message_retention_duration=Duration(seconds=_SHORTEST_RETENTION_S),
            expiration_policy=_ExpirationPolicy(ttl=Duration(seconds=_SHORTEST_EXPIRATION_S)),
        )


class PubSubBroker:
    """Has one connection to publish, and one for each place to read from."""

    def __init__(
        self, url: str, *, max_message_bytes: int = 1_000_000, publish_timeout_ms: int = 15_000
    ) -> None:
        """Connects in the background. Raises ValueError if the URL is invalid, and BrokerRefuses."""
        self._project = parse_url(url)
        self._most_bytes = min(max_message_bytes, MOST_BODY_BYTES)
        self._publisher = Publisher(self._link(), self._most_bytes, publish_timeout_ms / 1000)
        self.frame_counts = self._publisher.counts

    def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
        topic, _, name = address.partition("/")
        if len(message.body) > self._most_bytes:
            raise MessageTooLarge(f"{len(message.body)} bytes; at most {self._most_bytes} are accepted")
        return self._publisher.send(topic, name, message, gather=gather)

    def subscribe(self, topic: str, group: str, instance_id: str = "") -> PubSubSubscription:
        return PubSubSubscription(self._link(), topic, group)

    def open_inbox(self, topic: str, instance_id: str) -> PubSubInbox:
        return PubSubInbox(self._link, topic, inbox_name(instance_id))

    def listen(self, topic: str) -> PubSubInbox:
        return PubSubInbox(self._link, *feed(topic).split("/"))

    def records(self, topic: str) -> PubSubRecords:
        return PubSubRecords(self._link(), topic)

    def close(self) -> None:
        self._publisher.close()

    def _link(self) -> Link:
        return Link(self._project)


def inbox_name(instance_id: str) -> str:
    """What names the inbox in attributes and filters: the instance id, or its digest if it does not suit."""
    if _SUITABLE.fullmatch(instance_id):
        return instance_id
    return hashlib.sha256(instance_id.encode("utf-8", "surrogateescape")).hexdigest()[:32]
