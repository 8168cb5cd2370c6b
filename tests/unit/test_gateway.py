"""The gateway over a broker in memory, with workers that behave as each test says."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from gateway.request_reply import Requester
from messaging import codec
from messaging.broker import BrokerUnavailable, Inbox, Message
from messaging.contract import ErrorCode, Failure, Reply, Request, ReturnAddress
from messaging.memory import MemoryBroker
from mlaas.settings import load
from tests.unit.gateways import (
    PNG,
    SANDAL,
    Worker,
    gateway,
    gateway_settings,
    problem,
    sandal,
    silent,
    working,
)

pytestmark = pytest.mark.anyio


def failing(code: ErrorCode) -> Worker:
    return lambda request: Reply(sha256="", error=Failure(code, "what happened"))


async def test_a_picture_in_the_body_is_answered() -> None:
    async with gateway(sandal) as http:
        response = await http.post("/predict", content=SANDAL, headers=PNG)
    answer = response.json()
    assert response.status_code == 200
    assert answer["label"] == "Sandal"
    assert answer["confidence"] == 0.8
    assert answer["probabilities"] == {"Sneaker": 0.2, "Sandal": 0.8}
    assert (answer["model"], answer["version"]) == ("fashion-mnist", "1")
    assert answer["sha256"] == hashlib.sha256(SANDAL).hexdigest()
    assert answer["request_id"] == response.headers["x-request-id"]
    assert answer["timings"]["total_ms"] >= answer["timings"]["broker_ms"] >= 0
    assert "infer;dur=1" in response.headers["server-timing"]


async def test_a_picture_in_a_form_is_answered() -> None:
    async with gateway(sandal) as http:
        response = await http.post("/predict", files={"file": ("sandal.png", SANDAL, "image/png")})
    assert response.json()["label"] == "Sandal"


async def test_a_picture_in_json_is_answered_and_one_elsewhere_is_not_fetched() -> None:
    text = base64.b64encode(SANDAL).decode()
    async with gateway(sandal) as http:
        for its in (text, f"data:image/png;base64,{text}", base64.encodebytes(SANDAL).decode()):
            response = await http.post("/predict", json={"image": its})
            assert (response.status_code, response.json().get("label")) == (200, "Sandal")
            assert response.json()["sha256"] == hashlib.sha256(SANDAL).hexdigest()
        for its, says in (
            ("https://shop.example/a.png", "image is a URL, which is not fetched"),
            ("what?", "it has other characters, or its end is missing"),
            ("größer", "image must be a picture file in base64: it has characters that base64 does not use"),
            (base64.b64encode(b"text").decode(), "the bytes are not a picture"),
        ):
            assert says in problem(await http.post("/predict", json={"image": its}), 422)["detail"]


async def test_the_callers_request_id_comes_back_unless_it_could_not_be_logged() -> None:
    async with gateway(sandal) as http:
        kept = await http.post("/predict", content=SANDAL, headers={**PNG, "X-Request-ID": "abc-1.2_3"})
        odd = await http.post("/predict", content=SANDAL, headers={**PNG, "X-Request-ID": "a b\tc"})
    assert kept.headers["x-request-id"] == kept.json()["request_id"] == "abc-1.2_3"
    assert odd.headers["x-request-id"] not in ("", "a b\tc")


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"", PNG, 422, "empty"),
        (b"text", PNG, 422, "not a picture in"),
        (b"<html>", {"Content-Type": "text/html"}, 415, "send JPEG, PNG"),
        (b"file=x", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "curl -F"),
        (b"{", {"Content-Type": "multipart/form-data; boundary=x"}, 400, ""),
    ],
)
async def test_what_is_no_picture_is_a_problem_that_says_so(
    body: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    async with gateway(sandal) as http:
        document = problem(await http.post("/predict", content=body, headers=headers), status)
    assert says in str(document["detail"])


async def test_a_form_without_a_file_says_which_field_is_missing() -> None:
    async with gateway(sandal) as http:
        document = problem(await http.post("/predict", data={"file": "text"}, files={"other": b"x"}), 422)
    assert "'file'" in str(document["detail"])


async def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 65_536
            yield bytes(65_536)

    async with gateway(sandal, max_upload_bytes=1_000_000) as http:
        declared = await http.post("/predict", content=bytes(2_000_000), headers=PNG)
        chunked = await http.post("/predict", content=endless(), headers=PNG)
    most = "at most 1065536 are accepted (gateway.max_upload_bytes, and 65536 for a form)"
    assert problem(declared, 413)["detail"] == f"the request body has 2000000 bytes; {most}"
    assert str(problem(chunked, 413)["detail"]).endswith(f" bytes so far; {most}")
    assert read < 2_000_000


async def test_a_body_of_many_pictures_has_a_limit_of_its_own() -> None:
    files = 4 * [("file", ("a.png", SANDAL + bytes(30_000), "image/png"))]
    async with gateway(sandal, max_upload_bytes=40_000, max_batch_bytes=100_000) as http:
        problem(await http.post("/predict", files=files), 413)
        assert (await http.post("/predict/batch", files=files)).status_code == 200
        said = str(problem(await http.post("/predict/batch", files=2 * files), 413)["detail"])
    assert "at most 165536 are accepted (gateway.max_batch_bytes, and 65536 for a form)" in said


async def test_a_picture_over_the_limit_is_refused_in_the_same_words_alone_and_among_others() -> None:
    large = SANDAL + bytes(30_000)
    one = [("file", ("a.png", large, "image/png"))]
    two = [*one, ("file", ("b.png", SANDAL, "image/png"))]
    async with gateway(sandal, max_upload_bytes=20_000) as http:
        alone = problem(await http.post("/predict", files=one), 413)["detail"]
        raw = problem(await http.post("/predict", content=large, headers=PNG), 413)["detail"]
        first, second = (await http.post("/predict/batch", files=two)).json()["results"]
    said = f"the picture has {len(large)} bytes; at most 20000 are accepted (gateway.max_upload_bytes)"
    assert (alone, raw, first["problem"]["detail"]) == (said, said, said)
    assert "prediction" in second


@pytest.mark.parametrize(
    ("path", "form"),
    [("/predict", False), ("/predict", True), ("/predict/batch", True), ("/v2/models/m/infer", False)],
)
async def test_a_body_that_does_not_come_is_a_408_and_keeps_no_place(path: str, form: bool) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=b"} if form else PNG

    async def hanging() -> AsyncIterator[bytes]:
        yield b"--b\r\n" if form else SANDAL[:10]
        await asyncio.Event().wait()

    async with gateway(sandal, body_timeout_ms=200, max_in_flight=4) as http:
        waiting = [asyncio.create_task(http.post(path, content=hanging(), headers=kind)) for _ in range(8)]
        good = await http.post("/predict", content=SANDAL, headers=PNG)
        slow = (await asyncio.gather(*waiting))[0]
        impatient = await http.post(path, content=hanging(), headers={**kind, "X-Request-Timeout-Ms": "50"})
    assert (slow.status_code, impatient.status_code, good.status_code) == (408, 408, 200)
    assert slow.headers["connection"] == "close"
    assert "within 0.2 s" in slow.text
    assert "within 0.05 s" in impatient.text


async def test_a_client_that_hangs_up_while_it_sends_is_no_defect() -> None:
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[dict] = []

    async def receive() -> dict:
        return messages.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
    async with gateway(sandal) as http:
        await http._transport.app(scope, receive, send)
        metrics = (await http.get("/metrics")).text
    assert sent[0]["status"] == 499
    assert 'code="499",route="/predict"' in metrics


async def test_without_a_worker_it_is_live_but_not_ready_and_refuses_at_once() -> None:
    async with gateway(None) as http:
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).status_code == 503
        response = await http.post("/predict", content=SANDAL, headers=PNG)
    problem(response, 503)
    assert int(response.headers["retry-after"]) > 0


async def test_one_of_several_does_not_listen_before_it_can_answer() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as ending:
        starting = asyncio.create_task(ending.enter_async_context(gateway(None, broker, processes=2)))
        done, _ = await asyncio.wait([starting], timeout=0.2)
        assert not done
        with working(broker, sandal):
            http = await asyncio.wait_for(starting, 10)
            assert (await http.get("/health/ready")).status_code == 200


async def test_a_broker_that_comes_late_does_not_wait_for_the_next_ping_to_be_due() -> None:
    class Late(MemoryBroker):
        asked = 0

        def open_inbox(self, topic: str, instance_id: str) -> Inbox:
            self.asked += 1
            if self.asked == 1:
                raise BrokerUnavailable("no broker answers")
            return super().open_inbox(topic, instance_id)

    async with asyncio.timeout(20), gateway(sandal, Late(), ping_interval_ms=60_000) as http:
        assert (await http.get("/health/ready")).status_code == 200


async def test_no_answer_in_time_is_a_504() -> None:
    async with gateway(silent, reply_timeout_ms=50) as http:
        document = problem(await http.post("/predict", content=SANDAL, headers=PNG), 504)
    assert "no answer within 0.0" in str(document["detail"])


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        (ErrorCode.INVALID_PICTURE, 422, "what happened"),
        (ErrorCode.INVALID_REQUEST, 422, "what happened"),
        (ErrorCode.UNKNOWN_MODEL, 404, "what happened"),
        (ErrorCode.INTERNAL, 500, "The worker failed"),
        (ErrorCode.UNSUPPORTED_SCHEMA, 500, "The worker failed"),
    ],
)
async def test_the_workers_error_becomes_a_status_and_our_own_faults_say_no_more(
    code: ErrorCode, status: int, detail: str
) -> None:
    async with gateway(failing(code)) as http:
        document = problem(await http.post("/predict", content=SANDAL, headers=PNG), status)
    assert document["detail"] == detail


async def test_each_of_many_gets_its_own_answer() -> None:
    pictures = [SANDAL + bytes([number]) for number in range(100)]
    async with gateway(sandal) as http:
        responses = await asyncio.gather(
            *(http.post("/predict", content=picture, headers=PNG) for picture in pictures)
        )
    assert [response.json()["sha256"] for response in responses] == [
        hashlib.sha256(picture).hexdigest() for picture in pictures
    ]


async def test_a_foreign_reply_a_broken_one_and_a_double_one_harm_nobody() -> None:
    broker = MemoryBroker()

    def answer_thrice(request: Request) -> Reply:
        address = ReturnAddress(request.reply_to, {"correlation_id": request.correlation_id})
        broker.publish(request.reply_to, Message(b"garbage", {}))
        broker.publish(request.reply_to, Message(b"garbage", {"correlation_id": "unknown"}))
        broker.publish(request.reply_to, codec.encode_reply(sandal(request), address))
        return msgspec.structs.replace(sandal(request), version="second")

    async with gateway(answer_thrice, broker) as http:
        for _ in range(3):
            response = await http.post("/predict", content=SANDAL, headers=PNG)
            assert response.json()["version"] == "1"


async def test_over_capacity_is_a_429_that_says_when_to_come_back() -> None:
    async with gateway(silent, max_in_flight=2, reply_timeout_ms=300) as http:
        responses = await asyncio.gather(
            *(http.post("/predict", content=SANDAL, headers=PNG) for _ in range(6))
        )
    refused = [response for response in responses if response.status_code == 429]
    assert len(refused) >= 4
    assert all(int(response.headers["retry-after"]) > 0 for response in refused)


async def test_at_the_end_those_who_wait_are_told_and_nobody_new_is_taken() -> None:
    broker = MemoryBroker()
    settings = gateway_settings(drain_timeout_ms=50, reply_timeout_ms=20_000)
    requester = Requester(broker, load(None, {}).topics, settings)
    with working(broker, silent):
        await requester.start()
        while requester.why_not_ready():
            await asyncio.sleep(0.005)
        waiting = asyncio.create_task(
            requester.request(SANDAL, cost_ms=0, content_type="image/png", timeout_s=20)
        )
        await asyncio.sleep(0.02)
        await requester.close()
        with pytest.raises(Exception, match="shutting down"):
            await waiting
        with pytest.raises(Exception, match="shutting down"):
            await requester.request(SANDAL, cost_ms=0, content_type="image/png", timeout_s=20)


async def test_unknown_paths_and_methods_are_problems_too() -> None:
    async with gateway(None) as http:
        problem(await http.get("/nothing"), 404)
        response = await http.get("/predict")
    problem(response, 405)
    assert response.headers["allow"] == "POST, OPTIONS"


async def test_the_documentation_needs_nothing_from_elsewhere() -> None:
    async with gateway(None) as http:
        page = await http.get("/docs")
        assert page.status_code == 200
        assert "http" not in page.text.replace('lang="en"', "")
        for path in ("/docs/docs.js", "/docs/swagger/swagger-ui.css", "/docs/swagger/swagger-ui-bundle.js"):
            assert f'"{path[1:]}"' in page.text  # relative, so that it works below a proxy's prefix
            assert (await http.get(path)).status_code == 200
        schema = (await http.get("/openapi.json")).json()
    assert set(schema["paths"]["/predict"]["post"]["responses"]) >= {
        "200",
        "404",
        "413",
        "415",
        "422",
        "429",
        "503",
        "504",
    }


async def test_the_shortcut_is_counted_under_its_route_and_other_methods_are_refused() -> None:
    async with gateway(sandal) as http:
        assert (await http.post("/predict", content=SANDAL, headers=PNG)).status_code == 200
        assert 'mlaas_requests_total{code="200",route="/predict"} 1.0' in (await http.get("/metrics")).text
        assert problem(await http.put("/predict", content=SANDAL, headers=PNG), 405)
