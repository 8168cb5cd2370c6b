"""The Open Inference Protocol over a broker in memory: what goes wrong on the way to an answer."""

import asyncio
from concurrent.futures import Future

import pytest

from gateway.answer import grey_png
from messaging import codec
from messaging.broker import Message
from messaging.contract import MODES, ErrorCode, Failure, Reply, Request
from messaging.memory import MemoryBroker
from model.preprocessing import PictureError
from tests.unit.gateways import SANDAL, gateway, silent
from tests.unit.inferring import INFER, files, image, marked, pixels, refused, seeing

pytestmark = pytest.mark.anyio

PICTURES = marked(3, 1, 4)


def judging(request: Request) -> Reply:
    """As the worker does: what cannot be read is an error."""
    try:
        return seeing(request)
    except PictureError as error:
        return Reply(sha256="", error=Failure(ErrorCode.INVALID_PICTURE, str(error)))


async def test_an_unknown_model_is_a_404_in_the_workers_words() -> None:
    def unknown(request: Request) -> Reply:
        return Reply(sha256="", error=Failure(ErrorCode.UNKNOWN_MODEL, "no model 'x' here; known: y"))

    async with gateway(unknown) as http:
        response = await http.post("/v2/models/x/infer", json={"inputs": [pixels(PICTURES)]})
    assert refused(response, 404) == "no model 'x' here; known: y"


async def test_one_picture_that_cannot_be_read_makes_the_whole_an_error_that_says_which() -> None:
    truncated = SANDAL[:200]
    async with gateway(judging) as http:
        by_worker = await http.post(INFER, json={"inputs": [files(SANDAL, SANDAL, truncated)]})
        by_gateway = await http.post(INFER, json={"inputs": [files(SANDAL, b"text", SANDAL)]})
    assert refused(by_worker, 400) == "picture 2: The PNG picture is cut off: its end is missing."
    assert (
        refused(by_gateway, 400)
        == "picture 1: the bytes are not a picture in JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
    )


async def test_an_error_of_our_own_says_no_more_than_where() -> None:
    def failing(request: Request) -> Reply:
        return Reply(sha256="", error=Failure(ErrorCode.INTERNAL, "secret"))

    async with gateway(failing) as http:
        response = await http.post(INFER, json={"inputs": [pixels(PICTURES[:1])]})
    assert refused(response, 500) == "picture 0: The worker failed"


async def test_a_defect_is_a_500_in_the_protocols_form_without_detail() -> None:
    class Defective(MemoryBroker):
        def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
            if message.headers.get("content_type") == "image/png":
                raise RuntimeError("secret")
            return super().publish(address, message)

    async with gateway(seeing, Defective()) as http:
        response = await http.post(INFER, json={"inputs": [pixels(PICTURES[:1])]})
    assert response.status_code == 500
    assert response.json() == {"error": "Internal error"}


async def test_no_answer_in_time_is_a_504_whether_the_header_or_the_request_says_when() -> None:
    body = {"inputs": [pixels(PICTURES[:1])]}
    async with gateway(silent, reply_timeout_ms=30_000) as http:
        by_header = await http.post(INFER, json=body, headers={"X-Request-Timeout-Ms": "50"})
        by_parameter = await http.post(INFER, json={**body, "parameters": {"timeout": 50_000}})
    for response in (by_header, by_parameter):
        assert "no answer within" in refused(response, 504)


async def test_without_a_worker_it_is_a_503_and_over_capacity_a_429_that_say_when_to_come_back() -> None:
    body = {"inputs": [pixels(PICTURES[:1])]}
    async with gateway(None) as http:
        away = await http.post(INFER, json=body)
    async with gateway(silent, max_in_flight=1, reply_timeout_ms=500) as http:
        responses = await asyncio.gather(*(http.post(INFER, json=body) for _ in range(3)))
    refused(away, 503)
    assert int(away.headers["retry-after"]) > 0
    full = next(response for response in responses if response.status_code == 429)
    refused(full, 429)
    assert int(full.headers["retry-after"]) > 0


async def test_too_much_is_a_413() -> None:
    async with gateway(seeing, max_batch_files=7, max_batch_bytes=1000, max_upload_bytes=100) as http:
        many = await http.post(INFER, json={"inputs": [image("UINT8", [8, 784], [])]})
        body = await http.post(INFER, content=bytes(100_000))
        file = await http.post(INFER, json={"inputs": [files(SANDAL)]})
    assert "at most 7" in refused(many, 413)
    assert "has 100000 bytes; at most 66536 are accepted (gateway.max_batch_bytes," in refused(body, 413)
    assert "picture 0: the picture has" in refused(file, 413)
    assert "at most 100 bytes are accepted (gateway.max_upload_bytes)" in refused(file, 413)


async def test_the_workers_are_told_of_each_picture_when_the_client_hangs_up() -> None:
    broker = MemoryBroker()
    heard = broker.listen("predict.cancellations")
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.correlation_id)

    async with gateway(note, broker, reply_timeout_ms=30_000) as http:
        hanging_up = asyncio.create_task(http.post(INFER, json={"inputs": [pixels(PICTURES)]}))
        while len(asked) < len(PICTURES):
            await asyncio.sleep(0.01)
        hanging_up.cancel()
        await asyncio.wait([hanging_up])
        messages = await asyncio.to_thread(heard.receive, 100, 30)
    cancelled = [one for message in messages for one in codec.decode_cancellation(message)]
    assert sorted(cancelled) == sorted(asked)


async def test_the_first_error_ends_the_work_on_the_others() -> None:
    broker = MemoryBroker()
    heard = broker.listen("predict.cancellations")

    def only_the_second(request: Request) -> Reply | None:
        if request.body != grey_png(PICTURES[1].tobytes(), 28):
            return None
        return Reply(sha256="", error=Failure(ErrorCode.INVALID_PICTURE, "unreadable"))

    async with gateway(only_the_second, broker, reply_timeout_ms=30_000) as http:
        response = await http.post(INFER, json={"inputs": [pixels(PICTURES[:3])]})
        messages = await asyncio.to_thread(heard.receive, 100, 30)
    assert refused(response, 400) == "picture 1: unreadable"
    assert sum(len(codec.decode_cancellation(message)) for message in messages) == 2


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "raw28"])
async def test_pixels_are_what_the_model_sees_and_no_other_mode_is_for_them(mode: str) -> None:
    async with gateway(seeing) as http:
        body = {"inputs": [pixels(PICTURES)], "parameters": {"mode": mode}}
        assert "accepted: raw28" in refused(await http.post(INFER, json=body), 400)
