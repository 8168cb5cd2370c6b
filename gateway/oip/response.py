"""What the server answers: metadata, and workers' replies as output tensors."""

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from gateway.errors import Unavailable
from gateway.oip.request import NUMBERS, InferenceRequest, RequestedOutput
from gateway.tensors import IMAGE, TENSOR, inputs_of
from messaging.contract import Reply, ServedModel

HEADER_LENGTH = "Inference-Header-Content-Length"


EXTENSIONS = ("binary_tensor_data", "classification", "model_repository")
_PLATFORMS = {"onnx": "onnx_onnxv1", "keras": "keras_keras"}

_OF_FILES = "picture files, base64 in JSON; shape [n] or [n,1]"


class Error(msgspec.Struct, frozen=True):
    """What is wrong with the request, and what is accepted."""

    error: str


class Server(msgspec.Struct, frozen=True):
    """The server, and the protocol extensions it supports."""

    name: str
    version: str
    extensions: tuple[str, ...]

    example: ClassVar[dict[str, Any]] = {"name": "mlaas", "version": "0.2.0", "extensions": [*EXTENSIONS]}


class Live(msgspec.Struct, frozen=True):
    """error is the reason why not."""

    live: bool
    error: str | UnsetType = UNSET


class Ready(msgspec.Struct, frozen=True):
    """error is the reason why not."""

    ready: bool
    error: str | UnsetType = UNSET


class ModelReady(msgspec.Struct, frozen=True):
    """Whether this model would answer pictures sent now."""

    name: str
    ready: bool


class MetadataTensor(msgspec.Struct, frozen=True, kw_only=True):
    """-1 in a shape stands for the number of pictures. parameters explain the values of an input."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, str] | UnsetType = UNSET


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """parameters has the labels in class order, the model file's SHA-256 digest, and the accuracy."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[MetadataTensor]
    outputs: list[MetadataTensor]
    parameters: dict[str, Any]


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A served version of a model. reason says why it is UNAVAILABLE."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


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
    """Row i of each output is for input i. Raises Unavailable if the replies differ in what they have."""
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
    if output.name == NUMBERS:
        width = len(replies[0].outputs)
        if any(len(reply.outputs) != width for reply in replies) or not width:
            raise Unavailable("a version of the model with other outputs is being rolled out")
        return _Tensor("FP64", [len(replies), width], [value for reply in replies for value in reply.outputs])
    labels = list(replies[0].probabilities)
    if not labels or any(list(reply.probabilities) != labels for reply in replies):
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
    code = {"FP32": "f", "FP64": "d", "INT64": "q"}[tensor.datatype]
    return struct.pack(f"<{len(tensor.data)}{code}", *tensor.data)


def index_of(model: ServedModel, why_not_ready: str | None) -> list[IndexEntry]:
    """The versions of the model that answer, and those that are wanted and cannot be served."""
    problems = {its.version: its.problem for its in model.versions if its.problem}
    reasons = dict.fromkeys(model.answering, why_not_ready or "") | problems
    return [
        IndexEntry(
            name=model.name, version=version, state="UNAVAILABLE" if reason else "READY", reason=reason
        )
        for version, reason in reasons.items()
    ]


def describe(model: ServedModel) -> ModelMetadata:
    if model.output == "numbers":
        outputs = [MetadataTensor(name=NUMBERS, datatype="FP64", shape=[-1, model.output_size or -1])]
    else:
        outputs = [
            MetadataTensor(name="probabilities", datatype="FP32", shape=[-1, len(model.labels)]),
            MetadataTensor(name="label", datatype="BYTES", shape=[-1]),
            MetadataTensor(name="class", datatype="INT64", shape=[-1]),
        ]
    return ModelMetadata(
        name=model.name,
        versions=model.answering,
        platform=_PLATFORMS.get(model.runtime, model.runtime),
        inputs=[_describe_input(model, name) for name in inputs_of(model)],
        outputs=outputs,
        parameters={"labels": model.labels, "sha256": model.sha256, "accuracy": model.accuracy},
    )


def _describe_input(model: ServedModel, name: str) -> MetadataTensor:
    """By its first datatype and shape; parameters have the others."""
    (datatype, (shape, *_)), *_ = inputs_of(model)[name].items()
    values = {"content": model.input, "BYTES": _OF_FILES}
    if name == IMAGE and datatype == "UINT8":
        values["UINT8"] = "0 to 255; shape [n,28,28], [n,28,28,1] or [n,784]"
        values["FP32"] = "0 to 1; shape [n,28,28], [n,28,28,1] or [n,784]"
    elif name == TENSOR and model.kind == "image":
        values = {"content": "the input of the network, prepared; a request has either this or image"}
    elif name == TENSOR:
        values = {"content": model.input}
    return MetadataTensor(name=name, datatype=datatype, shape=[-1, *shape], parameters=values)
