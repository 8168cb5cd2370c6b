"""A connection to Google Cloud Pub/Sub, its errors, and publishing over it.

It uses the credentials, channels and types of Google's client library, but not its clients: their threads,
queues and callbacks for each message cost several times as much (docs/decisions/0016-pubsub-calls.md).
"""

import json
import math
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import google.auth
import grpc
import msgspec
from google.auth.exceptions import GoogleAuthError
from google.pubsub_v1.services.publisher.transports.grpc import PublisherGrpcTransport
from google.pubsub_v1.types import pubsub as types

from messaging import frames
from messaging.broker import (
    BrokerError,
    BrokerRefuses,
    BrokerUnavailable,
    FrameCounts,
    Message,
    MessageTooLarge,
    NotSupported,
    QueueFull,
    TopicMissing,
)
from messaging.frames import Gathered, Gathering, being_published

EMULATOR = "PUBSUB_EMULATOR_HOST"
REPLY_TO = "reply_to"
"""The attribute that names the inbox of a message, which the filters of subscriptions see."""

# Google's limits: https://cloud.google.com/pubsub/quotas#resource_limits
MOST_BODY_BYTES = 9_900_000  # of 10 MB for a request to publish, which also holds the attributes
MOST_IN_REQUEST = 1_000
_MOST_ATTRIBUTES, _MOST_NAME_BYTES, _MOST_VALUE_BYTES = 100, 256, 1_024
MOST_ACK_IDS = 1_000  # 180 characters each; a request may have 512 KiB
_MOST_REQUEST_BYTES = 9_950_000

_MOST_WAITING_BYTES = 128 * 1024 * 1024  # as librdkafka's queue.buffering.max.kbytes
_GATHER_S = 0.02
RETRY_S = 0.2
_CALL_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
_FLUSH_S = 5.0

_MORE = "mlaas.headers."
"""What the names of attributes begin with that hold headers which do not fit."""
_NO_HEADERS = {f"{_MORE}0": "{}"}

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_KINDS: Mapping[grpc.StatusCode, type[BrokerError]] = {
    grpc.StatusCode.ABORTED: BrokerUnavailable,
    grpc.StatusCode.CANCELLED: BrokerUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: BrokerUnavailable,
    grpc.StatusCode.INTERNAL: BrokerUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: BrokerUnavailable,
    grpc.StatusCode.UNAVAILABLE: BrokerUnavailable,
    grpc.StatusCode.UNKNOWN: BrokerUnavailable,
    grpc.StatusCode.PERMISSION_DENIED: BrokerRefuses,
    grpc.StatusCode.UNAUTHENTICATED: BrokerRefuses,
    grpc.StatusCode.NOT_FOUND: TopicMissing,
    grpc.StatusCode.UNIMPLEMENTED: NotSupported,
}

_EXISTS = grpc.StatusCode.ALREADY_EXISTS

_NAMING = ("name", "subscription", "topic", "resource")

_PubsubMessage = types.PubsubMessage.pb()
_PublishRequest = types.PublishRequest.pb()
_PublishResponse = types.PublishResponse.pb()
_GetSubscriptionRequest = types.GetSubscriptionRequest.pb()
_Subscription = types.Subscription.pb()


def parse_url(url: str) -> str:
    """The project in pubsub://PROJECT. Raises ValueError."""
    parts = urlsplit(url)
    if not re.fullmatch(r"[a-z][a-z0-9.:-]{2,62}", parts.netloc) or parts.path.strip("/") or parts.query:
        raise ValueError("a URL of Google Pub/Sub is pubsub://PROJECT, such as pubsub://my-project-123")
    return parts.netloc


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise the BrokerError for an error of gRPC or of Google's authentication. what: was being done."""
    try:
        yield
    except grpc.RpcError as error:
        raise translate(error, what) from error
    except GoogleAuthError as error:
        hint = "`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS, provides them"
        raise BrokerRefuses(f"{what}: no credentials of Google Cloud: {error}; {hint}") from error


def translate(error: grpc.RpcError, what: str) -> BrokerError:
    kind = _KINDS.get(error.code(), BrokerError)
    hint = ""
    if kind is TopicMissing:
        hint = "; `mlaas topics create` creates it"
    elif kind is BrokerRefuses:
        hint = "; `mlaas topics plan` says which rights are missing"
    return kind(f"{what}: {error.details() or error.code().name}{hint}")


class Link:
    """A connection to the service. Thread-safe; it must not cross a fork."""

    def __init__(self, project: str) -> None:
        """Connects in the background. Raises BrokerRefuses without credentials."""
        self.project = project
        self._calls: dict[str, Any] = {}
        with translated(f"project {project}"):
            self.channel = _channel()

    def topic(self, name: str) -> str:
        return f"projects/{self.project}/topics/{name}"

    def subscription(self, name: str) -> str:
        return f"projects/{self.project}/subscriptions/{name}"

    def call(self, method: str, answer: Any) -> Any:
        """The call of this name, as Publisher/Publish, which takes a message of protobuf and returns one."""
        if method not in self._calls:
            service = "" if "." in method else "google.pubsub.v1."
            make = self.channel.stream_stream if "Streaming" in method else self.channel.unary_unary
            self._calls[method] = make(
                f"/{service}{method}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=answer.FromString,
            )
        return self._calls[method]

    def ask(self, method: str, request: Any, answer: Any, timeout: float = _CALL_TIMEOUT_S) -> Any:
        """Raises BrokerError."""
        with translated(f"{method.partition('/')[2]} {_resource(request)}"):
            return self.call(method, answer)(request, timeout=timeout, metadata=routing(request))

    def create(self, method: str, wanted: Any, timeout: float = _CALL_TIMEOUT_S) -> bool:
        """Returns whether it is a new one. wanted: a topic or a subscription. Raises BrokerError."""
        try:
            self.ask(method, wanted, type(wanted), timeout)
        except BrokerError as error:
            if isinstance(error.__cause__, grpc.RpcError) and error.__cause__.code() is _EXISTS:
                return False
            raise
        return True

    def topic_of(self, subscription: str) -> str:
        """The path of the topic that a subscription reads; empty if there is none. Raises BrokerError."""
        request = _GetSubscriptionRequest(subscription=self.subscription(subscription))
        try:
            return str(self.ask("Subscriber/GetSubscription", request, _Subscription).topic)
        except TopicMissing:
            return ""

    def close(self) -> None:
        self.channel.close()


def attributes_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that attributes cannot hold travel in attributes of their own, as JSON in ASCII.

    Raises MessageTooLarge.
    """
    if all(map(_fits, headers, headers.values())):
        return dict(headers)
    attributes = {name: value for name, value in headers.items() if _fits(name, value)}
    text = json.dumps({name: value for name, value in headers.items() if name not in attributes})
    pieces = [text[start : start + _MOST_VALUE_BYTES] for start in range(0, len(text), _MOST_VALUE_BYTES)]
    if len(attributes) + len(pieces) >= _MOST_ATTRIBUTES:
        raise MessageTooLarge(f"{len(headers)} headers with {len(text)} characters: too much for Pub/Sub")
    return {**attributes, **{f"{_MORE}{number}": piece for number, piece in enumerate(pieces)}}


def headers_of(attributes: Mapping[str, str]) -> dict[str, str]:
    headers = dict(attributes)
    if f"{_MORE}0" not in headers:
        return headers
    pieces: list[str] = []
    while (piece := headers.pop(f"{_MORE}{len(pieces)}", None)) is not None:
        pieces.append(piece)
    try:
        return {**headers, **msgspec.convert(json.loads("".join(pieces)), dict[str, str])}
    except (ValueError, msgspec.ValidationError, RecursionError):  # anyone may write attributes
        return dict(attributes)


def _fits(name: str, value: str) -> bool:
    if name.startswith((_MORE, "goog")) or not name:
        return False
    if name.isascii() and value.isascii():
        return len(name) <= _MOST_NAME_BYTES and len(value) <= _MOST_VALUE_BYTES
    try:
        return len(name.encode()) <= _MOST_NAME_BYTES and len(value.encode()) <= _MOST_VALUE_BYTES
    except UnicodeEncodeError:
        return False


def _channel() -> grpc.Channel:
    if emulator := os.environ.get(EMULATOR):
        return grpc.insecure_channel(emulator, options=_OPTIONS)
    credentials, _ = google.auth.default(scopes=PublisherGrpcTransport.AUTH_SCOPES)
    return PublisherGrpcTransport.create_channel(credentials=credentials, options=_OPTIONS)


def _resource(request: Any) -> str:
    """The topic or subscription that a request is about."""
    found = next(filter(None, (getattr(request, field, "") for field in _NAMING)), "")
    return str(found).rpartition("/")[2]


def routing(request: Any) -> tuple[tuple[str, str], ...]:
    """What Google's front ends route by."""
    for field in _NAMING:
        if value := getattr(request, field, ""):
            return (("x-goog-request-params", f"{field}={value}"),)
    return ()


# Publishing.


@dataclass(slots=True)
class _Parcel:
    """A message on its way, or several in a frame. expires_at: monotonic seconds."""

    topic: str
    message: Any
    size: int
    expires_at: float
    published: "Future[None]"
    count: int = 1


class Publisher:
    """Sends messages in a thread of its own: those for a topic that wait at the same time in one request.

    A message that is alone waits for nothing, and one that is to be gathered some milliseconds. Thread-safe.
    """

    def __init__(
        self,
        link: Link,
        max_message_bytes: int,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """timeout_s: how long to try again while the service is away."""
        self.counts = FrameCounts()
        self._link = link
        self._timeout_s = timeout_s
        self._clock = clock
        self._publish = link.call("Publisher/Publish", _PublishResponse)
        self._changed = threading.Condition()
        self._gathering: Gathering[tuple[str, str]] = Gathering(max_message_bytes)
        self._waiting: list[_Parcel] = []
        self._due_at = math.inf
        self._unsent = 0
        self._unsent_bytes = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    def send(self, topic: str, inbox: str, message: Message, *, gather: bool) -> "Future[None]":
        """As Broker.publish. inbox: the name of the one that it is for, or empty."""
        part = frames.packed(message) if gather else None
        now = self._clock()
        parcel = self._parcel(topic, inbox, message, being_published(), now) if part is None else None
        with self._changed:
            if self._closing:
                raise BrokerUnavailable("the broker is closed")
            if self._unsent_bytes > _MOST_WAITING_BYTES:
                raise QueueFull(f"{self._unsent_bytes} bytes are waiting for Pub/Sub")
            self._unsent += 1
            if parcel is not None:
                published = parcel.published
                self._queue(parcel, now)
            elif part is not None:
                published, ready = self._gathering.add((topic, inbox), message, part)
                if ready is not None:
                    self._queue(self._together(topic, inbox, ready, now), now)
                self._be_due(now + _GATHER_S)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pubsub-publisher", daemon=True)
                self._thread.start()
        return published

    def close(self) -> None:
        """Send what is waiting, for a short while; what is left fails."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._unsent, _FLUSH_S)
            left, self._waiting = self._waiting, []
        for parcel in left:
            self._end(parcel, BrokerUnavailable(f"publish to {parcel.topic}: the broker is closed"))
        self._link.close()

    def _parcel(
        self, topic: str, inbox: str, message: Message, published: "Future[None]", now: float
    ) -> _Parcel:
        """Raises MessageTooLarge."""
        attributes = attributes_of(message.headers)
        if inbox:
            attributes[REPLY_TO] = inbox
        if not attributes and not message.body:  # the service refuses it
            attributes = _NO_HEADERS
        encoded = _PubsubMessage(data=message.body, attributes=attributes)
        return _Parcel(topic, encoded, encoded.ByteSize(), now + self._timeout_s, published)

    def _together(self, topic: str, inbox: str, gathered: Gathered, now: float) -> _Parcel:
        message, count = gathered.together(), len(gathered.parts)
        if count == 1 and len(message.headers) > _MOST_ATTRIBUTES // 2:
            message = frames.frame_of(gathered.parts)
        if frames.FRAME in message.headers:
            self.counts.frames += 1
            self.counts.messages += count
        return replace(self._parcel(topic, inbox, message, gathered.published, now), count=count)

    def _queue(self, parcel: _Parcel, due_at: float) -> None:
        self._waiting.append(parcel)
        self._unsent_bytes += parcel.size
        self._be_due(due_at)

    def _be_due(self, due_at: float) -> None:
        if due_at < self._due_at:
            self._due_at = due_at
            self._changed.notify_all()

    def _run(self) -> None:
        while parcels := self._take():
            by_topic: dict[str, list[_Parcel]] = defaultdict(list)
            for parcel in parcels:
                by_topic[parcel.topic].append(parcel)
            for topic, its in by_topic.items():
                for together in _requests(its):
                    self._send(topic, together)

    def _take(self) -> list[_Parcel]:
        """Those that are due; none when closed."""
        with self._changed:
            while not (self._closing and not self._unsent):
                now = self._clock()
                if self._closing or now >= self._due_at:
                    self._due_at = math.inf
                    for (topic, inbox), gathered in self._gathering.turn():
                        self._queue(self._together(topic, inbox, gathered, now), math.inf)
                    taken, self._waiting = self._waiting, []
                    self._unsent_bytes -= sum(parcel.size for parcel in taken)
                    if taken:
                        return taken
                self._changed.wait(None if self._due_at == math.inf else self._due_at - now)
        return []

    def _send(self, topic: str, parcels: list[_Parcel]) -> None:
        messages = [parcel.message for parcel in parcels]
        request = _PublishRequest(topic=self._link.topic(topic), messages=messages)
        timeout = max(0.1, min(_CALL_TIMEOUT_S, parcels[0].expires_at - self._clock()))
        try:
            calling = self._publish.future(request, timeout=timeout, metadata=routing(request))
        except ValueError:  # the channel is closed
            for parcel in parcels:
                self._end(parcel, BrokerUnavailable(f"publish to {topic}: the broker is closed"))
            return
        calling.add_done_callback(lambda ended: self._report(parcels, ended))

    def _report(self, parcels: list[_Parcel], ended: Any) -> None:
        if ended.code() is grpc.StatusCode.OK:
            for parcel in parcels:
                self._end(parcel, None)
            return
        failure, now = translate(ended, f"publish to {parcels[0].topic}"), self._clock()
        temporary = isinstance(failure, BrokerUnavailable) and not isinstance(failure, BrokerRefuses)
        for parcel in parcels:
            if temporary and not self._closing and now + RETRY_S < parcel.expires_at:
                with self._changed:
                    self._queue(parcel, now + RETRY_S)
            else:
                self._end(parcel, failure)

    def _end(self, parcel: _Parcel, failure: BrokerError | None) -> None:
        if failure is None:
            parcel.published.set_result(None)
        else:
            parcel.published.set_exception(failure)
        with self._changed:
            self._unsent -= parcel.count
            if not self._unsent:
                self._changed.notify_all()


def _requests(parcels: Iterable[_Parcel]) -> Iterator[list[_Parcel]]:
    """The parcels in as many as one request may have."""
    together: list[_Parcel] = []
    size = 0
    for parcel in parcels:
        if together and (size + parcel.size > _MOST_REQUEST_BYTES or len(together) == MOST_IN_REQUEST):
            yield together
            together, size = [], 0
        together.append(parcel)
        size += parcel.size + 16  # its tag and length
    if together:
        yield together
