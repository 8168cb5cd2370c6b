"""The answer to POST /predict, made of a worker's reply."""

import base64
import heapq
import struct
import zlib
from typing import Annotated, Any, ClassVar, NoReturn

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.errors import (
    GatewayError,
    InvalidRequest,
    NotAPicture,
    TooManyInFlight,
    UnknownModel,
    WorkerFailed,
)
from messaging.contract import (
    MOST_LABELS,
    PNG_SIGNATURE,
    ErrorCode,
    Failure,
    Reply,
    ServedModel,
    no_such_model,
)

_ERRORS: dict[ErrorCode, type[GatewayError]] = {
    ErrorCode.INVALID_PICTURE: NotAPicture,
    ErrorCode.INVALID_REQUEST: InvalidRequest,
    ErrorCode.UNKNOWN_MODEL: UnknownModel,
    ErrorCode.OVERLOADED: TooManyInFlight,
}
_ENDED = "a process of the worker ended over this picture, or a copy of it; `mlaas dlq ls` says how"

_GREY_8_BIT = (8, 0, 0, 0, 0)
_INPUT_WIDTH = 28

REQUEST_ID = "842df7a8c8ce4d5e530237af93b56d0f"
"""The request id of every example in the documentation."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds. If the worker does not measure, there is only total_ms."""

    total_ms: Annotated[float, Meta(ge=0, description="From the request's head to its answer.")]
    broker_ms: Annotated[float, Meta(ge=0, description="In the broker and the gateway.")] | UnsetType = UNSET
    queue_ms: Annotated[float, Meta(ge=0, description="Waiting for a worker.")] | UnsetType = UNSET
    batch_ms: Annotated[float, Meta(ge=0, description="Waiting for the model.")] | UnsetType = UNSET
    decode_ms: Annotated[float, Meta(ge=0, description="Decoding and preprocessing.")] | UnsetType = UNSET
    infer_ms: Annotated[float, Meta(ge=0, description="Running the model on the batch.")] | UnsetType = UNSET
    batch_size: Annotated[int, Meta(ge=0, description="Pictures in the batch.")] | UnsetType = UNSET


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says about one picture or row of numbers."""

    label: Annotated[
        str | None, Meta(description="The most probable label; null from a model without labels.")
    ]
    confidence: Annotated[float | None, Meta(description="Its probability.")]
    probabilities: Annotated[
        dict[str, float],
        Meta(description="The top_k most probable labels: ten, unless the query asks for more or less."),
    ]
    in_distribution: Annotated[
        bool | None,
        Meta(description="False if the picture is unlike those the model was trained on; null if unknown."),
    ]
    ood_score: Annotated[
        float | None, Meta(description="How unlike: above 1, in_distribution is false; null if unknown.")
    ]
    mode: Annotated[
        str,
        Meta(description="How the picture was prepared; for auto, the one it chose. tensor: numbers."),
    ]
    warnings: Annotated[list[str], Meta(description="Reasons to doubt the answer.")]
    model: str
    version: Annotated[str, Meta(description="The model's version.")]
    request_id: str
    sha256: Annotated[
        str,
        Meta(
            description="SHA-256 digest of the picture as sent; of a row, of its numbers in the model's "
            "dtype, little-endian, row by row."
        ),
    ]
    timings: Timings
    input: (
        Annotated[str, Meta(description="What the model saw, as a data URI of a PNG, if explain=input.")]
        | UnsetType
    ) = UNSET
    outputs: Annotated[list[float], Meta(description="What a model without labels gives.")] | UnsetType = (
        UNSET
    )

    example: ClassVar[dict[str, Any]] = {
        "label": "Sandal",
        "confidence": 0.999691,
        "probabilities": {
            "T-shirt/top": 0.000008,
            "Trouser": 0.000009,
            "Pullover": 0.000014,
            "Dress": 0.000020,
            "Coat": 0.000006,
            "Sandal": 0.999691,
            "Shirt": 0.000004,
            "Sneaker": 0.000067,
            "Bag": 0.000132,
            "Ankle boot": 0.000049,
        },
        "in_distribution": True,
        "ood_score": 0.404269,
        "mode": "raw28",
        "warnings": [],
        "model": "fashion-mnist",
        "version": "1.4.0",
        "request_id": REQUEST_ID,
        "sha256": "e8d2fe3c6ec5e7f0c74b0f84b3c6f041f65037ce1320e64a56135cb4e73c4e18",
        "timings": {
            "total_ms": 6.01,
            "broker_ms": 2.081,
            "queue_ms": 2.657,
            "batch_ms": 0.42,
            "decode_ms": 0.375,
            "infer_ms": 0.477,
            "batch_size": 1,
        },
    }


def prediction(reply: Reply, request_id: str, total_ms: float, top_k: int = 0) -> Prediction:
    """With the top_k most probable labels; for 0, with ten. Raises GatewayError."""
    if reply.error is not None:
        raise_failure(reply.error)
    probabilities = reply.probabilities
    label = max(probabilities, key=probabilities.__getitem__, default=None)
    confidence = None if label is None else probabilities[label]
    most = top_k or MOST_LABELS
    if len(probabilities) > most or top_k:
        probabilities = dict(heapq.nlargest(most, probabilities.items(), key=lambda item: item[1]))
    return Prediction(
        label=label,
        confidence=confidence,
        probabilities=probabilities,
        in_distribution=reply.in_distribution,
        ood_score=reply.ood_score,
        mode=reply.mode,
        warnings=reply.warnings,
        model=reply.model,
        version=reply.version,
        request_id=request_id,
        sha256=reply.sha256,
        timings=_timings(reply, total_ms),
        input=UNSET if reply.input is None else data_uri(reply.input),
        outputs=reply.outputs or UNSET,
    )


def _timings(reply: Reply, total_ms: float) -> Timings:
    """broker_ms is the rest of the total."""
    its = reply.timings
    if its is None:
        return Timings(total_ms=round(total_ms, 3))
    at_worker_ms = its.queue_ms + its.batch_ms + its.decode_ms + its.infer_ms
    return Timings(
        total_ms=round(total_ms, 3),
        broker_ms=round(max(0.0, total_ms - at_worker_ms), 3),
        queue_ms=round(its.queue_ms, 3),
        batch_ms=round(its.batch_ms, 3),
        decode_ms=round(its.decode_ms, 3),
        infer_ms=round(its.infer_ms, 3),
        batch_size=its.batch_size,
    )


def server_timing(timings: Timings) -> str:
    """The value of the Server-Timing header."""
    if timings.broker_ms is UNSET:
        return f"total;dur={timings.total_ms}"
    return (
        f"broker;dur={timings.broker_ms}, queue;dur={timings.queue_ms}, batch;dur={timings.batch_ms}, "
        f"decode;dur={timings.decode_ms}, infer;dur={timings.infer_ms}, total;dur={timings.total_ms}"
    )


def raise_failure(failure: Failure) -> NoReturn:
    """Raises the GatewayError that stands for a worker's failure."""
    kind = _ERRORS.get(failure.code, WorkerFailed)
    raise kind(failure.detail or (_ENDED if kind is WorkerFailed else ""))


def check_version(reply: Reply, asked: str) -> None:
    """Raises UnknownModel if a worker from before versions could be chosen has answered with another one."""
    if asked not in ("", reply.version) and reply.error is None:
        served = ServedModel(name=reply.model, version=reply.version)
        raise UnknownModel(no_such_model(reply.model, asked, [served]))


def data_uri(pixels: bytes, width: int = _INPUT_WIDTH) -> str:
    """A picture that an <img> shows. pixels: grey, one byte each, row by row; or a PNG file."""
    file = pixels if pixels.startswith(PNG_SIGNATURE) else grey_png(pixels, width)
    return "data:image/png;base64," + base64.b64encode(file).decode()


def grey_png(pixels: bytes, width: int) -> bytes:
    """A PNG file (RFC 2083) of grey pixels, one byte each, row by row."""
    starts = range(0, len(pixels), width)
    header = struct.pack(">IIBBBBB", width, len(starts), *_GREY_8_BIT)
    rows = b"".join(b"\0" + pixels[start : start + width] for start in starts)  # filter 0: none
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
