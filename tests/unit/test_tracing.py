"""What is traced, over a broker in memory with OpenTelemetry's own recorder."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from messaging.broker import BrokerUnavailable, Message, MessageTooLarge
from messaging.memory import MemoryBroker
from messaging.tracing import CallSpans, TracedBroker, Worked, record_batch, sampled
from mlaas.serving import wants_traces

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"


@pytest.fixture
def recorded() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(recorded: InMemorySpanExporter) -> Iterator[Tracer]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(recorded))
    yield provider.get_tracer("tests")
    provider.shutdown()


@pytest.fixture
def broker(tracer: Tracer) -> TracedBroker:
    return TracedBroker(MemoryBroker(max_message_bytes=1_000), tracer)


def named(recorded: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = recorded.get_finished_spans()
    found = {span.name: span for span in spans}
    assert len(found) == len(spans)
    return found


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def request(body: bytes = b"picture", **headers: str) -> Message:
    return Message(body, {"correlation_id": "1", "traceparent": SAMPLED, **headers})


def test_one_trace_leads_from_the_request_to_the_reply(
    broker: TracedBroker, recorded: InMemorySpanExporter
) -> None:
    subscription = broker.subscribe("requests", "workers")
    inbox = broker.open_inbox("replies", "")
    broker.publish("requests", request()).result()
    (delivery,) = subscription.receive(1, 5)
    broker.publish(inbox.address, Message(b"reply", {"correlation_id": "1"})).result()
    subscription.acknowledge([delivery])
    inbox.receive(1, 5)
    spans = named(recorded)
    send, process = spans["send requests"], spans["process requests"]
    reply, receive = spans["send replies"], spans["receive replies"]
    assert parent_of(send) == int("b7ad6b7169203331", 16)
    assert parent_of(process) == send.context.span_id
    assert parent_of(reply) == process.context.span_id
    assert parent_of(receive) == reply.context.span_id
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    kinds = {name.partition(" ")[0]: span.kind for name, span in spans.items()}
    assert kinds == {"send": SpanKind.PRODUCER, "process": SpanKind.CONSUMER, "receive": SpanKind.CONSUMER}
    assert process.attributes is not None
    assert process.attributes["messaging.message.conversation_id"] == "1"
    assert process.attributes["messaging.consumer.group.name"] == "workers"


@pytest.mark.parametrize("traceparent", ["", UNSAMPLED, "00-nonsense", f"{SAMPLED}-more"])
def test_what_is_not_recorded_passes_through_as_it_is(
    broker: TracedBroker, recorded: InMemorySpanExporter, traceparent: str
) -> None:
    subscription = broker.subscribe("requests", "workers")
    broker.publish("requests", request(traceparent=traceparent)).result()
    (delivery,) = subscription.receive(1, 5)
    subscription.acknowledge([delivery])
    assert delivery.message.headers["traceparent"] == traceparent
    assert recorded.get_finished_spans() == ()


def test_a_call_belongs_to_the_trace_of_its_caller(tracer: Tracer, recorded: InMemorySpanExporter) -> None:
    call = CallSpans(tracer).start("POST", SAMPLED)
    assert call is not None
    call.end("/predict", 200)
    (span,) = recorded.get_finished_spans()
    assert (span.name, parent_of(span)) == ("POST /predict", int("b7ad6b7169203331", 16))
    assert call.traceparent == f"00-{TRACE}-{span.context.span_id:016x}-01"


@pytest.mark.parametrize(("status", "code"), [(422, StatusCode.UNSET), (503, StatusCode.ERROR)])
def test_a_call_without_a_caller_begins_a_trace(
    tracer: Tracer, recorded: InMemorySpanExporter, status: int, code: StatusCode
) -> None:
    call = CallSpans(tracer).start("POST", "")
    assert call is not None
    call.end("", status)
    (span,) = recorded.get_finished_spans()
    assert (span.name, span.parent, span.status.status_code) == ("POST", None, code)


def test_a_call_that_its_caller_does_not_record_has_no_span(tracer: Tracer) -> None:
    assert CallSpans(tracer).start("POST", UNSAMPLED) is None


def test_a_redelivery_has_a_span_of_its_own(broker: TracedBroker, recorded: InMemorySpanExporter) -> None:
    broker.publish("requests", request()).result()
    first = broker.subscribe("requests", "workers")
    first.receive(1, 5)
    first.close()
    second = broker.subscribe("requests", "workers")
    second.acknowledge(second.receive(1, 5))
    send, *processed = recorded.get_finished_spans()
    assert [span.name for span in processed] == 2 * ["process requests"]
    assert {parent_of(span) for span in processed} == {send.context.span_id}


def test_a_message_that_could_not_be_sent_is_an_error(
    broker: TracedBroker, recorded: InMemorySpanExporter
) -> None:
    with pytest.raises(MessageTooLarge):
        broker.publish("requests", request(body=bytes(2_000))).result()
    broker.close()
    with pytest.raises(BrokerUnavailable):
        broker.publish("requests", request())
    assert [span.status.status_code for span in recorded.get_finished_spans()] == 2 * [StatusCode.ERROR]


def test_a_batch_is_linked_to_all_its_messages(tracer: Tracer, recorded: InMemorySpanExporter) -> None:
    others = f"00-{TRACE}-{5:016x}-01"
    batch = [
        Worked(SAMPLED, "one", "1", decode_ms=1, infer_ms=10),
        Worked(UNSAMPLED, "one", "1", decode_ms=2, infer_ms=10),
        Worked(others, "one", "1", decode_ms=4, infer_ms=10),
        Worked(others, "two", "1", decode_ms=8, infer_ms=20),
    ]
    record_batch(tracer, batch, ended_ns=1_000_000_000)
    spans = recorded.get_finished_spans()
    infer = {span.attributes and span.attributes["mlaas.model.name"]: span for span in spans if span.links}
    one, two = infer["one"], infer["two"]
    assert (two.start_time, two.end_time) == (980_000_000, 1_000_000_000)
    assert (one.start_time, one.end_time) == (970_000_000, 980_000_000)
    assert [link.context.span_id for link in one.links] == [int("b7ad6b7169203331", 16), 5]
    assert one.attributes is not None
    assert one.attributes["mlaas.batch.size"] == 3
    decodes = [(span.start_time, span.end_time) for span in spans if span.name == "decode"]
    assert decodes == [(962_000_000, 970_000_000), (958_000_000, 962_000_000), (955_000_000, 956_000_000)]


def test_a_batch_without_recorded_messages_costs_no_span(
    tracer: Tracer, recorded: InMemorySpanExporter
) -> None:
    record_batch(tracer, [Worked("", "one", "1", 1, 1), Worked(UNSAMPLED, "one", "1", 1, 1)])
    assert recorded.get_finished_spans() == ()


@pytest.mark.parametrize(
    "header",
    [
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{32 * '0'}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b716920333x-01",
    ],
)
def test_only_a_valid_header_names_a_span(header: str) -> None:
    assert sampled(header) is None
    assert sampled(SAMPLED) is not None


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_SERVICE_NAME": "mine"}, False),
    ],
)
def test_traces_are_off_unless_the_environment_names_a_receiver(
    environment: dict[str, str], wanted: bool
) -> None:
    assert wants_traces(environment) is wanted
