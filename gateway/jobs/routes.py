"""POST and GET /jobs, GET and DELETE /jobs/{id}, GET /jobs/{id}/events."""

import asyncio
import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway import errors, openapi
from gateway.asked import (
    FORM_PART_BYTES,
    PARAMETERS,
    Upload,
    check_names,
    parameter,
    read_any,
    read_deadline,
    read_query,
)
from gateway.body import BodyLimit, while_connected
from gateway.errors import InvalidRequest, NotListed
from gateway.jobs import rendering
from gateway.jobs.rendering import JobDocument, JobList
from gateway.jobs.service import Jobs
from gateway.jobs.store import JobRequest, is_id
from gateway.jobs.submitting import Picture, Submission, check_total, digest_each, fingerprint, judge
from gateway.middleware import RouteFacts, Router, owner_of, request_id
from gateway.predict import is_json, read_rows
from messaging.contract import TENSOR
from messaging.picture_header import MEDIA_TYPES

_LISTED, _MOST_LISTED = 50, 100
_KEY = re.compile(r"[!-~]{1,255}")
_WAIT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s)")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_COUNT = re.compile(r"[0-9]{1,3}")
_EVENT_ID = re.compile(r"[0-9]{1,6}")

_ID = JobDocument.example["id"]
_ID_PARAMETER = openapi.path_parameter("id", _ID)
_WAIT_PARAMETER = parameter(
    "wait",
    "How long to wait for the job to be over, in s or ms. The answer comes as soon as it is.",
    pattern="^[0-9]+(\\.[0-9]+)?(ms|s)$",
    example="20s",
)
_LIMIT_PARAMETER = parameter(
    "limit", "The most jobs to list.", type="integer", minimum=1, maximum=_MOST_LISTED, default=_LISTED
)
_BEFORE_PARAMETER = parameter(
    "before", "The id of a job: list those that were submitted before it.", example=_ID
)
_KEY_HEADER = openapi.header_parameter(
    "Idempotency-Key",
    "Repeating a request with the same key returns the same job, from any gateway.",
    type="string",
    minLength=1,
    maxLength=255,
    pattern="^[!-~]+$",
)
_LAST_EVENT_ID = openapi.header_parameter(
    "Last-Event-ID",
    "The id of the last event received; the stream resumes after it.",
    type="string",
    pattern="^([0-9]{0,6}|done)$",
)
_SUBMIT: openapi.Tree = {
    "parameters": [*PARAMETERS, _KEY_HEADER, openapi.TIMEOUT],
    "requestBody": openapi.body(openapi.BINARIES, *MEDIA_TYPES),
}
_EVENT: openapi.Tree = {
    "type": "object",
    "description": "The fields of one event.",
    "properties": {
        "id": {"type": "string", "pattern": "^([0-9]{1,6}|done)$"},
        "event": {"type": "string", "enum": ["result", "done"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}
_ACCEPTED: openapi.Responses = {
    202: {
        **openapi.answer(JobDocument, "Accepted: the job now survives restarts of gateways and workers"),
        "headers": {
            "Location": {"description": "/jobs/{id}, after X-Forwarded-Prefix", "schema": {"type": "string"}},
            "Idempotent-Replayed": {
                "description": "true if an earlier request with this Idempotency-Key created the job",
                "schema": {"type": "string"},
            },
        },
    }
}
_SUBMIT_ANSWERS = _ACCEPTED | openapi.problems(
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
_NO_JOB = (errors.UnknownJob, errors.JobExpired)
_JOB: openapi.Responses = {200: openapi.answer(JobDocument)}
_JOB_ANSWERS = _JOB | openapi.problems(
    *_NO_JOB, errors.InvalidRequest, errors.GatewayError, errors.Unavailable
)
_CANCEL_ANSWERS = _JOB | openapi.problems(*_NO_JOB, errors.GatewayError, errors.Unavailable)
_LISTED_JOBS: openapi.Responses = {200: openapi.answer(JobList)}
_LIST_ANSWERS = _LISTED_JOBS | openapi.problems(
    errors.NotListed, errors.InvalidRequest, errors.GatewayError, errors.Unavailable
)
_EVENTS_ANSWERS: openapi.Responses = {
    200: {
        "description": "Events. result: an entry of `results`; done: at the end, the job without its results",
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
    204: {"description": "Last-Event-ID is the id of the last event"},
    **{status: answer for status, answer in _JOB_ANSWERS.items() if status != 200},
}


class JobRoutes:
    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def router(self) -> Router:
        router = Router(tags=["jobs"])
        settings = self._jobs.settings
        most_bytes = settings.max_bytes + settings.max_pictures * FORM_PART_BYTES
        which = f"jobs.max_bytes, and {FORM_PART_BYTES} for each of jobs.max_pictures"
        facts = RouteFacts(body=BodyLimit(most_bytes, which))
        router.add(
            "POST",
            "/jobs",
            self.submit,
            facts,
            summary="Classify pictures later",
            status_code=202,
            responses=_SUBMIT_ANSWERS,
            openapi_extra=_SUBMIT,
        )
        router.add(
            "GET",
            "/jobs",
            self.list_own,
            facts,
            summary="List your jobs",
            responses=_LIST_ANSWERS,
            openapi_extra={"parameters": [_LIMIT_PARAMETER, _BEFORE_PARAMETER]},
        )
        router.add(
            "GET",
            "/jobs/{id}",
            self.get,
            summary="Get the job and its results",
            responses=_JOB_ANSWERS,
            openapi_extra={"parameters": [_ID_PARAMETER, _WAIT_PARAMETER]},
        )
        router.add(
            "DELETE",
            "/jobs/{id}",
            self.cancel,
            summary="Cancel the job",
            responses=_CANCEL_ANSWERS,
            openapi_extra={"parameters": [_ID_PARAMETER]},
        )
        router.add(
            "GET",
            "/jobs/{id}/events",
            self.stream_events,
            summary="Get results as they arrive",
            response_class=StreamingResponse,
            responses=_EVENTS_ANSWERS,
            openapi_extra={"parameters": [_ID_PARAMETER, _LAST_EVENT_ID]},
        )
        return router

    async def submit(self, request: Request) -> Response:
        """Send one or many pictures in form fields `file`, or one as the body itself, or JSON with rows.

        `Location` is where the results will be. An accepted job survives restarts of gateways and workers.
        """
        deadline = read_deadline(request, self._jobs.gateway.reply_timeout_ms)
        submission = await self._read(request)
        async with while_connected(request):
            document, replayed = await self._jobs.submit(submission, deadline)
        headers = {"Location": f"{_prefix(request)}/jobs/{document.id}"}
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        return _respond(document, 202, headers)

    async def get(self, request: Request) -> Response:
        """The job with the results it has; with `wait`, as soon as it is over."""
        wait_s = read_wait(request, self._jobs.settings.max_wait_ms)
        async with while_connected(request):
            return _respond(await self._jobs.document(_id(request), owner_of(request.scope), wait_s))

    async def list_own(self, request: Request) -> Response:
        """The jobs that this API key submitted and whose results are kept, newest first."""
        limit, before = read_page(request)
        owner = owner_of(request.scope)
        if not owner:
            raise NotListed(openapi.DETAILS[NotListed])
        async with while_connected(request):
            return _respond(await self._jobs.of_owner(owner, limit, before))

    async def cancel(self, request: Request) -> Response:
        """The job keeps its results and gets no more. Has no effect on a job that is over."""
        return _respond(await self._jobs.cancel(_id(request), owner_of(request.scope)))

    async def stream_events(self, request: Request) -> Response:
        """Server-sent events: `result` for each picture, then `done`. `Last-Event-ID` resumes the stream."""
        seen = read_last_event_id(request)
        job_id, owner = _id(request), owner_of(request.scope)
        await self._jobs.check(job_id, owner)
        if seen is None:
            return Response(status_code=204)
        events = rendering.stream(self._jobs.events(job_id, owner, seen))
        return StreamingResponse(events, media_type=rendering.EVENT_STREAM, headers=rendering.EVENT_HEADERS)

    async def _read(self, request: Request) -> Submission:
        """Raises GatewayError."""
        settings, gateway = self._jobs.settings, self._jobs.gateway
        self._jobs.admit()
        query, key = read_query(request), read_key(request)
        most = min(settings.max_pictures, settings.max_unfinished_pictures)
        if is_json(request):
            rows = await read_rows(request, self._jobs.requester, query.model, most, gateway.max_upload_bytes)
            uploads = [Upload(row, TENSOR, "") for row in rows]
            pictures = [Picture("", row, TENSOR) for row in rows]
        else:
            uploads = await read_any(request, most)
            pictures = judge(uploads, max_bytes=gateway.max_upload_bytes, max_pixels=gateway.max_pixels)
        check_total(pictures, min(settings.max_bytes, settings.max_unfinished_bytes))
        digests = await asyncio.to_thread(digest_each, uploads)
        return Submission(
            pictures=pictures,
            request=JobRequest(
                filenames=[picture.filename for picture in pictures],
                top_k=query.top_k,
                version=query.version,
                request_id=request_id(request.scope),
                digests=b"".join(digests),
            ),
            query=query,
            owner=owner_of(request.scope),
            key=key,
            fingerprint=fingerprint(uploads, digests, query) if key else "",
        )


def read_key(request: Request) -> str:
    """The Idempotency-Key, or an empty string. Raises InvalidRequest."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return ""
    if not _KEY.fullmatch(given):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters")
    return given


def read_wait(request: Request, most_ms: int) -> float:
    """The wait in seconds, capped at most_ms; 0 by default. Raises InvalidRequest."""
    check_names(request.query_params, ("wait",))
    given = request.query_params.get("wait")
    if given is None:
        return 0.0
    found = _WAIT.fullmatch(given)
    if found is None:
        raise InvalidRequest(f"wait {given[:20]!r} is not a duration such as 20s or 500ms")
    return min(float(found[1]) * {"s": 1.0, "ms": 0.001}[found[2]], most_ms / 1000)


def read_page(request: Request) -> tuple[int, str]:
    """How many jobs to list, and the id before which they were submitted, or "". Raises InvalidRequest."""
    check_names(request.query_params, ("limit", "before"))
    limit, before = request.query_params.get("limit", str(_LISTED)), request.query_params.get("before", "")
    if not (_COUNT.fullmatch(limit) and 0 < int(limit) <= _MOST_LISTED):
        raise InvalidRequest(f"limit {limit[:20]!r} is not a whole number from 1 to {_MOST_LISTED}")
    if before and not is_id(before):
        raise InvalidRequest(f"before {before[:40]!r} is not the id of a job")
    return int(limit), before


def read_last_event_id(request: Request) -> int | None:
    """The number of events that the client has seen; None if all. Raises InvalidRequest."""
    given = request.headers.get("last-event-id", "")
    if given == rendering.DONE:
        return None
    if given and not _EVENT_ID.fullmatch(given):
        raise InvalidRequest(f"Last-Event-ID {given[:20]!r} is not the id of an event of this stream")
    return int(given or 0)


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _respond(
    document: JobDocument | JobList, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(document), status, headers, "application/json")


def _prefix(request: Request) -> str:
    """The path prefix that a proxy removed."""
    given = request.headers.get("x-forwarded-prefix", "").rstrip("/")
    return given if _PREFIX.fullmatch(given) else ""
