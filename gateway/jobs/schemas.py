"""What the OpenAPI document says of jobs."""

from typing import Any, ClassVar, Literal

import msgspec

from gateway import errors
from gateway.asked import ACCEPTED, PARAMETERS, parameter
from gateway.openapi import BINARIES, TIMEOUT, answer, body, path_parameter, problems
from gateway.predict import BatchEntry

_ID = "3f0c2a9b7d5e4c1f8a6b0d9e2c4f7a1b"
_SUMMARY: dict[str, Any] = {
    "id": _ID,
    "status": "running",
    "created_at": "2026-01-31T12:00:00.000Z",
    "expires_at": "2026-02-01T12:00:00.000Z",
    "total": 2,
    "completed": 1,
}
_ENTRY: dict[str, Any] = {
    "index": 1,
    "filename": "notes.txt",
    "problem": {
        "type": "urn:mlaas:problem:not-a-picture",
        "title": errors.NotAPicture.title,
        "status": 422,
        "detail": "the bytes are neither PNG, JPEG nor WebP",
        "request_id": "7d6bd088794840c69cf72e11b36f0d14",
    },
}


class Job(msgspec.Struct, frozen=True):
    """accepted: nothing is finished yet; running: some; done: every picture has a prediction or a problem.

    canceled: results that were there stay; expired: the deadline came first, and what was not answered has a
    problem. results are those that are finished, in the order of index. After expires_at they are deleted.
    """

    example: ClassVar[dict[str, Any]] = {**_SUMMARY, "results": [_ENTRY]}

    id: str
    status: Literal["accepted", "running", "done", "canceled", "expired"]
    created_at: str
    expires_at: str
    total: int
    completed: int
    results: list[BatchEntry]


ID = path_parameter("id", _ID)
WAIT = parameter(
    "wait",
    "How long to wait until the job is over: a number with s or ms. It is answered before, when it is over.",
    pattern="^[0-9]+(\\.[0-9]+)?(ms|s)$",
    example="20s",
)
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same request again gets the same job, from any gateway.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that was seen: go on after it.",
    "schema": {"type": "string", "pattern": "^([0-9]{0,6}|done)$"},
}
SUBMIT: dict[str, Any] = {
    "parameters": [*PARAMETERS, _KEY, TIMEOUT],
    "requestBody": body(BINARIES, *ACCEPTED),
}
_EVENT: dict[str, Any] = {
    "type": "object",
    "description": "The fields of one event.",
    "properties": {
        "id": {"type": "string", "pattern": "^([0-9]{1,6}|done)$"},
        "event": {"type": "string", "enum": ["result", "done"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}
EVENTS: dict[str, Any] = {"parameters": [ID, _LAST_EVENT_ID]}

_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        **answer(Job, "Accepted: from now on the job outlives gateways and workers"),
        "headers": {
            "Location": {"description": "/jobs/{id}", "schema": {"type": "string"}},
            "Idempotent-Replayed": {
                "description": "true, if the job was there before under this Idempotency-Key",
                "schema": {"type": "string"},
            },
        },
    }
}
SUBMIT_ANSWERS = _ACCEPTED | problems(
    errors.BrokenForm,
    errors.SlowBody,
    errors.TooLarge,
    errors.UnacceptedMedia,
    errors.UnacceptedCoding,
    errors.InvalidRequest,
    errors.KeyReused,
    errors.NotAPicture,
    errors.TooManyJobs,
    errors.TooManyInFlight,
    errors.GatewayError,
    errors.Unavailable,
    errors.ReplyTimeout,
)
_NOT_THERE = (errors.UnknownJob, errors.JobExpired)
_JOB: dict[int | str, dict[str, Any]] = {200: answer(Job)}
JOB_ANSWERS = _JOB | problems(*_NOT_THERE, errors.InvalidRequest, errors.GatewayError, errors.Unavailable)
CANCEL_ANSWERS = _JOB | problems(*_NOT_THERE, errors.GatewayError, errors.Unavailable)
EVENTS_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Each event. result: one of the results; done: the job without them, and the end",
        "content": {
            "text/event-stream": {
                "schema": _EVENT,
                "example": (
                    'id: 1\nevent: result\ndata: {"index":0,"filename":"a","prediction":{"label":"Bag"}}\n\n'
                    f'id: done\nevent: done\ndata: {{"id":"{_ID}","status":"done"}}\n\n'
                ),
            }
        },
    },
    204: {"description": "Last-Event-ID says that all has been seen"},
    **{status: its for status, its in JOB_ANSWERS.items() if status != 200},
}
