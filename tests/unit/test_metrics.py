"""What gateways and workers declare, and the scrape that gets the metrics of several processes."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from deploy.observability.generate import METRICS_PAGE, metrics_page
from gateway.metrics import GatewayMetrics
from messaging.contract import ErrorCode, ServedModel
from messaging.metrics import Gathered, Metrics, as_text
from worker.metrics import Agreed, Ending, Origin, WorkerMetrics
from worker.pipe import Outcome

MODEL = ServedModel(name="tiny", version="1.2", labels=["cat", "dog"])


def samples(text: bytes) -> dict[str, float]:
    """Values by `name{label="value",…}`, the standard metrics of processes left out."""
    return {
        sample.name
        + "".join(f"{{{key}={value}}}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not family.name.startswith("process_")
    }


@pytest.fixture
def worker() -> WorkerMetrics:
    return WorkerMetrics("shared", lambda: 3, lambda: 0)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its path is short enough for a socket."""
    yield tmp_path_factory.mktemp("m")


def test_the_page_lists_what_the_code_declares() -> None:
    assert METRICS_PAGE.read_text() == metrics_page(), "run make observability"


def test_what_is_served_keeps_the_conventions(prometheus: None, worker: WorkerMetrics) -> None:
    gateway = GatewayMetrics()
    gateway.answered("/predict", 200, 0.01)
    gateway.rate_limited("phone")
    worker.serving([MODEL])
    for metrics in (gateway, worker):
        found = subprocess.run(
            ["promtool", "check", "metrics"], input=as_text(metrics.collect()), capture_output=True
        )
        assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


def test_series_whose_labels_are_known_begin_at_zero(worker: WorkerMetrics) -> None:
    found = samples(worker.open_text())
    for ending in Ending:
        assert found[f"mlaas_worker_requests_total{{outcome={ending}}}"] == 0
    assert found["mlaas_worker_lag_messages{origin=jobs}{queue=shared}"] == 0
    assert "mlaas_worker_queue_wait_seconds_count{origin=requests}{queue=shared}" in found


def test_the_answers_of_a_shadow_begin_at_zero_and_no_others_have_any(worker: WorkerMetrics) -> None:
    worker.serving([MODEL], {("m", "1"): 90, ("m", "2"): 10, ("m", "3"): 0})
    found = samples(worker.open_text())
    assert {name: value for name, value in found.items() if "shadow_answers_total" in name} == {
        f"mlaas_worker_shadow_answers_total{{answer={how}}}{{model=m}}{{version=3}}": 0 for how in Agreed
    }


def test_counts_that_others_keep_are_read_at_each_scrape() -> None:
    counts = {"model": 1}
    metrics = WorkerMetrics("shared", lambda: counts["model"], lambda: 0)
    assert samples(metrics.open_text())["mlaas_worker_restarts_total{role=model}"] == 1
    counts["model"] = 2
    assert samples(metrics.open_text())["mlaas_worker_restarts_total{role=model}"] == 2


def test_a_batch_is_recorded_by_model_and_label(worker: WorkerMetrics) -> None:
    sure = Outcome(probabilities=[0.96, 0.04], in_distribution=True, decode_ms=2, infer_ms=4)
    strange = Outcome(probabilities=[0.3, 0.7], in_distribution=False, decode_ms=2, infer_ms=4)
    unreadable = Outcome(error=ErrorCode.INVALID_PICTURE, detail="no picture")
    worker.predicted([(MODEL, sure), (MODEL, strange), (MODEL, unreadable)])
    found, its = samples(worker.open_text()), "{model=tiny}{version=1.2}"
    assert found["mlaas_worker_batch_size_sum"] == 3
    assert found["mlaas_worker_predictions_total{label=cat}" + its] == 1
    assert found["mlaas_worker_predictions_total{label=dog}" + its] == 1
    assert found["mlaas_worker_out_of_distribution_total" + its] == 1
    assert found["mlaas_worker_confidence_count" + its] == 2
    assert found["mlaas_worker_confidence_bucket{le=0.7}" + its] == 1
    assert found["mlaas_worker_inference_seconds_count" + its] == 1, "the model ran once"
    assert found["mlaas_worker_inference_seconds_sum" + its] == pytest.approx(0.004)
    assert found["mlaas_worker_decode_seconds_count" + its] == 3


def test_a_model_with_many_labels_has_a_hundred_and_others(worker: WorkerMetrics) -> None:
    labels = [f"class {number}" for number in range(1_000)]
    model = ServedModel(name="imagenet", version="1", labels=labels)
    for number in (99, 100, 999):
        probabilities = [float(each == number) for each in range(1_000)]
        worker.predicted([(model, Outcome(probabilities=probabilities))])
    family = next(each for each in worker.collect() if each.name == "mlaas_worker_predictions")
    values = {sample.labels["label"]: sample.value for sample in family.samples}
    assert len(values) == 101
    assert (values["class 99"], values["other"]) == (1, 2)


def test_a_clock_that_is_behind_the_brokers_gives_no_negative_wait(worker: WorkerMetrics) -> None:
    worker.received(Origin.REQUESTS, -0.5)
    found = samples(worker.open_text())
    assert found["mlaas_worker_queue_wait_seconds_sum{origin=requests}{queue=shared}"] == 0
    assert found["mlaas_worker_queue_wait_seconds_count{origin=requests}{queue=shared}"] == 1


def test_one_scrape_has_every_process(folder: Path) -> None:
    first, second = GatewayMetrics(), GatewayMetrics()
    first.answer_at(folder / "gateway-1")
    second.answer_at(folder / "gateway-2")
    first.answered("/predict", 200, 0.01)
    second.answered("/predict", 200, 0.01)
    second.answered("/predict", 503, 0.01)
    for metrics in (first, second):
        found = samples(metrics.open_text())
        assert {name: value for name, value in found.items() if name.startswith("mlaas_requests_total")} == {
            "mlaas_requests_total{code=200}{process=gateway-1}{route=/predict}": 1,
            "mlaas_requests_total{code=200}{process=gateway-2}{route=/predict}": 1,
            "mlaas_requests_total{code=503}{process=gateway-2}{route=/predict}": 1,
        }


def test_names_of_keys_are_not_open_in_any_process(folder: Path) -> None:
    first, second = GatewayMetrics(), GatewayMetrics()
    first.answer_at(folder / "gateway-1")
    second.answer_at(folder / "gateway-2")
    second.rate_limited("phone")
    assert b"phone" not in first.open_text()
    everything = samples(as_text(Gathered(folder, "gateway").collect()))
    name = "mlaas_rate_limited_requests_of_key_total{api_key=phone}{process=gateway-2}"
    assert everything[name] == 1


def test_a_process_that_does_not_answer_is_missing_and_said_to_be_down(folder: Path) -> None:
    GatewayMetrics().answer_at(folder / "gateway-1")
    _leave_a_socket_behind(folder / "gateway-2")
    found = samples(as_text(Gathered(folder, "gateway").collect()))
    assert found["mlaas_process_up{process=gateway-1}"] == 1
    assert found["mlaas_process_up{process=gateway-2}"] == 0
    assert found["mlaas_ready{process=gateway-1}"] == 0
    assert "mlaas_ready{process=gateway-2}" not in found


def test_a_process_takes_the_place_of_one_that_was_killed(folder: Path) -> None:
    _leave_a_socket_behind(folder / "worker-1")
    metrics = WorkerMetrics("shared", lambda: 0, lambda: 0)
    metrics.answer_at(folder / "worker-1")
    found = samples(as_text(Gathered(folder, "worker").collect()))
    assert found["mlaas_process_up{process=worker-1}"] == 1


def test_a_scrape_of_several_processes_keeps_the_conventions(prometheus: None, folder: Path) -> None:
    for number in (1, 2):
        GatewayMetrics().answer_at(folder / f"gateway-{number}")
    text = as_text(Gathered(folder, "gateway").collect())
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


def test_text_is_escaped() -> None:
    metrics = Metrics()
    metrics.gauge("odd", 'two\nlines and a "quote"', {"of": ('a"b\n',)})
    (family,) = (
        each for each in text_string_to_metric_families(metrics.open_text().decode()) if each.name == "odd"
    )
    assert isinstance(family, Metric)
    assert family.samples[0].labels == {"of": 'a"b\n'}


def _leave_a_socket_behind(path: Path) -> None:
    """As a killed process does."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
