"""The Open Inference Protocol over a broker in memory: inference."""

import asyncio
import itertools
import json
import struct
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from gateway.png import encode
from messaging import contract
from messaging.contract import MODES, ErrorCode, Failure, Reply, Request
from messaging.memory import MemoryBroker
from model.preprocessing import PictureError
from tests.unit.gateways import LABELS, SANDAL, gateway, silent
from tests.unit.inferring import INFER, ask, files, image, marked, pixels, refused, seeing, tensors

pytestmark = pytest.mark.anyio

CLASSES = (3, 1, 4, 1, 5, 9, 2, 6)
PICTURES = marked(*CLASSES)


def judging(request: Request) -> Reply:
    """As the worker does: what cannot be read is an error."""
    try:
        return seeing(request)
    except PictureError as error:
        return Reply(sha256="", error=Failure(ErrorCode.INVALID_PICTURE, str(error)))


async def test_each_row_answers_its_own_picture_in_the_forms_that_the_metadata_says() -> None:
    async with gateway(seeing) as http:
        response = await http.post(INFER, json={"id": "forty-two", "inputs": [pixels(PICTURES)]})
    answer = response.json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (
        "fashion-mnist",
        "1",
        "forty-two",
    )
    probabilities, label, its_class = answer["outputs"]
    assert (probabilities["name"], probabilities["datatype"], probabilities["shape"]) == (
        "probabilities", "FP32", [8, 10],
    )  # fmt: skip
    assert (label["name"], label["datatype"], label["shape"]) == ("label", "BYTES", [8])
    assert (its_class["name"], its_class["datatype"], its_class["shape"]) == ("class", "INT64", [8])
    assert tuple(its_class["data"]) == CLASSES
    assert label["data"] == [LABELS[one] for one in CLASSES]
    rows = np.array(probabilities["data"]).reshape(8, 10)
    assert tuple(rows.argmax(axis=1)) == CLASSES
    assert np.allclose(rows.sum(axis=1), 1)


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize("shape", [(8, 28, 28), (8, 28, 28, 1), (8, 784)], ids=str)
@pytest.mark.parametrize("form", ["flat", "nested", "binary"])
async def test_pixels_reach_the_worker_as_they_are(datatype: str, shape: tuple[int, ...], form: str) -> None:
    saw: list[bytes] = []

    def looking(request: Request) -> Reply:
        saw.append(request.body)
        assert (request.mode, request.content_type) == ("raw28", "image/png")
        return seeing(request)

    sent = PICTURES.reshape(shape)
    if datatype == "FP32":
        sent = (sent / 255).astype(np.float32)
    async with gateway(looking) as http:
        if form == "binary":
            response = await http.post(INFER, **binary(datatype, list(shape), sent.tobytes()))
            assert response.status_code == 200, response.text
        else:
            data = sent.ravel().tolist() if form == "flat" else sent.tolist()
            await ask(http, image(datatype, list(shape), data))
    assert sorted(saw) == sorted(encode(picture.tobytes(), 28) for picture in PICTURES)


def binary(datatype: str, shape: list[int], data: bytes, **more: Any) -> dict[str, Any]:
    """A request with binary data, as tritonclient sends it."""
    its_input = image(datatype, shape, None, binary_data_size=len(data))
    del its_input["data"]
    head = json.dumps({"inputs": [its_input], **more}).encode()
    return {"content": head + data, "headers": {"Inference-Header-Content-Length": str(len(head))}}


@pytest.mark.parametrize("shape", [[2], [2, 1]])
async def test_files_are_asked_for_as_they_are_in_the_mode_that_is_wanted(shape: list[int]) -> None:
    other = encode(PICTURES[0].tobytes(), 28)
    asked: list[tuple[bytes, str]] = []

    def noting(request: Request) -> Reply:
        asked.append((request.body, request.mode))
        return seeing(request)

    raw = b"".join(struct.pack("<I", len(file)) + file for file in (SANDAL, other))
    async with gateway(noting) as http:
        await ask(http, {**files(SANDAL, other), "shape": shape})
        await ask(http, {**files(SANDAL, other), "shape": shape}, parameters={"mode": "product"})
        response = await http.post(INFER, **binary("BYTES", shape, raw, parameters={"mode": "raw28"}))
        assert response.status_code == 200, response.text
    expected = itertools.product(("auto", "product", "raw28"), (SANDAL, other))
    assert sorted(asked) == sorted((file, mode) for mode, file in expected)


async def test_base64_may_have_line_breaks_and_be_nested() -> None:
    async with gateway(seeing) as http:
        (text,) = files(SANDAL)["data"]
        broken = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
        outputs = await ask(http, image("BYTES", [1, 1], [[broken]]))
    assert outputs["label"]["shape"] == [1]


async def test_only_the_outputs_that_are_asked_for_come_in_that_order() -> None:
    async with gateway(seeing) as http:
        wanted = [{"name": "class"}, {"name": "probabilities"}]
        outputs = await ask(http, pixels(PICTURES), outputs=wanted)
        all_of_them = await ask(http, pixels(PICTURES), outputs=[])
    assert list(outputs) == ["class", "probabilities"]
    assert list(all_of_them) == ["probabilities", "label", "class"]


async def test_binary_outputs_say_the_same_as_json() -> None:
    async with gateway(seeing) as http:
        in_json = await ask(http, pixels(PICTURES))
        body = {"inputs": [pixels(PICTURES)], "parameters": {"binary_data_output": True}}
        found = tensors(await http.post(INFER, json=body))
    assert np.array_equal(found["class"], in_json["class"]["data"])
    assert list(found["label"]) == in_json["label"]["data"]
    expected = np.array(in_json["probabilities"]["data"], np.float32).reshape(8, 10)
    assert np.array_equal(found["probabilities"], expected)


async def test_each_output_may_be_binary_or_not_whatever_holds_for_the_others() -> None:
    wanted = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "class"}]
    body = {"inputs": [pixels(PICTURES)], "outputs": wanted, "parameters": {"binary_data_output": True}}
    async with gateway(seeing) as http:
        response = await http.post(INFER, json=body)
    length = int(response.headers["inference-header-content-length"])
    label, its_class = json.loads(response.content[:length])["outputs"]
    assert label["data"] == [LABELS[one] for one in CLASSES]
    assert its_class["parameters"] == {"binary_data_size": 64}
    assert struct.unpack("<8q", response.content[length:]) == CLASSES


@pytest.mark.parametrize(("wanted", "columns"), [(1, 1), (3, 3), (99, 10)])
async def test_classification_gives_the_most_probable_as_text(wanted: int, columns: int) -> None:
    outputs = [{"name": "probabilities", "parameters": {"classification": wanted}}]
    async with gateway(seeing) as http:
        (found,) = (await ask(http, pixels(PICTURES), outputs=outputs)).values()
    assert (found["datatype"], found["shape"]) == ("BYTES", [8, columns])
    assert found["data"][::columns] == [f"0.910000:{one}:{LABELS[one]}" for one in CLASSES]


async def test_without_an_id_there_is_none_in_the_answer() -> None:
    async with gateway(seeing) as http:
        response = await http.post(INFER, json={"inputs": [pixels(PICTURES)], "id": None, "outputs": None})
    assert set(response.json()) == {"model_name", "model_version", "outputs"}


async def test_more_pictures_than_may_be_in_flight_are_answered_all_the_same() -> None:
    many = marked(*(number % 10 for number in range(100)))
    async with gateway(seeing, max_in_flight=3, reply_timeout_ms=30_000) as http:
        outputs = await ask(http, pixels(many))
    assert outputs["class"]["data"] == [number % 10 for number in range(100)]


async def test_the_version_in_the_path_must_be_the_one_that_answers() -> None:
    async with gateway(seeing) as http:
        right = await ask(http, pixels(PICTURES), "/v2/models/fashion-mnist/versions/1/infer")
        body = {"inputs": [pixels(PICTURES)]}
        wrong = await http.post("/v2/models/fashion-mnist/versions/2/infer", json=body)
    assert tuple(right["class"]["data"]) == CLASSES
    assert "version '2'; served: fashion-mnist 1" in refused(wrong, 404)


async def test_while_one_version_replaces_another_none_is_claimed_and_a_new_set_of_labels_is_a_503() -> None:
    numbers = itertools.count(1)

    def replaced(request: Request) -> Reply:
        return msgspec.structs.replace(seeing(request), version=str(next(numbers)))

    def relabelled(request: Request) -> Reply:
        return msgspec.structs.replace(seeing(request), probabilities={str(next(numbers)): 1.0})

    body = {"inputs": [pixels(PICTURES)]}
    async with gateway(replaced) as http:
        response = await http.post(INFER, json=body)
        assert "model_version" not in response.json()
        assert response.json()["outputs"][2]["data"] == list(CLASSES)
    async with gateway(relabelled) as http:
        assert "other labels" in refused(await http.post(INFER, json=body), 503)


async def test_an_unknown_model_is_a_404_in_the_workers_words() -> None:
    def unknown(request: Request) -> Reply:
        return Reply(sha256="", error=Failure(ErrorCode.UNKNOWN_MODEL, "no model 'x' here; known: y"))

    async with gateway(unknown) as http:
        response = await http.post("/v2/models/x/infer", json={"inputs": [pixels(PICTURES)]})
    assert refused(response, 404) == "no model 'x' here; known: y"


async def test_one_picture_that_cannot_be_read_makes_the_whole_an_error_that_says_which() -> None:
    truncated = SANDAL[:-12]
    async with gateway(judging) as http:
        by_worker = await http.post(INFER, json={"inputs": [files(SANDAL, SANDAL, truncated)]})
        by_gateway = await http.post(INFER, json={"inputs": [files(SANDAL, b"text", SANDAL)]})
    assert refused(by_worker, 400) == "picture 2: The PNG picture is cut off: its end is missing."
    assert refused(by_gateway, 400) == "picture 1: the bytes are neither PNG, JPEG nor WebP"


async def test_an_error_of_our_own_says_no_more_than_where() -> None:
    def failing(request: Request) -> Reply:
        return Reply(sha256="", error=Failure(ErrorCode.INTERNAL, "secret"))

    async with gateway(failing) as http:
        response = await http.post(INFER, json={"inputs": [pixels(PICTURES[:1])]})
    assert refused(response, 500) == "picture 0: The worker failed"


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
    assert "over 66536 bytes" in refused(body, 413)
    assert "picture 0: the picture has" in refused(file, 413)


async def test_as_many_pictures_as_are_allowed_are_answered_from_numbers_in_json() -> None:
    classes = [number % 10 for number in range(256)]
    values = (marked(*classes) / 255).ravel().tolist()
    async with gateway(seeing, reply_timeout_ms=30_000) as http:
        outputs = await ask(http, image("FP32", [256, 784], values))
    assert outputs["class"]["data"] == classes


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
    cancelled = [one for message in messages for one in contract.decode_cancellation(message)]
    assert sorted(cancelled) == sorted(asked)


async def test_the_first_error_ends_the_work_on_the_others() -> None:
    broker = MemoryBroker()
    heard = broker.listen("predict.cancellations")

    def only_the_second(request: Request) -> Reply | None:
        if request.body != encode(PICTURES[1].tobytes(), 28):
            return None
        return Reply(sha256="", error=Failure(ErrorCode.INVALID_PICTURE, "unreadable"))

    async with gateway(only_the_second, broker, reply_timeout_ms=30_000) as http:
        response = await http.post(INFER, json={"inputs": [pixels(PICTURES[:3])]})
        messages = await asyncio.to_thread(heard.receive, 100, 30)
    assert refused(response, 400) == "picture 1: unreadable"
    assert sum(len(contract.decode_cancellation(message)) for message in messages) == 2


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "raw28"])
async def test_pixels_are_what_the_model_sees_and_no_other_mode_is_for_them(mode: str) -> None:
    async with gateway(seeing) as http:
        body = {"inputs": [pixels(PICTURES)], "parameters": {"mode": mode}}
        assert "accepted: raw28" in refused(await http.post(INFER, json=body), 400)


async def test_the_examples_of_the_documentation_are_answered_as_it_says() -> None:
    async with gateway(seeing) as http:
        document = (await http.get("/openapi.json")).json()
        for path in (INFER, INFER.replace("/infer", "/versions/1/infer")):
            route = document["paths"][path.replace("fashion-mnist", "{name}").replace("/1/", "/{version}/")][
                "post"
            ]
            examples = route["requestBody"]["content"]["application/json"]["examples"]
            assert set(examples) == {"pixels", "file"}
            for example in examples.values():
                response: httpx.Response = await http.post(path, json=example["value"])
                assert response.status_code == 200, response.text
            assert set(route["responses"]) == {"200", "400", "404", "413", "429", "500", "503", "504"}
