"""Anybody who may write to the reply topics: what comes there under a true id does no harm."""

import asyncio
import logging
import math
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from messaging import codec
from messaging.broker import Message
from messaging.contract import Reply, Request
from messaging.memory import MemoryBroker
from tests.unit.gateways import PNG, SANDAL, SMALL, gateway, problem, sandal
from tests.unit.jobbing import job_gateway, parse, submit, until_status

pytestmark = pytest.mark.anyio

NO_ANSWER = b'{"sha256":"","model":"x"}'
JUNK: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**30, -1e308, "", "\n", "ü" * 300, "é" * 2_000, [], {}, [[]], {"a": "b"}),
    *([1] * 50, ["w"] * 33, {"a": 2}, {"a": -0.1}, {"a": None}, {"": 0.5}, {"queue_ms": -1}, [{"name": 1}]),
]
TRUE = msgspec.to_builtins(sandal(Request(body=SANDAL, correlation_id="", reply_to="")))
PONG = msgspec.to_builtins(Reply(sha256="", model="m", version="1", models=[SMALL]))


def odd(like: dict[str, Any], seed: int) -> bytes:
    """JSON that resembles a reply, and sometimes is one; never an error, which would be an answer."""
    chance = random.Random(seed)
    fields = {name: value for name, value in like.items() if chance.random() < 0.8}
    for name in chance.sample([*Reply.__struct_fields__, "more"], chance.randint(1, 4)):
        fields[name] = chance.choice(JUNK)
    body = msgspec.json.encode(fields)
    if chance.random() < 0.2:
        at = chance.randrange(len(body))
        body = body[:at] + bytes([chance.randrange(256)]) + body[at + chance.randint(0, 2) :]
    return body


class Poisoned:
    """A worker whose every reply comes after some that are odd."""

    def __init__(self, broker: MemoryBroker, *odd_ones: bytes) -> None:
        self._broker = broker
        self._odd_ones = odd_ones
        self._seeds = iter(range(10**9))

    def __call__(self, request: Request) -> Reply:
        bodies = self._odd_ones or [odd(TRUE, next(self._seeds)) for _ in range(5)]
        for body in bodies:
            self._broker.publish(request.reply_to, Message(body, {"correlation_id": request.correlation_id}))
        return sandal(request)


def assert_sound(prediction: dict[str, Any]) -> None:
    assert prediction["sha256"] == TRUE["sha256"]
    assert 0 <= prediction["confidence"] <= 1
    assert prediction["probabilities"][prediction["label"]] == prediction["confidence"]
    assert all(math.isfinite(value) and value >= 0 for value in prediction["timings"].values())


async def counted(http: httpx.AsyncClient, line: str) -> None:
    """Wait until the metrics say so."""
    async with asyncio.timeout(20):
        while line not in (await http.get("/metrics")).text.splitlines():
            await asyncio.sleep(0.01)


async def test_a_reply_without_an_answer_is_dropped_counted_and_the_true_one_waited_for() -> None:
    broker = MemoryBroker()
    async with gateway(Poisoned(broker, NO_ANSWER, b"{"), broker) as http:
        response = await http.post("/predict", content=SANDAL, headers=PNG)
        assert response.json()["label"] == "Sandal"
        await counted(http, 'mlaas_replies_dropped_total{reason="unusable"} 2.0')


async def test_if_nothing_but_odd_replies_come_there_is_no_answer_in_time() -> None:
    broker = MemoryBroker()

    def only_odd(request: Request) -> None:
        Poisoned(broker, NO_ANSWER)(request)

    async with gateway(only_odd, broker, reply_timeout_ms=300) as http:
        problem(await http.post("/predict", content=SANDAL, headers=PNG), 504)


async def test_a_large_picture_has_its_digest_compared_too() -> None:
    broker = MemoryBroker()
    large = SANDAL + bytes(300_000)
    other = msgspec.json.encode({**TRUE, "version": "other"})
    async with gateway(Poisoned(broker, other), broker) as http:
        response = await http.post("/predict", content=large, headers=PNG)
        assert response.json()["version"] == "1"
        await counted(http, 'mlaas_replies_dropped_total{reason="unusable"} 1.0')


async def test_a_second_reply_and_one_that_comes_late_are_counted_as_late() -> None:
    broker = MemoryBroker()
    again = msgspec.json.encode(TRUE)
    async with gateway(Poisoned(broker, again, again), broker) as http:
        assert (await http.post("/predict", content=SANDAL, headers=PNG)).status_code == 200
        await counted(http, 'mlaas_replies_dropped_total{reason="late"} 2.0')


async def test_no_reply_makes_a_request_fail(caplog: pytest.LogCaptureFixture) -> None:
    broker = MemoryBroker()
    async with gateway(Poisoned(broker), broker) as http:
        for _ in range(200):
            response = await http.post("/predict", content=SANDAL, headers=PNG)
            assert response.status_code == 200, response.text
            assert_sound(response.json())
    assert errors_in(caplog) == []


async def test_no_reply_makes_a_job_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker = MemoryBroker()
    async with job_gateway(Poisoned(broker), tmp_path, broker) as http:
        document = await submit(http, *[SANDAL] * 200)
        path = f"/jobs/{document['id']}"
        done = await until_status(http, document["id"], "done")
        events = [data for _, _, data in parse((await http.get(f"{path}/events")).text)]
        assert (await http.delete(path)).json() == done
    assert len(events) == 201
    for entry in done["results"]:
        assert_sound(entry["prediction"])
    assert errors_in(caplog) == []


async def test_a_job_waits_for_the_true_reply_and_counts_the_odd_one(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with job_gateway(Poisoned(broker, NO_ANSWER), tmp_path, broker) as http:
        document = await submit(http, SANDAL)
        done = await until_status(http, document["id"], "done")
        assert done["results"][0]["prediction"]["label"] == "Sandal"
        await counted(http, 'mlaas_job_results_dropped_total{reason="unusable"} 1.0')


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"reply","at_ms":1,"reply":{"sha256":"","model":"x"}}',
        b'{"type":"reply","at_ms":1,"reply":' + msgspec.json.encode({**TRUE, "sha256": "ab12"}) + b"}",
        b'{"type":"reply","at_ms":1,"reply":{"sha256":1}}',
        b'{"type":"reply"',
        b"\xff",
    ],
)
async def test_what_an_older_gateway_stored_is_a_failure_of_that_picture(tmp_path: Path, body: bytes) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        document = await submit(http, SANDAL, SANDAL)
        path = f"/jobs/{document['id']}"
        await until_status(http, document["id"], "done")
        with sqlite3.connect(tmp_path / "jobs.sqlite3") as store:
            store.execute("UPDATE mlaas_job_results SET body = ? WHERE picture = 0", [body])
        store.close()
        for response in (await http.get(path), await http.delete(path)):
            assert response.status_code == 200
            failed, sound = response.json()["results"]
            assert failed["problem"]["type"] == "urn:mlaas:problem:worker-failed"
            assert sound["prediction"]["label"] == "Sandal"
        events = [kind for _, kind, _ in parse((await http.get(f"{path}/events")).text)]
        assert events == ["result", "result", "done"]


@contextmanager
def odd_pongs(broker: MemoryBroker, count: int) -> Iterator[None]:
    """Each ping gets one that is odd, then a sound one."""
    stop = threading.Event()

    def serve() -> None:
        subscription = broker.subscribe("predict.requests", "g")
        seeds = iter(range(count))
        while not stop.is_set():
            for delivery in subscription.receive(10, 0.01):
                address = codec.return_address(delivery.message)
                headers = {"correlation_id": address.correlation_id}
                seed = next(seeds, None)
                if seed is not None:
                    broker.publish(address.reply_to, Message(odd(PONG, seed), headers))
                broker.publish(address.reply_to, Message(msgspec.json.encode(PONG), headers))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def test_no_pong_makes_the_list_of_models_fail(caplog: pytest.LogCaptureFixture) -> None:
    broker = MemoryBroker()
    with odd_pongs(broker, 50):
        async with gateway(None, broker, ping_interval_ms=1) as http:
            for _ in range(100):
                for path in ("/models", "/v2/models/fashion-mnist", "/v2"):
                    assert (await http.get(path)).status_code in (200, 404, 503)
    assert errors_in(caplog) == []


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
