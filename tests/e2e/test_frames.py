"""Frames between the real processes over a real Apache Kafka, and beside those that read none."""

import asyncio
import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import httpx

from deploy.kafka.local_kafka import LocalKafka
from messaging import connect
from messaging.broker import Broker
from messaging.frames import FRAME
from tests.e2e.services import PATIENCE_S, PNG, Service, is_ready, service, until
from tests.e2e.test_over_apache_kafka import LISTENING, SANDAL, environment
from tests.faults.scenarios.upgrade import last_release

CLIENTS = 48
SILENCE_S = 2
NUMBERS = itertools.count()


async def ask(url: str, outcomes: Counter[str], done: Callable[[], bool]) -> None:
    """As many clients, each with one request at a time and pictures of its own."""

    async def client(http: httpx.AsyncClient) -> None:
        while not done():
            picture = SANDAL + next(NUMBERS).to_bytes(4, "big")
            response = await http.post(f"{url}/predict", content=picture, headers=PNG)
            right = hashlib.sha256(picture).hexdigest(), "Sandal"
            answer = response.json()
            is_right = response.status_code == 200 and (answer["sha256"], answer["label"]) == right
            outcomes["right" if is_right else str(answer)[:200]] += 1

    async with httpx.AsyncClient(timeout=60) as http, asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client(http))


def frames_in(broker: Broker, topic: str) -> int:
    with closing(broker.records(topic)) as records:
        return sum(FRAME in delivery.message.headers for delivery in records.read())


def test_beside_a_worker_of_the_last_release_requests_travel_alone_and_in_frames_when_it_has_gone(
    apache_kafka: LocalKafka,
) -> None:
    _, release = last_release()
    theirs = environment(apache_kafka) | {"MLAAS_GATEWAY__WORKER_SILENCE_MS": f"{SILENCE_S * 1000}"}
    requests = theirs["MLAAS_TOPICS__REQUESTS"]
    with service("topics", "create", **theirs) as creating:
        assert creating.wait() == 0
    older = Service("worker", checkout=release, **theirs)
    broker = connect(theirs["MLAAS_BROKER__URL"])
    try:
        older.wait_for("assigned partitions")
        with service("worker", **theirs) as newer, service("gateway", "--port", "0", **theirs) as gateway:
            newer.wait_for("assigned partitions")
            url = f"http://{gateway.wait_for(LISTENING)[1]}"
            until(lambda: is_ready(url), "the gateway's readiness")
            outcomes: Counter[str] = Counter()
            long_after = time.monotonic() + 4 * SILENCE_S
            asyncio.run(
                ask(url, outcomes, lambda: outcomes.total() >= 1_000 and time.monotonic() > long_after)
            )
            assert outcomes.keys() == {"right"}, outcomes
            assert frames_in(broker, requests) == 0
            older.stop()
            end = time.monotonic() + PATIENCE_S
            while not frames_in(broker, requests):
                assert time.monotonic() < end, "no frame was sent"
                outcomes.clear()
                asyncio.run(ask(url, outcomes, lambda: outcomes.total() >= 1_000))
                assert outcomes.keys() == {"right"}, outcomes
    finally:
        older.stop()
        broker.close()
    with closing(connect(theirs["MLAAS_BROKER__URL"])) as looking:
        bounds = looking.records(theirs["MLAAS_TOPICS__DEAD_LETTERS"]).bounds()
        assert not any(bounds.values()), bounds
