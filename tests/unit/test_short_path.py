"""Over real connections, pictures take a shorter path than the framework's. It keeps all manners."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from messaging import codec
from messaging.contract import Request
from messaging.memory import MemoryBroker
from tests.unit.gateways import PNG, SANDAL, gateway, listening, problem, sandal

pytestmark = pytest.mark.anyio

FORM = {"file": ("sandal.png", SANDAL, "image/png")}
ORIGIN = "https://shop.example"
VARYING = {"x-request-id", "server-timing"}


async def test_an_answer_is_the_same_as_over_the_framework() -> None:
    asked = {"url": "/predict?top_k=2", "content": SANDAL, "headers": {**PNG, "X-Request-ID": "mine"}}
    async with gateway(sandal) as http:
        whole = await http.post(**asked)
    async with listening(sandal) as http:
        short = await http.post(**asked)
    documents = [json.loads(its.content) | {"timings": None} for its in (whole, short)]
    assert documents[0] == documents[1]
    assert short.headers["x-request-id"] == "mine"
    assert "server-timing" in short.headers
    kept = [{name: its.headers[name] for name in set(its.headers) - VARYING} for its in (whole, short)]
    assert [len(its.pop("content-length")) for its in kept] == [3, 3]
    assert kept[0] == kept[1]


async def test_a_body_may_be_read_twice() -> None:
    """As rows are: first it is asked whether they are a picture."""
    asked = {"url": "/predict", "json": {"inputs": [[0] * 784]}}
    async with gateway(sandal) as http:
        whole = await http.post(**asked)
    async with listening(sandal) as http:
        short = await http.post(**asked)
    assert (short.status_code, short.json()["title"]) == (whole.status_code, whole.json()["title"])


async def test_one_connection_takes_all_kinds_of_requests() -> None:
    async with listening(sandal) as http:
        answers = [
            await http.post("/predict", content=SANDAL, headers=PNG),
            await http.post("/predict", files=FORM),
            await http.post("/predict", json={"image": "no"}),
            await http.post("/predict/batch", files=[("file", FORM["file"])] * 3),
            await http.get("/predict"),
            await http.head("/models"),
            await http.post("/predict", content=SANDAL + bytes(300_000), headers=PNG),
            await http.post("/predict", content=b"", headers=PNG),
            await http.post("/predict", content=SANDAL, headers=PNG),
        ]
    assert [its.status_code for its in answers] == [200, 200, 422, 200, 405, 200, 200, 422, 200]
    assert len(answers[3].json()["results"]) == 3


async def test_who_expects_to_be_told_to_continue_is_told() -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    async with listening(sandal) as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
        writer.write(head % len(SANDAL) + SANDAL)
        lines = [await reader.readline() for _ in range(3)]
        writer.close()
    assert lines == [b"HTTP/1.1 100 Continue\r\n", b"\r\n", b"HTTP/1.1 200 OK\r\n"]


async def test_a_listed_origin_may_read_the_answer() -> None:
    async with listening(sandal, cors_allowed_origins=(ORIGIN,)) as http:
        answer = await http.post("/predict", content=SANDAL, headers={**PNG, "Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_a_body_is_bounded_whether_it_is_here_or_comes() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield SANDAL
        await asyncio.sleep(0.5)

    async with listening(sandal, max_upload_bytes=5_000, body_timeout_ms=100) as http:
        here = await http.post("/predict", content=SANDAL + bytes(70_000), headers=PNG)
        packed = await http.post("/predict", content=SANDAL, headers={**PNG, "Content-Encoding": "gzip"})
        late = await http.post("/predict", content=slow(), headers=PNG)
    problem(here, 413)
    problem(packed, 415)
    problem(late, 408)
    assert here.headers["connection"] == late.headers["connection"] == "close"


async def test_no_answer_in_time_is_a_504() -> None:
    async with listening(lambda _: None) as http:
        headers = {**PNG, "X-Request-Timeout-Ms": "50"}
        problem(await http.post("/predict", content=SANDAL, headers=headers), 504)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
async def test_the_workers_are_told_to_skip_what_nobody_waits_for(path: str) -> None:
    broker = MemoryBroker()
    heard = broker.listen("predict.cancellations")
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.correlation_id)

    async with listening(note, broker, reply_timeout_ms=60_000) as http:
        with contextlib.suppress(httpx.ReadTimeout):
            await http.post(path, files=FORM, timeout=0.3)
        messages = await asyncio.to_thread(heard.receive, 100, 30)
        while 'code="499"' not in (await http.get("/metrics")).text:
            await asyncio.sleep(0.01)
    assert [one for message in messages for one in codec.decode_cancellation(message)] == asked


async def test_who_hangs_up_before_the_answer_to_the_first_of_two_requests_cancels_both() -> None:
    broker, asked = MemoryBroker(), []
    heard = broker.listen("predict.cancellations")
    request = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(SANDAL) + SANDAL

    def note(request: Request) -> None:
        asked.append(request.correlation_id)

    async with listening(note, broker, reply_timeout_ms=60_000) as http:
        _, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
        writer.write(request + request)
        while not asked:
            await asyncio.sleep(0.01)
        writer.close()
        messages = await asyncio.to_thread(heard.receive, 100, 30)
    assert [one for message in messages for one in codec.decode_cancellation(message)] == asked
    assert len(asked) == 1  # the second never began
