"""What is refused of an inference request, and what the error says."""

import base64
import json
import struct
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from gateway.errors import Rejected, TooLarge
from gateway.oip.request import Limits, read
from gateway.problem import detail
from tests.unit.gateways import SANDAL, SMALL, gateway
from tests.unit.inferring import INFER, image, refused, seeing

pytestmark = pytest.mark.anyio

ZEROS = 784 * [0]
LIMITS = Limits(256, 10_000_000)
PNG_BASE64 = "iVBORw0KGgo="
WITH = json.dumps({"inputs": [image("UINT8", [1, 784], ZEROS)]}).encode()[:-1] + b",%b}"


def asking(**changes: Any) -> dict[str, Any]:
    return {**image("UINT8", [1, 784], ZEROS), **changes}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "invalid inference request"),
        (b"{}", "`inputs`"),
        (b'{"inputs":' + 100_000 * b"[", "inference request"),
        (b'{"inputs":[],"id":' + 100_000 * b"[", "inference request"),
        (b"\xff\xfe", "not JSON"),
        (b'{"inputs":[{"name":"\xff","datatype":"UINT8","shape":[1]}]}', "utf-8"),
        (WITH % b'"id":"\xff"', "utf-8"),
        (WITH % b'"parameters":{"a":"\xff"}', "invalid parameters"),
        (WITH % b'"outputs":[{"name":"\xff"}]', "invalid outputs"),
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
            "only to the output 'probabilities'",
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
        read(content, None, SMALL, LIMITS)
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
        ("UINT8", bytes(784), 785, "binary_data_size is 785, but 784 bytes follow"),
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
        read(head + data, str(len(head)), SMALL, LIMITS)
    assert says in detail(raised.value)


@pytest.mark.parametrize("length", ["", "-1", "1.5", "many", "9" * 30, "1000000"])
def test_a_length_of_the_header_that_cannot_be_is_refused(length: str) -> None:
    with pytest.raises(Rejected, match="Inference-Header-Content-Length"):
        read(json.dumps({"inputs": [asking()]}).encode(), length, SMALL, LIMITS)


def test_more_pictures_than_are_allowed_are_refused_before_their_data_is_looked_at() -> None:
    with pytest.raises(TooLarge, match="257 pictures in one request; at most 256"):
        read(json.dumps({"inputs": [asking(shape=[257, 784])]}).encode(), None, SMALL, LIMITS)


BASE64 = base64.b64encode(SANDAL).decode()
IN_LINES = base64.encodebytes(SANDAL).decode()


@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        IN_LINES,
        IN_LINES.replace("\n", "\r\n\t "),
        base64.urlsafe_b64encode(SANDAL).decode(),
        f"data:image/png;base64,{BASE64}",
        f"DATA:image/png;name=a.png;base64,{IN_LINES}",
    ],
)
@pytest.mark.parametrize("padding", [0, 6_000_000])
def test_base64_is_read_as_encoders_write_it(text: str, padding: int) -> None:
    """In JSON that is large, long strings are read on their own."""
    its_input = image("BYTES", [3, 1], [[text], [text + padding * " "], [BASE64]])
    for content in (json.dumps({"inputs": [its_input]}), escaped({"inputs": [its_input]})):
        asked = read(bytearray(content.encode()), None, SMALL, LIMITS)
        assert asked.rows == 3 * [SANDAL]


def escaped(document: Any) -> str:
    """As PHP and .NET write it."""
    return json.dumps(document).replace("/", "\\/").replace("+", "\\u002B")


SPACES = 6_000_000 * " "


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"inputs": [image("BYTES", [1], [SPACES])], "id": "x"}, None),
        ({"inputs": [image("BYTES", [1], [SPACES])], "id": SPACES}, "accepted only as data"),
        ({"inputs": [image("BYTES", [2], [SPACES, 0])]}, "not numbers"),
        ({"inputs": [image("BYTES", [2], [0, 0])], "other": SPACES}, "not numbers"),
        ({"inputs": [image("BYTES", [2], [1, 0])], "other": [SPACES, SPACES]}, "not numbers"),
        ({"inputs": [image("BYTES", [1], [7])], "other": SPACES}, "not numbers"),
        ({"inputs": [image("BYTES", [1], [SPACES + '"'])]}, "picture 0: data of BYTES"),
        ({"inputs": [image("BYTES", [1], [SPACES + "\\"])]}, "picture 0: data of BYTES"),
        ({"inputs": [image("BYTES", [1], [SPACES + "é"])]}, "picture 0: data of BYTES"),
        ({"inputs": [image("BYTES", [1], [4 * SPACES])]}, "over 20000000 bytes"),
        ({"inputs": [image("BYTES", [1], ["\"" * 3_000_000])]}, "besides picture files"),
        ({"inputs": [image("BYTES", [1], ["a" for _ in range(2_000_000)])]}, "besides picture files"),
        ({"inputs": [image("UINT8", [1, 784], [0 for _ in range(3_000_000)])]}, "besides picture files"),
        (b'{"inputs":' + 6_000_000 * b"[", "besides picture files"),
        (b'{"' + 6_000_000 * b"a" + b'":1,"inputs":[]}', "not JSON"),
        (b'["' + 6_000_000 * b"a", "besides picture files"),
        (b'["' + 6_000_000 * b"\xff" + b'"]', "invalid inference request"),
        (json.dumps({"inputs": [image("BYTES", [1], [2 * SPACES])]}).encode().replace(b"  ", b"\n"),
         "picture 0: data of BYTES"),
    ],
)  # fmt: skip
def test_of_large_json_the_same_is_said(body: Any, says: str | None) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if says is None:
        assert read(content, None, SMALL, LIMITS).rows == [b""]
        return
    with pytest.raises(Rejected) as raised:
        read(content, None, SMALL, LIMITS)
    assert says in detail(raised.value)
    assert len(detail(raised.value)) < 500


MADE_TO_GROW = {
    "a string with blanks": (1, b'"' + 9_000_000 * b"A " + b'"'),
    "strings with blanks": (3, b",".join(3 * [b'"' + 9_000_000 * b"A " + b'"'])),
    "files": (200, b",".join(200 * [b'"' + 300_000 * b"A" + b'"'])),
    "tiny strings": (256, b",".join(1_000_000 * [b'"AB"'])),
    "numbers": (256, b",".join(2_000_000 * [b"0"])),
    "objects": (256, b",".join(1_500_000 * [b"{}"])),
    "lists": (256, b",".join(1_500_000 * [b"[]"])),
}


@pytest.mark.parametrize(("count", "data"), MADE_TO_GROW.values(), ids=MADE_TO_GROW)
def test_reading_takes_no_more_memory_than_what_was_sent_and_some_megabytes(count: int, data: bytes) -> None:
    head = b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[%d],"data":[' % count
    content = bytearray(head + data + b"]}]}")
    tracemalloc.start()
    try:
        with suppress(Rejected):
            read(content, None, SMALL, LIMITS)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(content) + 60_000_000


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
    assert "set Inference-Header-Content-Length" in refused(unsaid, 400)


async def test_a_compressed_body_and_a_timeout_that_is_none_are_refused() -> None:
    async with gateway(seeing) as http:
        body = {"inputs": [asking()]}
        compressed = await http.post(INFER, json=body, headers={"Content-Encoding": "gzip"})
        timeout = await http.post(INFER, json=body, headers={"X-Request-Timeout-Ms": "soon"})
    assert "Content-Encoding 'gzip'" in refused(compressed, 415)
    assert "X-Request-Timeout-Ms" in refused(timeout, 400)


async def test_parameters_that_mean_nothing_here_are_let_pass() -> None:
    parameters = {"sequence_id": 7, "sequence_start": True, "priority": 1, "of_its_own": "x", "none": None}
    async with gateway(seeing) as http:
        response = await http.post(INFER, json={"inputs": [asking()], "parameters": parameters})
    assert response.status_code == 200
