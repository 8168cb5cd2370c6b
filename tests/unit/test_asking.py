"""Deadlines, hanging up, top_k, batches: over a broker in memory."""

import asyncio
import contextlib
import re

import httpx
import pytest

from gateway.request_reply import Cancellations
from messaging import codec
from messaging.contract import ErrorCode, Failure, Reply, Request
from messaging.memory import MemoryBroker
from tests.faults.corpus.expensive import webp
from tests.unit.gateways import PNG, SANDAL, gateway, problem, sandal, silent

pytestmark = pytest.mark.anyio

TEXT = ("b.txt", b"text", "text/plain")


def metric(text: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def value(http: httpx.AsyncClient, name: str) -> float:
    return metric((await http.get("/metrics")).text, name)


async def test_the_caller_says_how_long_it_waits() -> None:
    async with gateway(silent, reply_timeout_ms=30_000) as http:
        response = await http.post("/predict", content=SANDAL, headers={**PNG, "X-Request-Timeout-Ms": "500"})
    assert re.search(r"\b0\.[0-5]\d* s", str(problem(response, 504)["detail"]))


async def test_the_caller_cannot_wait_longer_than_the_gateway_allows() -> None:
    async with gateway(silent, reply_timeout_ms=50) as http:
        headers = {**PNG, "X-Request-Timeout-Ms": "600000"}
        problem(await http.post("/predict", content=SANDAL, headers=headers), 504)


async def test_the_deadline_goes_with_the_message() -> None:
    seen: list[Request] = []

    def look(request: Request) -> Reply:
        seen.append(request)
        return sandal(request)

    async with gateway(look) as http:
        await http.post("/predict", content=SANDAL, headers={**PNG, "X-Request-Timeout-Ms": "1500"})
        await http.post("/predict", content=SANDAL, headers=PNG)
    assert seen[0].deadline_ms is not None
    assert seen[1].deadline_ms is not None
    assert 0 < seen[1].deadline_ms - seen[0].deadline_ms - 500 < 60_000


@pytest.mark.parametrize("nonsense", ["", "0", "-5", "1.5", "soon", "9" * 30, "½"])
async def test_a_timeout_that_is_none_is_refused(nonsense: str) -> None:
    async with gateway(sandal) as http:
        headers = {**PNG, "X-Request-Timeout-Ms": nonsense.encode()}
        document = problem(await http.post("/predict", content=SANDAL, headers=headers), 422)
    assert "X-Request-Timeout-Ms" in str(document["detail"])


async def test_who_hangs_up_leaves_no_entry_and_the_workers_are_told() -> None:
    broker = MemoryBroker()
    heard = broker.listen("predict.cancellations")
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.correlation_id)

    async with gateway(note, broker, reply_timeout_ms=30_000) as http:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await http.post("/predict", content=SANDAL, headers=PNG)
        for _ in range(200):
            if await value(http, "mlaas_in_flight_requests") == 0:
                break
            await asyncio.sleep(0.01)
        assert await value(http, "mlaas_in_flight_requests") == 0
        messages = await asyncio.to_thread(heard.receive, 100, 30)
    cancelled = [one for message in messages for one in codec.decode_cancellation(message)]
    assert cancelled == asked


async def test_cancellations_are_sent_together() -> None:
    broker = MemoryBroker()
    heard = broker.listen("predict.cancellations")
    cancellations = Cancellations(broker, "predict.cancellations")
    for number in range(2_500):
        cancellations.add(str(number))
    assert heard.receive(10, 0) == []
    while not (messages := heard.receive(10, 0)):
        await asyncio.sleep(0.005)
    sent = [codec.decode_cancellation(message) for message in messages]
    assert [len(ids) for ids in sent] == [1_000, 1_000, 500]
    assert sent[2][-1] == "2499"


async def test_only_the_most_probable_labels_if_asked_so() -> None:
    async with gateway(sandal) as http:
        one = await http.post("/predict?top_k=1", content=SANDAL, headers=PNG)
        many = await http.post("/predict?top_k=99", content=SANDAL, headers=PNG)
        none = await http.post("/predict?top_k=none", content=SANDAL, headers=PNG)
    assert one.json()["probabilities"] == {"Sandal": 0.8}
    assert len(many.json()["probabilities"]) == 2
    assert "top_k" in str(problem(none, 422)["detail"])


async def test_a_batch_has_a_result_or_a_problem_for_each_file_in_order() -> None:
    files = [("file", (f"{number}.png", SANDAL + bytes([number]), "image/png")) for number in range(5)]
    files.insert(2, ("file", TEXT))
    async with gateway(sandal) as http:
        response = await http.post("/predict/batch", files=files)
    entries = response.json()["results"]
    assert response.status_code == 200
    assert [entry["index"] for entry in entries] == list(range(6))
    assert [entry["filename"] for entry in entries] == [file[0] for _, file in files]
    assert entries[2]["problem"]["status"] == 415
    assert {entry["prediction"]["label"] for entry in entries if entry["index"] != 2} == {"Sandal"}


async def test_a_batch_larger_than_what_may_be_in_flight_waits_for_itself() -> None:
    files = [("file", (f"{number}.png", SANDAL, "image/png")) for number in range(20)]
    async with gateway(sandal, max_in_flight=3) as http:
        entries = (await http.post("/predict/batch", files=files)).json()["results"]
    assert all("prediction" in entry for entry in entries)


async def test_of_a_batch_of_expensive_pictures_few_are_asked_for_at_a_time() -> None:
    asked: list[Request] = []
    files = [("file", (f"{number}.webp", webp(), "image/webp")) for number in range(5)]
    async with gateway(asked.append, reply_timeout_ms=500, max_in_flight_cost_ms=600) as http:
        entries = (await http.post("/predict/batch", files=files)).json()["results"]
    assert [entry["problem"]["status"] for entry in entries] == [504] * 5
    assert len(asked) == 2


async def test_expensive_pictures_over_the_limit_are_refused_and_small_ones_are_answered() -> None:
    def only_small(request: Request) -> Reply | None:
        return sandal(request) if request.body == SANDAL else None

    async with gateway(only_small, reply_timeout_ms=1_000, max_in_flight_cost_ms=600) as http:
        large = [asyncio.create_task(http.post("/predict", content=webp())) for _ in range(5)]
        small = [await http.post("/predict", content=SANDAL, headers=PNG) for _ in range(5)]
        statuses = sorted([(await each).status_code for each in large])
    assert [response.status_code for response in small] == [200] * 5
    assert statuses == [429] * 3 + [504] * 2


async def test_a_worker_without_room_is_a_429_that_says_when_to_come_back() -> None:
    def overloaded(_: Request) -> Reply:
        return Reply(sha256="", error=Failure(ErrorCode.OVERLOADED, "too many"))

    async with gateway(overloaded) as http:
        response = await http.post("/predict", content=SANDAL, headers=PNG)
    assert problem(response, 429)["detail"] == "too many"
    assert int(response.headers["retry-after"]) > 0


async def test_too_many_files_and_no_form_are_refused() -> None:
    files = [("file", (f"{number}.png", SANDAL, "image/png")) for number in range(4)]
    async with gateway(sandal, max_batch_files=3) as http:
        assert (await http.post("/predict/batch", files=files)).status_code == 400
        problem(await http.post("/predict/batch", content=SANDAL, headers=PNG), 415)


async def test_answers_are_counted_by_route_and_status() -> None:
    async with gateway(sandal) as http:
        await http.post("/predict", content=SANDAL, headers=PNG)
        await http.post("/predict", content=b"x", headers=PNG)
        await http.get("/no/such/path")
        await http.get("/metrics")
        text = (await http.get("/metrics")).text
    assert metric(text, 'mlaas_requests_total{code="200",route="/predict"}') == 1
    assert metric(text, 'mlaas_requests_total{code="422",route="/predict"}') == 1
    assert metric(text, 'mlaas_requests_total{code="404",route="other"}') == 1
    assert "/no/such/path" not in text
    assert "/health/" not in text and "/metrics" not in text
    assert metric(text, "mlaas_ready") == 1
