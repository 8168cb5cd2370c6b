"""What the OpenAPI document says of bodies and errors."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from gateway import errors
from gateway.errors import GatewayError
from gateway.examples import DETAILS, PREDICTION, REQUEST_ID
from gateway.picture import ACCEPTED
from gateway.query import NAMES
from gateway.upload import OTHER_FIELDS

BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
BINARIES: dict[str, Any] = {"type": "array", "minItems": 1, "items": BINARY}


def body(file: dict[str, Any], *media_types: str) -> dict[str, Any]:
    """A form with the file, described by a schema, and other fields; or the picture alone, in these types."""
    form = {
        "type": "object",
        "description": f"Other fields say nothing; {', '.join(NAMES)} belong in the query.",
        "required": ["file"],
        "maxProperties": 1 + OTHER_FIELDS,
        "properties": {"file": file},
    }
    raw = {media_type: {"schema": BINARY} for media_type in media_types}
    return {"required": True, "content": {"multipart/form-data": {"schema": form}, **raw}}


PICTURE_BODY: dict[str, Any] = {"requestBody": body(BINARY, *ACCEPTED)}
PICTURES_BODY: dict[str, Any] = {"requestBody": body(BINARIES)}


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
    """probabilities has every label, or the top_k most probable; all labels together sum to 1.

    sha256 is of the picture that was sent.

    ood_score is above 1, and in_distribution false, where the picture is unlike what the model was trained
    on; both are null while a worker of an older version answers. mode is the one that auto chose. warnings
    say why the answer may be wrong. input, a data URI of a PNG, is there if explain asked for it.
    """

    model_config = ConfigDict(json_schema_extra={"example": PREDICTION})

    label: str
    confidence: float
    probabilities: dict[str, float]
    in_distribution: bool | None
    ood_score: float | None
    mode: str
    warnings: list[str]
    input: str | None = None
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


class BatchEntry(BaseModel):
    """Either prediction or problem."""

    index: int
    filename: str
    prediction: Prediction | None = None
    problem: Problem | None = None


class BatchTimings(BaseModel):
    total_ms: float


class BatchResult(BaseModel):
    """results are in the order of the files."""

    results: list[BatchEntry]
    request_id: str
    timings: BatchTimings


class Health(BaseModel):
    status: str
    reason: str | None = None


def header_parameter(name: str, description: str, **schema: object) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema}


TIMEOUT = header_parameter(
    "X-Request-Timeout-Ms",
    "How long the caller waits, sending the pictures included; at most what the gateway's settings say.",
    type="integer",
    minimum=1,
    maximum=999_999_999_999_999,
)


def path_parameter(name: str, example: str) -> dict[str, Any]:
    """A part of the path, as OpenAPI describes it."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": example}


def problems(*kinds: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    """By status; of several with the same, each one's title and an example."""
    by_status: dict[int | str, list[type[GatewayError]]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": "; ".join(kind.title for kind in its),
            "content": {
                "application/problem+json": {
                    "schema": Problem.model_json_schema(),
                    "examples": {kind.kind: {"value": _problem_example(kind)} for kind in its},
                }
            },
        }
        for status, its in by_status.items()
    }


def _problem_example(kind: type[GatewayError]) -> dict[str, object]:
    return {
        "type": f"urn:mlaas:problem:{kind.kind}",
        "title": kind.title,
        "status": kind.status,
        "detail": DETAILS[kind],
        "request_id": REQUEST_ID,
    }


_OF_A_PICTURE = (
    errors.BrokenForm,
    errors.UnknownModel,
    errors.SlowBody,
    errors.TooLarge,
    errors.UnacceptedMedia,
    errors.UnacceptedCoding,
    errors.InvalidRequest,
    errors.NotAPicture,
    errors.TooManyInFlight,
    errors.GatewayError,
    errors.Unavailable,
    errors.ReplyTimeout,
)
PICTURE_ERRORS = problems(*_OF_A_PICTURE)
