"""Two models with queues of their own, each with a worker, over a real Apache Kafka."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.kafka.local_kafka import LocalKafka
from tests import second_model
from tests.e2e.services import PATIENCE_S, PNG, ROOT, mlaas, until
from tests.faults.fleet import Fleet

SANDAL = (ROOT / "samples" / "sandal.png").read_bytes()
SHIPPED, MIRRORED = second_model.NAME, "mirrored"
SILENCE_S = 3.0


@pytest.fixture
def fleet(apache_kafka: LocalKafka, tmp_path: Path) -> Iterator[Fleet]:
    second_model.copy_shipped(tmp_path)
    second_model.add_mirrored(tmp_path, MIRRORED)
    settings = {
        "MLAAS_MODEL__WEIGHTS_DIR": str(tmp_path),
        "MLAAS_MODEL__NAMES": f"[{SHIPPED}, {MIRRORED}]",
        "MLAAS_TOPICS__QUEUES": f"{{{MIRRORED}: slow}}",
        "MLAAS_GATEWAY__WORKER_SILENCE_MS": str(int(SILENCE_S * 1000)),
    }
    with Fleet(apache_kafka.bootstrap_servers, **settings) as fleet:
        fleet.gateway("gateway")
        for name in (SHIPPED, MIRRORED):
            fleet.worker(name, MLAAS_MODEL__NAMES=f"[{name}]")
        yield fleet


def ask(fleet: Fleet, model: str, timeout_ms: int) -> httpx.Response:
    headers = {**PNG, "X-Request-Timeout-Ms": str(timeout_ms)}
    url = f"{fleet.url('gateway')}/predict"
    return httpx.post(url, params={"model": model}, content=SANDAL, headers=headers, timeout=PATIENCE_S)


def ready(fleet: Fleet) -> dict[str, bool]:
    try:
        listed = httpx.get(f"{fleet.url('gateway')}/models", timeout=PATIENCE_S).json().get("models", ())
    except httpx.TransportError:
        return {}
    return {each["name"]: each["ready"] for each in listed}


def failing(fleet: Fleet) -> dict[str, str]:
    said = mlaas("doctor", "--json", "--url", fleet.url("gateway"), **fleet.environment)
    return {its["check"]: its["fix"] for its in json.loads(said.stdout) if its["status"] == "failed"}


def test_the_end_of_a_worker_concerns_only_the_models_of_its_queue(fleet: Fleet) -> None:
    until(lambda: ready(fleet) == {SHIPPED: True, MIRRORED: True}, "both models ready")
    labels = {name: ask(fleet, name, 30_000).json()["label"] for name in (SHIPPED, MIRRORED)}
    assert labels == {SHIPPED: "Sandal", MIRRORED: "Coat"}
    assert failing(fleet) == {}

    fleet.kill(MIRRORED)
    while (refused := ask(fleet, MIRRORED, 500)).status_code != 503:
        assert refused.status_code == 504  # no answer yet, which for some seconds proves nothing
        assert ask(fleet, SHIPPED, 30_000).json()["label"] == "Sandal"
    assert "no worker of the queue slow has answered" in refused.json()["detail"]
    assert refused.json()["detail"].endswith(f"served now: {SHIPPED}")
    assert ask(fleet, SHIPPED, 30_000).json()["label"] == "Sandal"
    assert httpx.get(f"{fleet.url('gateway')}/health/ready").json()["queues"] == {
        "shared": True,
        "slow": False,
    }
    fixes = failing(fleet)
    assert list(fixes) == ["worker slow"]
    assert f"`mlaas worker --models {MIRRORED}` starts one" in fixes["worker slow"]

    fleet.again(MIRRORED)
    until(lambda: ask(fleet, MIRRORED, 5_000).status_code == 200, "an answer of the new worker")
    assert failing(fleet) == {}


def test_without_a_gateway_pictures_reach_the_queue_of_their_model(fleet: Fleet) -> None:
    sent = mlaas("send", "--wait", "--model", MIRRORED, "samples/sandal.png", **fleet.environment)
    assert sent.returncode == 0, sent.stderr
    answer = json.loads(sent.stdout)
    assert (answer["model"], max(answer["probabilities"], key=answer["probabilities"].get)) == (
        MIRRORED,
        "Coat",
    )
