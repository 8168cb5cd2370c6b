"""Jobs over a real Apache Kafka: what is acknowledged outlives gateways and workers that are killed."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.kafka.local_kafka import LocalKafka
from gateway.jobs.service import connect
from tests.e2e.services import PATIENCE_S, Service, descendants, is_ready, service, until
from tests.e2e.test_over_apache_kafka import LISTENING, environment
from tests.faults.stage import Picture, Pictures
from tests.stores.conftest import require
from tests.stores.servers import LocalPostgresql

JOBS, PICTURES_EACH = 6, 20


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
        return
    require()
    with LocalPostgresql() as server:
        yield server.url


class System:
    """Two gateways that share a store, and a worker whose model takes its time."""

    def __init__(self, stack: ExitStack, environment: dict[str, str]) -> None:
        self._stack = stack
        self._environment = environment
        with service("topics", "create", **environment) as creating:
            assert creating.wait() == 0
        self.gateways = [self.gateway(), self.gateway()]
        self.worker = self.start_worker()
        for _, url in self.gateways:
            until(lambda url=url: is_ready(url), "being ready")  # type: ignore[misc]

    def gateway(self) -> tuple[Service, str]:
        started = self._keep(Service("gateway", "--port", "0", **self._environment))
        return started, "http://" + started.wait_for(LISTENING)[1]

    def start_worker(self) -> Service:
        return self._keep(Service("slow-model", "worker", module="tests.faults.planted", **self._environment))

    def _keep(self, started: Service) -> Service:
        self._stack.callback(started.stop, signal.SIGKILL)
        return started


def kill(killed: Service) -> None:
    """With its children, as a machine that goes away."""
    for pid in (killed.process.pid, *descendants(killed.process.pid)):
        with suppress(ProcessLookupError):  # a child may end by itself once its parent has
            os.kill(pid, signal.SIGKILL)
    killed.wait()


def submit(url: str, pictures: list[Picture]) -> dict[str, Any]:
    files = [("file", (f"{picture.sha256}.png", picture.content, "image/png")) for picture in pictures]
    response = httpx.post(f"{url}/jobs", files=files, timeout=PATIENCE_S)
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    return document


def ask(url: str, job_id: str, wait: str = "60s") -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{url}/jobs/{job_id}", params={"wait": wait}, timeout=90).json()
    return document


def test_a_gateway_told_to_end_answers_who_waits_for_a_job_and_ends_its_event_stream(tmp_path: Path) -> None:
    """Nobody works here, and the broker is in memory: the job is never over."""
    theirs = {"MLAAS_BROKER__URL": "memory://", "MLAAS_JOBS__STORE": f"sqlite:///{tmp_path}/jobs.sqlite3"}
    with service("gateway", "--port", "0", **theirs) as gateway, ThreadPoolExecutor() as threads:
        url = "http://" + gateway.wait_for(LISTENING)[1]
        job_id = submit(url, [Pictures()(0)])["id"]
        asking = threads.submit(ask, url, job_id)
        with httpx.stream("GET", f"{url}/jobs/{job_id}/events", timeout=PATIENCE_S) as stream:
            pieces = stream.iter_text()
            assert next(pieces).startswith("retry: ")
            gateway.process.terminate()
            rest = "".join(pieces)
        assert "event: " not in rest
        assert asking.result()["status"] == "accepted"
        assert gateway.wait() == 0


def test_what_is_acknowledged_outlives_a_gateway_and_a_worker_that_are_killed(
    apache_kafka: LocalKafka, store_url: str
) -> None:
    numbered = Pictures()
    pictures = [
        [numbered(job * PICTURES_EACH + number) for number in range(PICTURES_EACH)] for job in range(JOBS)
    ]
    theirs = environment(apache_kafka) | {"MLAAS_JOBS__STORE": store_url}
    with ExitStack() as stack:
        system = System(stack, theirs)
        (first, first_url), (_, url) = system.gateways
        job_ids = [
            submit((first_url, url)[number % 2], its_own)["id"] for number, its_own in enumerate(pictures)
        ]
        until(lambda: ask(url, job_ids[0], "1ms")["completed"] > 0, "a first result")
        kill(first)
        kill(system.worker)
        finished = sum(ask(url, job_id, "1ms")["completed"] for job_id in job_ids)
        assert 0 < finished < JOBS * PICTURES_EACH, "the kill was to come in the middle"
        system.start_worker()
        _, again_url = system.gateway()
        for job_id in job_ids:
            until(lambda job_id=job_id: ask(url, job_id)["status"] == "done", "the job's end")  # type: ignore[misc]
        documents = [ask(url, job_id) for job_id in job_ids]
        assert documents == [ask(again_url, job_id) for job_id in job_ids]
    for document, its_own in zip(documents, pictures, strict=True):
        assert (document["status"], document["completed"]) == ("done", PICTURES_EACH)
        found = [(entry["index"], entry["filename"], entry["prediction"]) for entry in document["results"]]
        assert [(index, name) for index, name, _ in found] == [
            (index, f"{picture.sha256}.png") for index, picture in enumerate(its_own)
        ]
        assert [(each["sha256"], each["label"]) for _, _, each in found] == [
            (picture.sha256, picture.label) for picture in its_own
        ]
    store = connect(store_url, 5.0)
    try:
        kept = [store.get(job_id, 0) for job_id in job_ids]
    finally:
        store.close()
    assert all(each is not None and len(each[1]) == PICTURES_EACH for each in kept)
