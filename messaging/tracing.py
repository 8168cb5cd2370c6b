"""Traces of OpenTelemetry, from the HTTP call through the broker and the batch to the reply.

They are recorded where the environment names a receiver, as OpenTelemetry defines it
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, …). Each message carries its span in the header
`traceparent` (W3C Trace Context). Spans are named and described by the messaging conventions
(https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/):

    POST /predict              the HTTP call
      send predict.requests    until the broker has the message
        process predict.requests    in the worker, from receiving the message to acknowledging it
          decode               of the picture
          infer                of the batch, with a link to each of its messages
          send predict.replies
            receive predict.replies    in the gateway
"""

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer

from messaging.broker import (
    Broker,
    BrokerError,
    Delivery,
    Inbox,
    Message,
    Position,
    Records,
    Subscription,
)
from messaging.codec import CORRELATION

HEADER = "traceparent"

# A message that is never acknowledged, because its partition went to another worker, leaves its span open.
_MOST_OPEN = 10_000
_VERSION, _LENGTHS = "00", (2, 32, 16, 2)


def start(service: str, version: str) -> Tracer:
    """Record and send spans from now on; what is left is sent when the process ends.

    service: its name, unless OTEL_SERVICE_NAME gives another.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource({"service.name": service, "service.version": version})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("mlaas", version)


class CallSpan:
    """The span of an HTTP call."""

    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method
        self.traceparent = written(span.get_span_context())

    def end(self, route: str, status: int) -> None:
        """route: its pattern; empty for a path without one."""
        if route:
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class CallSpans:
    """Starts the spans of HTTP calls.

    FastAPI would do so, too, but takes ten times as long for a call that is not recorded.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start(self, method: str, traceparent: str) -> CallSpan | None:
        """None if the call is not recorded. traceparent: the caller's; empty without one."""
        parent = read(traceparent)
        context = Context() if parent is None else _parent(parent)
        span = self._tracer.start_span(method, context, SpanKind.SERVER)
        if not span.is_recording():
            return None
        span.set_attribute("http.request.method", method)
        return CallSpan(span, method)


class Worked(NamedTuple):
    """What was done for a message: its header `traceparent`, the model, and milliseconds.

    infer_ms: of all the messages of the batch that are for this model.
    """

    traceparent: str
    model: str
    version: str
    decode_ms: float
    infer_ms: float


def record_batch(tracer: Tracer, batch: Sequence[Worked], ended_ns: int | None = None) -> None:
    """Record the spans `decode` and `infer` of a batch. ended_ns: epoch; by default now.

    There is an `infer` for each model. It belongs to the trace of its first message that is recorded, and
    has a link to each of them.
    """
    by_model: dict[tuple[str, str], list[Worked]] = {}
    for each in batch:
        by_model.setdefault((each.model, each.version), []).append(each)
    at = time.time_ns() if ended_ns is None else ended_ns
    for (model, version), members in reversed(by_model.items()):
        recorded = [(context, each) for each in members if (context := sampled(each.traceparent))]
        began = at - _ns(members[0].infer_ms)
        if recorded:
            span = tracer.start_span(
                "infer",
                _parent(recorded[0][0]),
                attributes={
                    "mlaas.model.name": model,
                    "mlaas.model.version": version,
                    "mlaas.batch.size": len(members),
                },
                links=[Link(context) for context, _ in recorded],
                start_time=began,
            )
            span.end(at)
        at = began
    for each in reversed(batch):  # all were decoded before the first model ran
        began = at - _ns(each.decode_ms)
        if context := sampled(each.traceparent):
            tracer.start_span("decode", _parent(context), start_time=began).end(at)
        at = began


class TracedBroker:
    """A broker whose messages are traced, if the call or the message that they come from is recorded.

    Messages without such an origin, as pings and cancellations are, start no trace.
    """

    def __init__(self, broker: Broker, tracer: Tracer, system: str = "kafka") -> None:
        """system: the kind of broker, as the conventions name it."""
        self._system = system
        self.frame_counts = broker.frame_counts
        self._broker = broker
        self._tracer = tracer
        self._open = _OpenSpans()

    def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
        parent = self._origin(message)
        if parent is None:
            return self._broker.publish(address, message, gather=gather)
        topic = address.partition("/")[0]
        span = self._span("send", topic, SpanKind.PRODUCER, parent, message)
        carried = Message(message.body, {**message.headers, HEADER: written(span.get_span_context())})
        try:
            published = self._broker.publish(address, carried, gather=gather)
        except BrokerError as error:
            _end(span, error)
            raise
        published.add_done_callback(lambda ended: _end(span, ended.exception()))
        return published

    def subscribe(self, topic: str, group: str, instance_id: str = "") -> Subscription:
        return _TracedSubscription(self._broker.subscribe(topic, group, instance_id), self, group)

    def open_inbox(self, topic: str, instance_id: str) -> Inbox:
        return _TracedInbox(self._broker.open_inbox(topic, instance_id), self)

    def listen(self, topic: str) -> Inbox:
        return self._broker.listen(topic)

    def records(self, topic: str) -> Records:
        return self._broker.records(topic)

    def close(self) -> None:
        self._broker.close()

    def _origin(self, message: Message) -> SpanContext | None:
        """The span that the message belongs to, if it is recorded: its own, or that of the request."""
        return sampled(message.headers.get(HEADER, "")) or self._open.of_request(message)

    def _span(
        self, operation: str, topic: str, kind: SpanKind, parent: SpanContext, message: Message, **more: Any
    ) -> Span:
        attributes: dict[str, Any] = {
            "messaging.system": self._system,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": topic,
            "messaging.message.body.size": len(message.body),
        }
        if request_id := _request_id(message):
            attributes["messaging.message.conversation_id"] = request_id
        attributes.update((name.replace("__", "."), value) for name, value in more.items())
        return self._tracer.start_span(f"{operation} {topic}", _parent(parent), kind, attributes)

    def received(self, delivery: Delivery, group: str) -> Delivery:
        """Start the span of processing the delivery, which carries it on."""
        message = delivery.message
        parent = sampled(message.headers.get(HEADER, ""))
        if parent is None:
            return delivery
        span = self._span(
            "process",
            delivery.topic,
            SpanKind.CONSUMER,
            parent,
            message,
            messaging__consumer__group__name=group,
            messaging__message__id=str(delivery.position),
        )
        self._open.add(delivery, span)
        headers = {**message.headers, HEADER: written(span.get_span_context())}
        return Delivery(
            Message(message.body, headers),
            delivery.topic,
            delivery.position,
            delivery.timestamp_ms,
            delivery.receipt,
        )

    def acknowledged(self, delivery: Delivery) -> None:
        self._open.end(delivery)

    def replied(self, topic: str, message: Message) -> None:
        """Record that a reply has arrived."""
        parent = sampled(message.headers.get(HEADER, ""))
        if parent is not None:
            self._span("receive", topic, SpanKind.CONSUMER, parent, message).end()


class _OpenSpans:
    """The spans of messages that are being processed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._spans: OrderedDict[tuple[str, Position], tuple[Span, str]] = OrderedDict()
        self._requests: dict[str, SpanContext] = {}

    def add(self, delivery: Delivery, span: Span) -> None:
        """Ends the span of an earlier delivery of the same message, and the oldest if there are too many."""
        self.end(delivery)
        request_id = _request_id(delivery.message)
        with self._lock:
            self._spans[_place(delivery)] = span, request_id
            self._requests[request_id] = span.get_span_context()
            oldest = next(iter(self._spans)) if len(self._spans) > _MOST_OPEN else None
        if oldest is not None:
            self._end(oldest)

    def end(self, delivery: Delivery) -> None:
        self._end(_place(delivery))

    def of_request(self, reply: Message) -> SpanContext | None:
        """The span of the request that this answers."""
        return self._requests.get(_request_id(reply)) if self._requests else None

    def _end(self, place: tuple[str, Position]) -> None:
        if place not in self._spans:
            return
        with self._lock:
            span, request_id = self._spans.pop(place, (None, ""))
            self._requests.pop(request_id, None)
        if span is not None:
            span.end()


class _TracedSubscription:
    def __init__(self, subscription: Subscription, broker: TracedBroker, group: str) -> None:
        self._subscription = subscription
        self._broker = broker
        self._group = group

    def receive(self, max_messages: int, timeout: float) -> Sequence[Delivery]:
        deliveries = self._subscription.receive(max_messages, timeout)
        return [self._broker.received(each, self._group) for each in deliveries]

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        deliveries = list(deliveries)
        self._subscription.acknowledge(deliveries)
        for each in deliveries:
            self._broker.acknowledged(each)

    def lag(self) -> int:
        return self._subscription.lag()

    def close(self) -> None:
        self._subscription.close()


class _TracedInbox:
    def __init__(self, inbox: Inbox, broker: TracedBroker) -> None:
        self._inbox = inbox
        self._broker = broker

    @property
    def address(self) -> str:
        return self._inbox.address

    def receive(self, max_messages: int, timeout: float) -> Sequence[Message]:
        messages = self._inbox.receive(max_messages, timeout)
        topic = self.address.partition("/")[0]
        for each in messages:
            self._broker.replied(topic, each)
        return messages

    def renew(self) -> None:
        self._inbox.renew()

    def close(self) -> None:
        self._inbox.close()


def sampled(traceparent: str) -> SpanContext | None:
    """The span that the header names, if it is recorded; None for any other value."""
    context = read(traceparent) if traceparent else None
    return context if context is not None and context.trace_flags.sampled else None


def read(traceparent: str) -> SpanContext | None:
    """The span that the header names; None if it is not valid."""
    parts = traceparent.split("-")
    if tuple(map(len, parts[:4])) != _LENGTHS or parts[0] == "ff" or (parts[0] == _VERSION and parts[4:]):
        return None
    try:
        trace_id, span_id, flags = (int(part, 16) for part in parts[1:4])
    except ValueError:
        return None
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None


def written(context: SpanContext) -> str:
    """The header `traceparent` that names this span."""
    return f"{_VERSION}-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _parent(context: SpanContext) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(context), Context())


def _end(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR, str(error))
    span.end()


def _request_id(message: Message) -> str:
    """The correlation id, which a request and its reply share; empty if there is none."""
    return next(filter(None, map(message.headers.get, CORRELATION)), "")


def _place(delivery: Delivery) -> tuple[str, Position]:
    return delivery.topic, delivery.position


def _ns(milliseconds: float) -> int:
    return int(milliseconds * 1_000_000)
