"""The network's own input over the Open Inference Protocol; and its repository of models."""

import json
import struct
from typing import Any

import msgspec
import numpy as np
import pytest

from messaging.contract import TENSOR, Reply, Request, ServedModel, ServedVersion, sha256_of
from tests.unit.gateways import LABELS, SANDAL, SMALL, gateway, sandal
from tests.unit.inferring import ask, files, refused, tensors

pytestmark = pytest.mark.anyio

FLOW = ServedModel(
    name="flow",
    version="2",
    runtime="onnx",
    kind="tensor",
    input="2 x 3 numbers (float32)",
    shape=(2, 3),
    dtype="float32",
    output="numbers",
    output_size=2,
)
WORDS = msgspec.structs.replace(FLOW, name="words", shape=(3,), dtype="int64")
FLAGS = msgspec.structs.replace(FLOW, name="flags", shape=(3,), dtype="bool")
COLOURS = msgspec.structs.replace(
    SMALL, name="colours", default=False, kind="image", shape=(3, 2, 2), dtype="float32", output="logits"
)
SERVED = (SMALL, FLOW, WORDS, FLAGS, COLOURS)
CODES = {"flow": "<6f", "words": "<3q", "flags": "<3?", "colours": "<12f"}


def summing(request: Request) -> Reply:
    """The sum of the numbers and their count; of colours, all probability for the label with that index."""
    if not request.is_tensor:
        return msgspec.structs.replace(sandal(request), model=request.model)
    numbers = struct.unpack(CODES[request.model], request.body)
    answer = {"outputs": [float(sum(numbers)), float(len(numbers))]}
    if request.model == "colours":
        answer = {"probabilities": dict.fromkeys(LABELS, 0.0) | {LABELS[int(sum(numbers))]: 1.0}}
    return Reply(sha256=sha256_of(request.body), model=request.model, version="2", **answer)


def tensor(datatype: str, shape: list[int], data: Any, **parameters: Any) -> dict[str, Any]:
    return {
        "name": "tensor",
        "datatype": datatype,
        "shape": shape,
        "parameters": parameters,
        **({} if data is None else {"data": data}),
    }


def url(name: str) -> str:
    return f"/v2/models/{name}/infer"


TWO_WINDOWS = np.arange(12, dtype=np.float32).reshape(2, 2, 3)


@pytest.mark.parametrize("data", [TWO_WINDOWS.tolist(), TWO_WINDOWS.ravel().tolist()], ids=["nested", "flat"])
async def test_numbers_in_json_are_answered_row_by_row(data: Any) -> None:
    async with gateway(summing, served=SERVED) as http:
        outputs = await ask(http, tensor("FP32", [2, 2, 3], data), url("flow"))
    assert outputs == {
        "numbers": {"name": "numbers", "datatype": "FP64", "shape": [2, 2], "data": [15.0, 6.0, 51.0, 6.0]}
    }


async def test_numbers_in_binary_are_answered_in_binary() -> None:
    its_input = tensor("FP32", [2, 2, 3], None, binary_data_size=48)
    head = json.dumps({"inputs": [its_input], "parameters": {"binary_data_output": True}}).encode()
    async with gateway(summing, served=SERVED) as http:
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = await http.post(url("flow"), content=head + TWO_WINDOWS.tobytes(), headers=headers)
    assert tensors(answer)["numbers"].tolist() == [[15.0, 6.0], [51.0, 6.0]]


@pytest.mark.parametrize(
    ("name", "datatype", "data", "expected"),
    [("words", "INT64", [2**53 + 1, 0, -1], float(2**53)), ("flags", "BOOL", [True, False, True], 2.0)],
)
async def test_whole_numbers_and_truths_have_types_of_their_own(
    name: str, datatype: str, data: list[Any], expected: float
) -> None:
    async with gateway(summing, served=SERVED) as http:
        outputs = await ask(http, tensor(datatype, [1, 3], data), url(name))
    assert outputs["numbers"]["data"][0] == expected


async def test_a_model_of_pictures_takes_files_and_the_input_of_its_network() -> None:
    reds = [0.25] * 4 + [0.0] * 8
    async with gateway(summing, served=SERVED) as http:
        of_tensor = await ask(http, tensor("FP32", [1, 3, 2, 2], reds), url("colours"))
        of_file = await ask(http, files(SANDAL), url("colours"))
        grey = await http.post(
            url("colours"),
            json={"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 784], "data": 784 * [0]}]},
        )
    assert of_tensor["label"]["data"] == [LABELS[1]]
    assert of_tensor["class"]["data"] == [1]
    assert of_file["label"]["data"] == ["Sandal"]
    assert refused(grey, 400) == "datatype 'UINT8' is not accepted; accepted: BYTES"


async def test_the_metadata_say_the_real_shapes_and_types() -> None:
    async with gateway(summing, served=SERVED) as http:
        found = {model.name: (await http.get(f"/v2/models/{model.name}")).json() for model in SERVED}
    inputs = {
        name: [(its["name"], its["datatype"], its["shape"]) for its in answer["inputs"]]
        for name, answer in found.items()
    }
    assert inputs == {
        "fashion-mnist": [("image", "UINT8", [-1, 28, 28])],
        "flow": [("tensor", "FP32", [-1, 2, 3])],
        "words": [("tensor", "INT64", [-1, 3])],
        "flags": [("tensor", "BOOL", [-1, 3])],
        "colours": [("image", "BYTES", [-1]), ("tensor", "FP32", [-1, 3, 2, 2])],
    }
    assert found["flow"]["outputs"] == [{"name": "numbers", "datatype": "FP64", "shape": [-1, 2]}]
    assert found["colours"]["outputs"][0]["shape"] == [-1, 10]


SIX = [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("name", "its_input", "more", "says"),
    [
        ("flow", tensor("FP32", [1, 6], SIX), {}, "[1, 6] is not accepted for FP32; accepted: [n, 2, 3]"),
        ("flow", tensor("FP64", [1, 2, 3], SIX), {}, "datatype 'FP64' is not accepted; accepted: FP32"),
        ("flow", tensor("FP32", [1, 2, 3], SIX[1:]), {}, "must have 6 elements, not 5"),
        ("flow", tensor("FP32", [1, 2, 3], [*SIX[1:], 1e39]), {}, "must be numbers of float32"),
        ("flow", tensor("FP32", [1, 2, 3], [*SIX[1:], "1"]), {}, "must be numbers of float32"),
        ("flow", tensor("FP32", [1, 2, 3], [[SIX]]), {}, "not nested according to its shape"),
        ("words", tensor("INT64", [1, 3], [1, 2, 2**63]), {}, "integers from -9223372036854775808"),
        ("words", tensor("INT64", [1, 3], [1, 2, 0.5]), {}, "must be integers"),
        ("flags", tensor("BOOL", [1, 3], [1, 2, 0]), {}, "must be true or false"),
        ("flow", {**tensor("FP32", [1, 2, 3], SIX), "name": "x"}, {}, "'x'; the only input is 'tensor'"),
        ("colours", {**tensor("FP32", [1], []), "name": "x"}, {}, "known: 'image', 'tensor'"),
        ("flow", tensor("FP32", [1, 2, 3], SIX), {"parameters": {"mode": "photo"}}, "accepted: auto"),
        ("flow", tensor("FP32", [1, 2, 3], SIX), {"outputs": [{"name": "label"}]}, "known: numbers"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_numbers_is_said(
    name: str, its_input: dict[str, Any], more: dict[str, Any], says: str
) -> None:
    async with gateway(summing, served=SERVED) as http:
        assert says in refused(await http.post(url(name), json={"inputs": [its_input], **more}), 400)


async def test_too_many_numbers_and_too_large_rows_are_a_413() -> None:
    wide = msgspec.structs.replace(FLOW, shape=(300_000,))
    async with gateway(summing, served=(wide,), max_upload_bytes=1_000_000) as http:
        in_json = await http.post(
            url("flow"), content=json.dumps({"inputs": [tensor("FP32", [1, 300_000], 300_000 * [0])]})
        )
        head = json.dumps(
            {"inputs": [tensor("FP32", [1, 300_000], None, binary_data_size=1_200_000)]}
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        in_binary = await http.post(url("flow"), content=head + bytes(1_200_000), headers=headers)
    assert "send binary data" in refused(in_json, 413)
    assert "a row has 1200000 bytes; at most 1000000" in refused(in_binary, 413)


async def test_a_tensor_travels_with_a_content_type_of_its_own() -> None:
    seen: list[Request] = []

    def noting(request: Request) -> Reply:
        seen.append(request)
        return summing(request)

    async with gateway(noting, served=SERVED) as http:
        await ask(http, tensor("FP32", [1, 2, 3], SIX), url("flow"))
    assert [(one.content_type, one.body) for one in seen] == [(TENSOR, struct.pack("<6f", *SIX))]


INDEX = "/v2/repository/index"


async def test_the_index_lists_what_the_workers_serve() -> None:
    async with gateway(summing, served=(SMALL, FLOW)) as http:
        listed = await http.post(INDEX)
        only_ready = await http.post(INDEX, json={"ready": True})
    expected = [
        {"name": "fashion-mnist", "version": "1", "state": "READY", "reason": ""},
        {"name": "flow", "version": "2", "state": "READY", "reason": ""},
    ]
    assert (listed.status_code, listed.json()) == (200, expected)
    assert only_ready.json() == expected


async def test_the_index_says_why_a_version_cannot_be_served() -> None:
    versions = [
        ServedVersion(version="2", share_percent=100),
        ServedVersion(version="3", problem="golden/1.json is answered by 1, and should be by 2"),
    ]
    async with gateway(summing, served=(msgspec.structs.replace(FLOW, versions=versions),)) as http:
        listed = (await http.post(INDEX)).json()
        ready = (await http.post(INDEX, json={"ready": True})).json()
    assert [(one["version"], one["state"]) for one in listed] == [("2", "READY"), ("3", "UNAVAILABLE")]
    assert listed[1]["reason"] == "golden/1.json is answered by 1, and should be by 2"
    assert ready == listed[:1]


async def test_without_a_worker_the_index_is_a_503_and_what_is_not_json_is_refused() -> None:
    async with gateway(None) as http:
        refused(await http.post(INDEX), 503)
        assert "not JSON" in refused(await http.post(INDEX, content=b"{"), 400)
        assert "at most 1000 are accepted" in refused(await http.post(INDEX, content=bytes(1001)), 400)


async def test_a_served_model_is_loaded_and_none_is_unloaded() -> None:
    async with gateway(summing, served=(SMALL, FLOW)) as http:
        load = await http.post("/v2/repository/models/flow/load", json={})
        unload = await http.post("/v2/repository/models/flow/unload", json={})
        unknown = [await http.post(f"/v2/repository/models/x/{verb}") for verb in ("load", "unload")]
        still = await http.get("/v2/models/flow/ready")
    assert (load.status_code, still.status_code) == (200, 200)
    assert "flow is served because the workers have its folder" in refused(unload, 400)
    for answer in unknown:
        assert "no model 'x'; served: fashion-mnist 1, flow 2" in refused(answer, 404)
