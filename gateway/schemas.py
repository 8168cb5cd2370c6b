"""What the OpenAPI document says of bodies and errors."""

from typing import Any

from pydantic import BaseModel

from gateway import errors
from gateway.errors import GatewayError

_BINARY = {"schema": {"type": "string", "format": "binary"}}

PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "image/png": _BINARY,
            "image/jpeg": _BINARY,
            "image/webp": _BINARY,
        },
    }
}


class Timings(BaseModel):
    """Milliseconds. total is the gateway's own measure; queue, batch, decode and infer the worker's."""

    total_ms: float
    broker_ms: float
    queue_ms: float
    batch_ms: float
    decode_ms: float
    infer_ms: float
    batch_size: int


class Prediction(BaseModel):
    """probabilities has every label of the model and sums to 1; sha256 is of the picture that was sent."""

    label: str
    confidence: float
    probabilities: dict[str, float]
    model: str
    version: str
    request_id: str
    sha256: str
    timings: Timings


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class Health(BaseModel):
    status: str
    reason: str | None = None


def problem(error: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {error.status: {"description": error.title, "content": content}}


PREDICT_ERRORS: dict[int | str, dict[str, Any]] = {
    status: described
    for error in (
        errors.UnknownModel,
        errors.TooLarge,
        errors.UnacceptedMedia,
        errors.NotAPicture,
        errors.TooManyInFlight,
        errors.GatewayError,
        errors.Unavailable,
        errors.ReplyTimeout,
    )
    for status, described in problem(error).items()
}
