"""The response: workers' replies as output tensors."""

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from gateway.errors import Unavailable
from gateway.oip.request import InferenceRequest, RequestedOutput
from messaging.contract import Reply

HEADER_LENGTH = "Inference-Header-Content-Length"


class _Tensor(NamedTuple):
    datatype: str
    shape: list[int]
    data: list[Any]


class OutputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """data is in row-major order. Binary data of binary_data_size bytes follows the JSON instead."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, int] | UnsetType = UNSET
    data: list[Any] | UnsetType = UNSET


class InferenceResponse(msgspec.Struct, frozen=True, kw_only=True):
    """id is that of the request. model_version is absent if several versions answered during an update."""

    model_name: str
    model_version: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    outputs: list[OutputTensor]

    example: ClassVar[dict[str, Any]] = {
        "model_name": "fashion-mnist",
        "model_version": "1.4.0",
        "id": "42",
        "outputs": [
            {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["Sandal"]},
            {"name": "class", "shape": [1], "datatype": "INT64", "data": [5]},
        ],
    }


def respond(request: InferenceRequest, replies: Sequence[Reply]) -> Response:
    """Row i of each output is for picture i. Raises Unavailable if the replies differ in their labels."""
    outputs, binary = [], []
    for output in request.outputs:
        tensor = _tensor(output, replies)
        described = OutputTensor(name=output.name, shape=tensor.shape, datatype=tensor.datatype)
        if output.is_binary:
            binary.append(_as_binary(tensor))
            size = {"binary_data_size": len(binary[-1])}
            outputs.append(msgspec.structs.replace(described, parameters=size))
        else:
            outputs.append(msgspec.structs.replace(described, data=tensor.data))
    versions = {reply.version for reply in replies}
    head = msgspec.json.encode(
        InferenceResponse(
            model_name=replies[0].model,
            model_version=versions.pop() if len(versions) == 1 else UNSET,
            id=UNSET if request.id is None else request.id,
            outputs=outputs,
        )
    )
    if not binary:
        return Response(head, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(head))}
    return Response(b"".join([head, *binary]), 200, headers, "application/octet-stream")


def _tensor(output: RequestedOutput, replies: Sequence[Reply]) -> _Tensor:
    labels = list(replies[0].probabilities)
    if any(list(reply.probabilities) != labels for reply in replies):
        raise Unavailable("a version of the model with other labels is being rolled out")
    rows = [list(reply.probabilities.values()) for reply in replies]
    if output.classes:
        count = min(output.classes, len(labels))
        return _Tensor(
            "BYTES", [len(rows), count], [text for row in rows for text in _top(row, labels, count)]
        )
    if output.name == "probabilities":
        return _Tensor("FP32", [len(rows), len(labels)], [value for row in rows for value in row])
    best = [row.index(max(row)) for row in rows]
    if output.name == "label":
        return _Tensor("BYTES", [len(rows)], [labels[index] for index in best])
    return _Tensor("INT64", [len(rows)], best)


def _top(row: list[float], labels: list[str], count: int) -> list[str]:
    """In the format of Triton's classification extension."""
    best = sorted(range(len(row)), key=lambda index: -row[index])[:count]
    return [f"{row[index]:.6f}:{index}:{labels[index]}" for index in best]


def _as_binary(tensor: _Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        texts = [text.encode() for text in tensor.data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    code = {"FP32": "f", "INT64": "q"}[tensor.datatype]
    return struct.pack(f"<{len(tensor.data)}{code}", *tensor.data)
