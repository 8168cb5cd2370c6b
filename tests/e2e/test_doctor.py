"""mlaas doctor, beside everything that `mlaas up` starts; over a real Kafka: test_over_apache_kafka.py."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.kafka.local_kafka import free_port
from messaging.kafka import EmbeddedBroker
from tests import second_model
from tests.e2e.services import NO_BROKER, ROOT, Service, descendants, is_ready, mlaas, until, up


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Service, str]]:
    with up() as started:
        yield started


@pytest.fixture(scope="module")
def url(running: tuple[Service, str]) -> str:
    return running[1]


def checks(said: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    return {its["check"]: its["status"] for its in json.loads(said.stdout)}


def test_doctor_finds_all_sound_with_the_broker_inside(url: str) -> None:
    said = mlaas("doctor", "--url", url, **NO_BROKER)
    assert said.returncode == 0, said.stdout
    assert len(said.stdout.splitlines()) == 9
    assert "inside `mlaas up`" in said.stdout


def test_doctor_asks_the_broker_itself_where_it_is_named(running: tuple[Service, str]) -> None:
    broker = running[0].wait_for(r"embedded broker at (kafka://\S+)")[1]
    said = mlaas("doctor", "--broker", broker, "--url", f"http://127.0.0.1:{free_port()}", "--json")
    its = checks(said)
    assert said.returncode == 1
    assert (its["broker"], its["topics"], its["worker"]) == ("ok", "ok", "ok")
    assert (its["port"], its["round trip"]) == ("failed", "unknown")


def test_doctor_tells_the_gateways_broker_from_another_that_answers(url: str) -> None:
    with closing(EmbeddedBroker()) as other:
        said = mlaas("doctor", "--url", url, "--broker", other.url)
    assert said.returncode == 0, said.stdout
    assert "the gateway uses another" in said.stdout


def test_doctor_names_what_is_not_mlaas() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        said = mlaas(
            "doctor", "--url", f"http://127.0.0.1:{other.server_port}", "--broker", "kafka://127.0.0.1:1"
        )
        other.shutdown()
    assert "is not mlaas; start mlaas on another --port" in said.stdout
    assert "FAILED  broker" in said.stdout


def test_doctor_names_weights_that_are_damaged_and_settings_that_cannot_be(url: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "weights", tmp_path, dirs_exist_ok=True)
    damaged = [
        second_model.in_weights(tmp_path) / "model.onnx",
        next(tmp_path.glob("fashion-mnist/*/model*.onnx")),
    ]
    for path in damaged:
        with path.open("ab") as file:
            file.write(b"!")
    said = mlaas("--set", f"model.weights_dir={tmp_path}", "doctor", "--url", url, "--json", **NO_BROKER)
    assert said.returncode == 1
    assert [check for check, status in checks(said).items() if status == "failed"] == ["model"]
    assert all(str(path) in said.stdout for path in damaged)
    said = mlaas("--set", "gateway.prot=1", "doctor")
    assert said.returncode == 1
    assert said.stdout.startswith("FAILED  settings")
    assert "did you mean gateway.port?" in said.stdout


def test_doctor_names_a_worker_that_hangs() -> None:
    """Stopped, it keeps its connections and answers nothing."""
    with up() as (service_, url):
        below = descendants(service_.process.pid).items()
        (worker,) = [pid for pid, line in below if " worker " in line]
        os.kill(worker, signal.SIGSTOP)
        try:
            until(lambda: not is_ready(url), "the gateway noticing")
            said = mlaas("doctor", "--url", url, "--json", **NO_BROKER)
        finally:
            os.kill(worker, signal.SIGCONT)
    failed = [check for check, status in checks(said).items() if status == "failed"]
    assert failed == ["worker", "ready"]
