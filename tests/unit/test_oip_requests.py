"""What is refused of an inference request, and what the error says."""

import json
import struct
from typing import Any

import numpy as np
import pytest

from gateway.errors import Rejected, TooLarge
from gateway.oip.request import read
from gateway.problem import detail
from tests.unit.gateways import SANDAL, gateway
from tests.unit.inferring import INFER, image, refused, seeing

pytestmark = pytest.mark.anyio

ZEROS = 784 * [0]
PNG_BASE64 = "iVBORw0KGgo="
WITH = json.dumps({"inputs": [image("UINT8", [1, 784], ZEROS)]}).encode()[:-1] + b",%b}"


def asking(**changes: Any) -> dict[str, Any]:
    return {**image("UINT8", [1, 784], ZEROS), **changes}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not understood"),
        (b"{}", "`inputs`"),
        (b'{"inputs":' + 100_000 * b"[", "not "),
        (b'{"inputs":[],"id":' + 100_000 * b"[", "not "),
        (b"\xff\xfe", "not JSON"),
        (b'{"inputs":[{"name":"\xff","datatype":"UINT8","shape":[1]}]}', "utf-8"),
        (WITH % b'"id":"\xff"', "utf-8"),
        (WITH % b'"parameters":{"a":"\xff"}', "parameters is not understood"),
        (WITH % b'"outputs":[{"name":"\xff"}]', "outputs is not understood"),
        (b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"data":["\xff"]}]}', "base64 strings"),
        (WITH % (b'"parameters":{"timeout":1' + 400 * b"0" + b"}"), "at most 15 digits"),
        ({"inputs": []}, "length 1"),
        ({"inputs": [asking(), asking()]}, "length 1"),
        ({"inputs": [asking()], "id": 5}, "id"),
        ({"inputs": [asking(name="input-0")]}, "'image'"),
        ({"inputs": [asking(name=None)]}, "name"),
        ({"inputs": [asking()], "outputs": [{"name": "scores"}]}, "probabilities, label, class"),
        ({"inputs": [asking()], "outputs": [{"name": "label"}, {"name": "label"}]}, "twice"),
        ({"inputs": [asking()], "outputs": 3000 * [{"name": "x"}]}, "outputs has"),
        ({"inputs": [asking()], "parameters": {"x": [1]}}, "parameters"),
        ({"inputs": [asking()], "parameters": {"timeout": -1}}, "timeout"),
        ({"inputs": [asking()], "parameters": {"timeout": "soon"}}, "timeout"),
        ({"inputs": [asking()], "parameters": {"binary_data_output": "yes"}}, "binary_data_output"),
        (
            {"inputs": [asking()], "outputs": [{"name": "label", "parameters": {"classification": 2}}]},
            "'probabilities' alone",
        ),
        (
            {
                "inputs": [asking()],
                "outputs": [{"name": "label", "parameters": {"shared_memory_region": "r"}}],
            },
            "shared memory",
        ),
        ({"inputs": [asking(parameters={"shared_memory_region": "r"})]}, "shared memory"),
        ({"inputs": [asking(datatype="FP64")]}, "UINT8, FP32, BYTES"),
        ({"inputs": [asking(shape=[784])]}, "[n, 28, 28], [n, 28, 28, 1], [n, 784]"),
        ({"inputs": [asking(shape=[0, 784])]}, "shape"),
        ({"inputs": [asking(shape=[-1, 784])]}, "shape"),
        ({"inputs": [asking(shape=[])]}, "shape"),
        ({"inputs": [asking(shape=["1", "784"])]}, "shape"),
        ({"inputs": [asking(shape=[1, 3, 28, 28])]}, "shape"),
        ({"inputs": [asking(shape=[2, 784])]}, "1568 elements, not 784"),
        ({"inputs": [asking(data=[])]}, "784 elements"),
        ({"inputs": [asking(data=None)]}, "either data or binary_data_size"),
        ({"inputs": [asking(data="abc")]}, "elements"),
        ({"inputs": [asking(data=[*ZEROS[1:], 256])]}, "0 to 255"),
        ({"inputs": [asking(data=[*ZEROS[1:], -1])]}, "0 to 255"),
        ({"inputs": [asking(data=[*ZEROS[1:], 0.5])]}, "0 to 255"),
        ({"inputs": [asking(data=[*ZEROS[1:], "0"])]}, "0 to 255"),
        ({"inputs": [asking(data=[ZEROS[:700], ZEROS[700:]])]}, "nested"),
        ({"inputs": [asking(shape=[1, 28, 28], data=[[ZEROS[:783], [0]]])]}, "nested"),
        ({"inputs": [asking(datatype="FP32", data=[*ZEROS[1:], 1.01])]}, "0 to 1"),
        ({"inputs": [asking(datatype="FP32", data=[*ZEROS[1:], 255])]}, "0 to 1"),
        ({"inputs": [image("BYTES", [1], ["%%%"])]}, "picture 0: data of BYTES"),
        ({"inputs": [image("BYTES", [2], [PNG_BASE64, "a"])]}, "picture 1: data of BYTES"),
        ({"inputs": [image("BYTES", [1], ["é"])]}, "picture 0: data of BYTES"),
        ({"inputs": [image("BYTES", [1], [5])]}, "base64 strings"),
        ({"inputs": [image("BYTES", [1, 2], ["", ""])]}, "accepted: [n], [n, 1]"),
    ],
)
def test_what_is_wrong_with_it_is_said(body: Any, says: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Rejected) as raised:
        read(content, None, 256)
    assert raised.value.status == 422
    assert says in detail(raised.value)
    assert len(detail(raised.value)) < 500


FLOATS = np.zeros((1, 784), np.float32)
OUT_OF_RANGE = np.full((1, 784), 1.5, np.float32)
NO_NUMBER = np.full((1, 784), np.nan, np.float32)
ONE_FILE = struct.pack("<I", len(SANDAL)) + SANDAL


@pytest.mark.parametrize(
    ("datatype", "data", "size", "says"),
    [
        ("UINT8", bytes(783), 783, "784 bytes, not 783"),
        ("UINT8", bytes(784), 785, "binary_data_size is 785, and 784 bytes follow"),
        ("UINT8", bytes(784), "784", "binary_data_size is '784'"),
        ("UINT8", bytes(784), None, "either data or binary_data_size"),
        ("FP32", bytes(784), 784, "3136 bytes, not 784"),
        ("FP32", OUT_OF_RANGE.tobytes(), 3136, "divide grey values by 255"),
        ("FP32", NO_NUMBER.tobytes(), 3136, "0 to 1"),
        ("FP32", (-FLOATS - 1).tobytes(), 3136, "0 to 1"),
        ("BYTES", b"", 0, "1 elements"),
        ("BYTES", b"\x01\x00", 2, "picture 0: its length"),
        ("BYTES", b"\xff\xff\xff\xff", 4, "picture 0: its length"),
        ("BYTES", ONE_FILE + ONE_FILE, 2 * len(ONE_FILE), "1 elements"),
        ("BYTES", ONE_FILE + b"x", len(ONE_FILE) + 1, "1 elements"),
    ],
)
def test_what_is_wrong_with_the_binary_data_is_said(datatype: str, data: bytes, size: Any, says: str) -> None:
    shape = [1] if datatype == "BYTES" else [1, 784]
    its_input = {"name": "image", "datatype": datatype, "shape": shape}
    its_input["parameters"] = {} if size is None else {"binary_data_size": size}
    head = json.dumps({"inputs": [its_input]}).encode()
    with pytest.raises(Rejected) as raised:
        read(head + data, str(len(head)), 256)
    assert says in detail(raised.value)


@pytest.mark.parametrize("length", ["", "-1", "1.5", "many", "9" * 30, "1000000"])
def test_a_length_of_the_header_that_cannot_be_is_refused(length: str) -> None:
    with pytest.raises(Rejected, match="Inference-Header-Content-Length"):
        read(json.dumps({"inputs": [asking()]}).encode(), length, 256)


def test_more_pictures_than_are_allowed_are_refused_before_their_data_is_looked_at() -> None:
    with pytest.raises(TooLarge, match="257 pictures in one request; at most 256"):
        read(json.dumps({"inputs": [asking(shape=[257, 784])]}).encode(), None, 256)


async def test_bytes_that_no_input_claims_are_refused_and_so_are_both_at_once() -> None:
    head = json.dumps({"inputs": [asking()]}).encode()
    both = json.dumps({"inputs": [asking(parameters={"binary_data_size": 1})]}).encode()
    async with gateway(seeing) as http:
        headers = {"Inference-Header-Content-Length": str(len(head))}
        unclaimed = await http.post(INFER, content=head + b"x", headers=headers)
        headers = {"Inference-Header-Content-Length": str(len(both))}
        twice = await http.post(INFER, content=both + b"x", headers=headers)
        unsaid = await http.post(INFER, content=head + b"x")
    assert "no input has binary_data_size" in refused(unclaimed, 400)
    assert "either" in refused(twice, 400)
    assert "Inference-Header-Content-Length says where" in refused(unsaid, 400)


async def test_a_compressed_body_and_a_timeout_that_is_none_are_refused() -> None:
    async with gateway(seeing) as http:
        body = {"inputs": [asking()]}
        compressed = await http.post(INFER, json=body, headers={"Content-Encoding": "gzip"})
        timeout = await http.post(INFER, json=body, headers={"X-Request-Timeout-Ms": "soon"})
    assert "compressed" in refused(compressed, 400)
    assert "X-Request-Timeout-Ms" in refused(timeout, 400)


async def test_parameters_that_mean_nothing_here_are_let_pass() -> None:
    parameters = {"sequence_id": 7, "sequence_start": True, "priority": 1, "of_its_own": "x", "none": None}
    async with gateway(seeing) as http:
        response = await http.post(INFER, json={"inputs": [asking()], "parameters": parameters})
    assert response.status_code == 200
