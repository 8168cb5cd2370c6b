"""The Open Inference Protocol over a broker in memory: inference."""

import itertools
import json
import struct
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.answer import grey_png
from messaging.contract import Reply, Request
from tests.unit.gateways import LABELS, SANDAL, gateway
from tests.unit.inferring import INFER, ask, files, image, marked, pixels, refused, seeing, tensors

pytestmark = pytest.mark.anyio

CLASSES = (3, 1, 4, 1, 5, 9, 2, 6)
PICTURES = marked(*CLASSES)


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
    assert sorted(saw) == sorted(grey_png(picture.tobytes(), 28) for picture in PICTURES)


def binary(datatype: str, shape: list[int], data: bytes, **more: Any) -> dict[str, Any]:
    """A request with binary data, as tritonclient sends it."""
    its_input = image(datatype, shape, None, binary_data_size=len(data))
    del its_input["data"]
    head = json.dumps({"inputs": [its_input], **more}).encode()
    return {"content": head + data, "headers": {"Inference-Header-Content-Length": str(len(head))}}


@pytest.mark.parametrize("shape", [[2], [2, 1]])
async def test_files_are_asked_for_as_they_are_in_the_mode_that_is_wanted(shape: list[int]) -> None:
    other = grey_png(PICTURES[0].tobytes(), 28)
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


async def test_as_many_pictures_as_are_allowed_are_answered_from_numbers_in_json() -> None:
    classes = [number % 10 for number in range(256)]
    values = (marked(*classes) / 255).ravel().tolist()
    async with gateway(seeing, reply_timeout_ms=30_000) as http:
        outputs = await ask(http, image("FP32", [256, 784], values))
    assert outputs["class"]["data"] == classes
