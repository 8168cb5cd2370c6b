"""One trace from the HTTP call to the model and back, as a receiver of OpenTelemetry's gets it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.otlp import Receiver, receiving
from tests.e2e.services import PATIENCE_S, PNG, SAMPLES, until, up

SAMPLED, UNSAMPLED = "01", "00"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def url(receiver: Receiver) -> Iterator[str]:
    with up(**receiver.environment) as (_, url):
        yield url


def post(url: str, trace_id: str, flags: str = SAMPLED, **more: Any) -> httpx.Response:
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-{flags}", **more.pop("headers", {})}
    answer = httpx.post(url, headers=headers, timeout=PATIENCE_S, **more)
    answer.raise_for_status()
    return answer


OF_ONE = [
    "POST /predict",
    "decode",
    "infer",
    "process predict.requests",
    "receive predict.replies",
    "send predict.replies",
    "send predict.requests",
]


def test_a_call_is_one_trace_through_broker_and_batch(receiver: Receiver, url: str) -> None:
    trace_id = f"{1:032x}"
    post(f"{url}/predict", trace_id, content=SAMPLES[0].read_bytes(), headers=PNG)
    until(lambda: len(receiver.of(trace_id)) == len(OF_ONE), "the trace")
    assert receiver.names(trace_id) == OF_ONE
    spans = {span.name: span for span in receiver.of(trace_id)}
    process, reply = spans["process predict.requests"], spans["send predict.replies"]
    parents = {
        "POST /predict": "00f067aa0ba902b7",
        "send predict.requests": spans["POST /predict"].span_id,
        "process predict.requests": spans["send predict.requests"].span_id,
        "decode": process.span_id,
        "infer": process.span_id,
        "send predict.replies": process.span_id,
        "receive predict.replies": reply.span_id,
    }
    assert {name: span.parent for name, span in spans.items()} == parents
    services = {name: span.service for name, span in spans.items()}
    assert {name for name, service in services.items() if service == "mlaas-gateway"} == {
        "POST /predict",
        "send predict.requests",
        "receive predict.replies",
    }
    assert {service for service in services.values()} == {"mlaas-gateway", "mlaas-worker"}
    assert spans["infer"].links == [process.span_id]
    assert spans["infer"].attributes["mlaas.model.name"] == "fashion-mnist"
    assert process.attributes["messaging.system"] == "kafka"


def test_the_inference_of_a_batch_is_linked_to_every_picture(receiver: Receiver, url: str) -> None:
    trace_id = f"{2:032x}"
    files = [("file", (sample.name, sample.read_bytes(), "image/png")) for sample in SAMPLES]
    post(f"{url}/predict/batch", trace_id, files=files)

    def processed() -> list[str]:
        return [span.span_id for span in receiver.of(trace_id) if span.name.startswith("process")]

    def linked() -> list[str]:
        return [link for span in receiver.of(trace_id) if span.name == "infer" for link in span.links]

    until(lambda: len(processed()) == len(linked()) == len(SAMPLES), "all pictures")
    assert sorted(processed()) == sorted(linked())


def test_a_picture_of_a_job_is_in_the_trace_of_its_submission(receiver: Receiver, url: str) -> None:
    trace_id = f"{3:032x}"
    post(f"{url}/jobs", trace_id, content=SAMPLES[0].read_bytes(), headers=PNG)
    until(lambda: "process predict.job-replies" in receiver.names(trace_id), "the reply")
    assert {"POST /jobs", "send predict.jobs", "process predict.jobs"} <= {*receiver.names(trace_id)}


def test_a_call_that_its_caller_does_not_record_is_not_recorded(receiver: Receiver, url: str) -> None:
    post(f"{url}/predict", f"{4:032x}", UNSAMPLED, content=SAMPLES[0].read_bytes(), headers=PNG)
    post(f"{url}/predict", f"{5:032x}", content=SAMPLES[0].read_bytes(), headers=PNG)
    httpx.get(f"{url}/health/ready", headers={"traceparent": f"00-{6:032x}-00f067aa0ba902b7-01"})
    until(lambda: receiver.names(f"{5:032x}") == OF_ONE, "the recorded call")
    assert not receiver.of(f"{4:032x}")
    assert not receiver.of(f"{6:032x}")


def test_pings_start_no_traces(receiver: Receiver, url: str) -> None:
    with receiver.lock:
        names = {span.name for spans in receiver.traces.values() for span in spans}
    assert not {name for name in names if "cancellations" in name}
    assert all(int(trace_id, 16) < 10 for trace_id in receiver.traces)
