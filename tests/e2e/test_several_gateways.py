"""Gateway processes that share a port."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from deploy.kafka.local_kafka import free_port
from tests.e2e.services import (
    SAMPLES,
    Service,
    descendants,
    label_of,
    mlaas,
    predict,
    service,
    status,
    until,
    up,
)

PROCESSES = ["gateway-1", "gateway-2"]
COUNTED = r'^mlaas_requests_total\{code="200",process="%s",route="/predict"\} (\S+)$'


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def running(metrics_port: int) -> Iterator[tuple[Service, str]]:
    with up("--gateways", "2", MLAAS_GATEWAY__METRICS_PORT=str(metrics_port)) as started:
        yield started


def answered(url: str) -> dict[str, int]:
    """Predictions by process, in one scrape."""
    text = httpx.get(f"{url}/metrics").text
    counts = {name: re.search(COUNTED % name, text, re.MULTILINE) for name in PROCESSES}
    return {name: int(float(found[1])) if found else 0 for name, found in counts.items()}


def are_up(url: str) -> bool:
    text = httpx.get(f"{url}/metrics").text
    return all(f'mlaas_process_up{{process="{name}"}} 1.0' in text for name in PROCESSES)


def ask_all(url: str) -> None:
    """Each sample at once over a connection of its own."""
    with ThreadPoolExecutor(len(SAMPLES)) as pool:
        for sample, answer in zip(
            SAMPLES, pool.map(lambda each: predict(url, each.read_bytes()), SAMPLES), strict=True
        ):
            assert answer.status_code == 200, answer.text
            assert answer.json()["label"] == label_of(sample)


def test_all_of_them_answer_and_any_scrape_has_all(running: tuple[Service, str], metrics_port: int) -> None:
    _, url = running
    until(lambda: are_up(url), "all started")
    asked = 0

    def all_have_answered() -> bool:
        nonlocal asked
        ask_all(url)
        asked += len(SAMPLES)
        return all(answered(url).values())

    until(all_have_answered, "each answers")
    for scraped in (url, url, f"http://127.0.0.1:{metrics_port}"):
        assert sum(answered(scraped).values()) == asked


def test_one_that_is_killed_comes_again_and_the_others_go_on(running: tuple[Service, str]) -> None:
    its, url = running
    gateways = [pid for pid, command in descendants(its.process.pid).items() if " gateway " in command]
    assert len(gateways) == 2
    os.kill(gateways[0], signal.SIGKILL)
    its.wait_for(r"gateway-\d exited with code -9")

    def all_answer() -> bool:
        ask_all(url)
        return are_up(url) and all(answered(url).values())

    until(all_answer, "it comes again")


def test_they_end_together() -> None:
    with service("gateway", "--gateways", "2", "--port", "0", "--broker", "kafka://127.0.0.1:1") as its:
        url = its.wait_for(r"listening on (\S+)")[1]
        children = descendants(its.process.pid)
        assert sum(" gateway " in command for command in children.values()) == 2
        until(lambda: status(f"http://{url}/health/live") == 200, "it lives")
        assert its.stop() == 0
    assert status(f"http://{url}/health/live") == 0
    assert not {pid for pid in children if os.path.exists(f"/proc/{pid}")}


def test_a_port_for_metrics_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in (["gateway", "--port", "0"], ["worker"]):
            setting = f"MLAAS_{command[0].upper()}__METRICS_PORT"
            said = mlaas(*command, "--broker", "kafka://127.0.0.1:1", **{setting: port})
            assert said.returncode == 1
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said.stderr
            assert "choose another with metrics_port" in said.stderr
