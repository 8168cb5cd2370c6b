"""Gateway and workers as separate processes over a real Apache Kafka."""

import asyncio
import hashlib
import json
import os
import random
import signal
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.kafka.local_kafka import LocalKafka
from tests.e2e.services import (
    PNG,
    ROOT,
    SAMPLES,
    Service,
    descendants,
    is_ready,
    label_of,
    predict,
    service,
    status,
    until,
)

LISTENING = r"listening on (127.0.0.1:\d+)"
SANDAL = (ROOT / "samples" / "sandal.png").read_bytes()


def environment(kafka: LocalKafka) -> dict[str, str]:
    """Topics and a group of one's own."""
    prefix = uuid.uuid4().hex[:8]
    return {
        "MLAAS_BROKER__URL": f"kafka://{kafka.bootstrap_servers}",
        "MLAAS_TOPICS__REQUESTS": f"{prefix}.requests",
        "MLAAS_TOPICS__REPLIES": f"{prefix}.replies",
        "MLAAS_TOPICS__DEAD_LETTERS": f"{prefix}.dead-letters",
        "MLAAS_TOPICS__CANCELLATIONS": f"{prefix}.cancellations",
        "MLAAS_TOPICS__JOBS": f"{prefix}.jobs",
        "MLAAS_TOPICS__JOB_REPLIES": f"{prefix}.job-replies",
        "MLAAS_JOBS__GROUP": f"{prefix}.gateways",
        "MLAAS_JOBS__STORE": f"sqlite:///{tempfile.mkdtemp()}/jobs.sqlite3",
        "MLAAS_WORKER__GROUP": f"{prefix}.workers",
    }


@pytest.fixture(scope="module")
def running(apache_kafka: LocalKafka) -> Iterator[tuple[Service, str, dict[str, str]]]:
    """`mlaas up --broker kafka://…` with two workers; creates the topics."""
    theirs = environment(apache_kafka)
    arguments = ["up", "--port", "0", "--workers", "2", "--broker", theirs["MLAAS_BROKER__URL"]]
    with service(*arguments, **theirs) as started:
        yield started, started.wait_for(r"Ready: (http://\S+)")[1], theirs


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_comes_back_with_its_own_label(
    running: tuple[Service, str, dict[str, str]], sample: Path
) -> None:
    assert predict(running[1], sample.read_bytes()).json()["label"] == label_of(sample)


def test_send_and_receive_go_straight_over_the_broker(running: tuple[Service, str, dict[str, str]]) -> None:
    _, _, theirs = running
    with service("receive", "--count", "1", "--timeout", "30", **theirs) as receiving:
        receiving.wait_for("listening on")
        with service("send", "samples/sandal.png", **theirs) as sending:
            assert sending.wait() == 0
        assert receiving.wait() == 0
    correlation_id = sending.lines[-1].split()[0]
    assert f'"correlation_id": "{correlation_id}"' in receiving.output
    assert hashlib.sha256(SANDAL).hexdigest() in receiving.output


def test_doctor_names_one_missing_part_after_the_other(apache_kafka: LocalKafka) -> None:
    """As they are started: the topics, a worker, a gateway."""
    theirs = environment(apache_kafka)

    def failing(url: str) -> list[str]:
        with service("doctor", "--json", **theirs, MLAAS_URL=url) as looking:
            assert looking.wait() in (0, 1)
        return [its["check"] for its in json.loads(looking.lines[-1]) if its["status"] == "failed"]

    nobody = "http://127.0.0.1:1"
    assert failing(nobody) == ["topics", "port"]
    with service("topics", "create", **theirs) as creating:
        assert creating.wait() == 0
    assert failing(nobody) == ["worker", "port"]
    with service("worker", **theirs) as working:
        working.wait_for("assigned partitions")
        assert failing(nobody) == ["port"]
        with service("gateway", "--port", "0", **theirs) as answering:
            url = f"http://{answering.wait_for(LISTENING)[1]}"
            until(lambda: is_ready(url), "the gateway's readiness")
            assert failing(url) == []
    with service("gateway", "--port", "0", **theirs) as alone:
        url = f"http://{alone.wait_for(LISTENING)[1]}"
        until(lambda: status(f"{url}/health/live") == 200, "the gateway's start")
        assert failing(url) == ["worker", "ready"]


def test_topics_are_created_by_command_and_that_is_safe_to_repeat(apache_kafka: LocalKafka) -> None:
    theirs = environment(apache_kafka)
    for expected in ("created", "exists already"):
        with service("topics", "create", **theirs) as creating:
            assert creating.wait() == 0
        assert creating.output.count(expected) == 6


async def ask_steadily(url: str, outcomes: Counter[str], count: int, per_second: float) -> None:
    """Unique pictures at a steady rate; what became of each: right, wrong, or an honest error's status."""

    async def ask(http: httpx.AsyncClient, number: int) -> None:
        await asyncio.sleep(number / per_second)
        picture = SANDAL + number.to_bytes(4, "big")
        response = await http.post(f"{url}/predict", content=picture, headers=PNG)
        if response.status_code != 200:
            assert response.headers["content-type"] == "application/problem+json"
            outcomes[str(response.status_code)] += 1
            return
        answer = response.json()
        is_right = answer["sha256"] == hashlib.sha256(picture).hexdigest() and answer["label"] == "Sandal"
        outcomes["right" if is_right else "wrong"] += 1

    # Each on a connection of its own: one that is kept may be closed just when it is used again.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=60, limits=limits) as http:
        await asyncio.gather(*(ask(http, number) for number in range(count)))


def test_a_worker_killed_under_load_loses_nothing_and_answers_nothing_wrong(
    running: tuple[Service, str, dict[str, str]],
) -> None:
    started, url, _ = running
    workers = [pid for pid, line in descendants(started.process.pid).items() if " worker " in line]
    assert len(workers) == 2
    outcomes: Counter[str] = Counter()

    async def load_and_kill() -> None:
        asking = asyncio.create_task(ask_steadily(url, outcomes, 400, per_second=50))
        while outcomes.total() < 100 and not asking.done():
            await asyncio.sleep(0.01)
        os.kill(random.choice(workers), signal.SIGKILL)
        await asking

    asyncio.run(load_and_kill())
    assert outcomes.total() == 400
    assert outcomes["wrong"] == 0
    assert set(outcomes) <= {"right", "503", "504"}, outcomes
    assert outcomes["right"] >= 396, outcomes


def test_without_a_broker_it_refuses_at_once_and_recovers_by_itself() -> None:
    """A broker of its own, which comes late, goes, and comes back."""
    with LocalKafka() as kafka:
        theirs = environment(kafka)
        with service("topics", "create", **theirs) as creating:
            assert creating.wait() == 0
        kafka.stop()
        arguments = ["gateway", "--port", "0"]
        with service(*arguments, **theirs) as gateway, service("worker", **theirs) as worker:
            url = "http://" + gateway.wait_for(LISTENING)[1]
            until(lambda: status(f"{url}/health/live") == 200, "being live")
            refused = predict(url, SANDAL)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert status(f"{url}/health/ready") == 503
            for how_it_goes in (kafka.kill, kafka.stop):
                kafka.start()
                until(lambda: is_ready(url), "being ready after the broker came")
                assert predict(url, SANDAL).json()["label"] == "Sandal"
                how_it_goes()
                until(lambda: not is_ready(url), "noticing that the broker is away")
                assert predict(url, SANDAL).status_code == 503
                assert status(f"{url}/health/live") == 200
            assert worker.process.poll() is None


def test_a_gateway_told_to_stop_answers_who_waits_first(running: tuple[Service, str, dict[str, str]]) -> None:
    """A second gateway beside the first, stopped with requests in flight."""
    _, _, theirs = running
    with service("gateway", "--port", "0", **theirs) as gateway:
        url = "http://" + gateway.wait_for(LISTENING)[1]
        until(lambda: is_ready(url), "being ready")

        async def load_and_stop() -> list[int]:
            async with httpx.AsyncClient(timeout=60) as http:
                asking = [
                    asyncio.create_task(http.post(f"{url}/predict", content=SANDAL, headers=PNG))
                    for _ in range(50)
                ]
                await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                gateway.process.terminate()
                return [
                    response.status_code
                    for response in await asyncio.gather(*asking, return_exceptions=True)
                    if isinstance(response, httpx.Response)
                ]

        statuses = asyncio.run(load_and_stop())
        assert gateway.wait() == 0
    assert statuses
    assert set(statuses) <= {200, 503}, Counter(statuses)
