"""Asking by the Open Inference Protocol, of a worker whose answer shows which picture it saw."""

import base64
import hashlib
import struct
from typing import Any

import httpx
import numpy as np

from messaging.contract import Reply, Request
from model.preprocessing import prepare
from tests.unit.gateways import LABELS, TIMINGS

INFER = "/v2/models/fashion-mnist/infer"


def marked(*classes: int) -> np.ndarray:
    """Pictures that `seeing` takes for these classes: uint8 (n, 28, 28)."""
    pictures = np.arange(28 * 28 * len(classes), dtype=np.uint32).reshape(-1, 28, 28).astype(np.uint8)
    pictures[:, 0, :] = 0
    pictures[:, 0, 0] = classes
    pictures[:, -1, :] = 0
    return pictures


def seeing(request: Request) -> Reply:
    """The class that the first pixel says, in this version, with 0.91 of the probability."""
    pixels = prepare(request.body, mode=request.mode, max_pixels=10_000).pixels
    probabilities = dict.fromkeys(LABELS, 0.01)
    probabilities[LABELS[int(pixels[0, 0]) % 10]] = 0.91
    return Reply(
        sha256=hashlib.sha256(request.body).hexdigest(),
        model=request.model,
        version="1",
        probabilities=probabilities,
        timings=TIMINGS,
    )


def image(datatype: str, shape: list[int], data: Any, **parameters: Any) -> dict[str, Any]:
    """A request's only input."""
    return {"name": "image", "datatype": datatype, "shape": shape, "data": data, "parameters": parameters}


def pixels(pictures: np.ndarray) -> dict[str, Any]:
    return image("UINT8", list(pictures.shape), pictures.ravel().tolist())


def files(*pictures: bytes) -> dict[str, Any]:
    return image("BYTES", [len(pictures)], [base64.b64encode(picture).decode() for picture in pictures])


async def ask(http: httpx.AsyncClient, its_input: dict[str, Any], path: str = INFER, **more: Any) -> Any:
    """The answer's outputs by name, from JSON."""
    response = await http.post(path, json={"inputs": [its_input], **more})
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


def refused(response: httpx.Response, status: int) -> str:
    """What the error says, once its form is the protocol's."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    assert response.headers["x-request-id"]
    return str(response.json()["error"])


def tensors(response: httpx.Response) -> dict[str, Any]:
    """Arrays by name, from an answer with binary data."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    head, rest = httpx.Response(200, content=response.content[:length]).json(), response.content[length:]
    found: dict[str, Any] = {}
    for output in head["outputs"]:
        size = output["parameters"]["binary_data_size"]
        data, rest = rest[:size], rest[size:]
        found[output["name"]] = _read(output["datatype"], data, output["shape"])
    assert rest == b""
    return found


def _read(datatype: str, data: bytes, shape: list[int]) -> Any:
    if datatype != "BYTES":
        return np.frombuffer(data, {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}[datatype]).reshape(shape)
    elements: list[str] = []
    while data:
        (size,) = struct.unpack_from("<I", data)
        elements.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return np.array(elements).reshape(shape)
