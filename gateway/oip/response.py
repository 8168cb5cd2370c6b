"""From replies to output tensors."""

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from gateway.errors import Unavailable
from gateway.oip.request import Asked, Wanted
from messaging.contract import Reply

HEADER_LENGTH = "Inference-Header-Content-Length"


class _Tensor(NamedTuple):
    datatype: str
    shape: list[int]
    data: list[Any]


class OutputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """data is flat, row by row. Binary data follows the JSON instead; binary_data_size is its length."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, int] | UnsetType = UNSET
    data: list[Any] | UnsetType = UNSET


class InferenceResponse(msgspec.Struct, frozen=True, kw_only=True):
    """id is the request's. model_version is absent if several versions answered: one is replacing another."""

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


def respond(asked: Asked, replies: Sequence[Reply]) -> Response:
    """Row i is picture i's. Raises Unavailable."""
    outputs, binary = [], []
    for wanted in asked.outputs:
        tensor = _tensor(wanted, replies)
        described = OutputTensor(name=wanted.name, shape=tensor.shape, datatype=tensor.datatype)
        if wanted.is_binary:
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
            id=UNSET if asked.id is None else asked.id,
            outputs=outputs,
        )
    )
    if not binary:
        return Response(head, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(head))}
    return Response(b"".join([head, *binary]), 200, headers, "application/octet-stream")


def _tensor(wanted: Wanted, replies: Sequence[Reply]) -> _Tensor:
    labels = list(replies[0].probabilities)
    if any(list(reply.probabilities) != labels for reply in replies):
        raise Unavailable("the model is being replaced by one with other labels")
    rows = [list(reply.probabilities.values()) for reply in replies]
    if wanted.classes:
        count = min(wanted.classes, len(labels))
        return _Tensor("BYTES", [len(rows), count], [one for row in rows for one in _top(row, labels, count)])
    if wanted.name == "probabilities":
        return _Tensor("FP32", [len(rows), len(labels)], [value for row in rows for value in row])
    best = [row.index(max(row)) for row in rows]
    if wanted.name == "label":
        return _Tensor("BYTES", [len(rows)], [labels[index] for index in best])
    return _Tensor("INT64", [len(rows)], best)


def _top(row: list[float], labels: list[str], count: int) -> list[str]:
    """As Triton's classification extension writes it."""
    best = sorted(range(len(row)), key=lambda index: -row[index])[:count]
    return [f"{row[index]:.6f}:{index}:{labels[index]}" for index in best]


def _as_binary(tensor: _Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        texts = [text.encode() for text in tensor.data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    code = {"FP32": "f", "INT64": "q"}[tensor.datatype]
    return struct.pack(f"<{len(tensor.data)}{code}", *tensor.data)
