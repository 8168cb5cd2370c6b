"""POST /jobs, GET and DELETE /jobs/{id}, GET /jobs/{id}/events."""

import asyncio
import re
from typing import cast

import msgspec
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.asked import check_names, read_any, read_deadline, read_query
from gateway.errors import InvalidRequest
from gateway.jobs import rendering, schemas
from gateway.jobs.rendering import Document
from gateway.jobs.service import Jobs
from gateway.jobs.submitting import Submission, digests, fingerprint, judge
from gateway.middleware import owner_of, request_id, traceparent, while_connected

_KEY = re.compile(r"[!-~]{1,255}")
_WAIT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s)")
_EVENT_ID = re.compile(r"[0-9]{1,6}")

_routes = APIRouter(tags=["jobs"])


def install(app: FastAPI, jobs: Jobs) -> None:
    app.state.jobs = jobs
    app.include_router(_routes)


@_routes.post(
    "/jobs",
    summary="Classify pictures later",
    status_code=202,
    response_model=None,
    responses=schemas.SUBMIT_ANSWERS,
    openapi_extra=schemas.SUBMIT,
)
async def submit_job(request: Request) -> Response:
    """Send one or many pictures as form fields `file`, or one as the body itself.

    Ask for the results at `Location`. An acknowledged job outlives gateways and workers.
    """
    jobs = _jobs(request)
    deadline = read_deadline(request, jobs.gateway.reply_timeout_ms)
    submission = await _read_submission(request, jobs)
    async with while_connected(request):
        job_id, document, again = await jobs.submit(submission, deadline)
    headers = {"Location": f"/jobs/{job_id}", **({"Idempotent-Replayed": "true"} if again else {})}
    return _respond(document, 202, headers)


@_routes.get(
    "/jobs/{id}",
    summary="Get the job and its results",
    response_model=None,
    responses=schemas.JOB_ANSWERS,
    openapi_extra={"parameters": [schemas.ID, schemas.WAIT]},
)
async def get_job(request: Request) -> Response:
    """The job with the results so far; with `wait`, as soon as it is over."""
    jobs = _jobs(request)
    wait_s = read_wait(request, jobs.settings.max_wait_ms)
    async with while_connected(request):
        return _respond(await jobs.document(_id(request), owner_of(request.scope), wait_s))


@_routes.delete(
    "/jobs/{id}",
    summary="Cancel the job",
    response_model=None,
    responses=schemas.CANCEL_ANSWERS,
    openapi_extra={"parameters": [schemas.ID]},
)
async def cancel_job(request: Request) -> Response:
    """Results stay, and none are added. A job that is over stays as it is."""
    return _respond(await _jobs(request).cancel(_id(request), owner_of(request.scope)))


@_routes.get(
    "/jobs/{id}/events",
    summary="Get results as they come",
    response_class=StreamingResponse,
    responses=schemas.EVENTS_ANSWERS,
    openapi_extra=schemas.EVENTS,
)
async def stream_events(request: Request) -> Response:
    """Server-sent events: `result` for each picture, then `done`. `Last-Event-ID` resumes after an event."""
    jobs, job_id, owner = _jobs(request), _id(request), owner_of(request.scope)
    seen = read_last_event_id(request)
    await jobs.check(job_id, owner)
    if seen is None:
        return Response(status_code=204)
    events = rendering.stream(jobs.events(job_id, owner, seen))
    return StreamingResponse(events, media_type=rendering.EVENT_STREAM, headers=rendering.EVENT_HEADERS)


async def _read_submission(request: Request, jobs: Jobs) -> Submission:
    """Raises GatewayError."""
    settings, gateway = jobs.settings, jobs.gateway
    jobs.admit()
    asked, key = read_query(request), read_key(request)
    uploads = await read_any(request, min(settings.max_pictures, settings.max_unfinished_pictures))
    pictures = judge(
        uploads,
        max_bytes=gateway.max_upload_bytes,
        max_pixels=gateway.max_pixels,
        most_together=min(settings.max_bytes, settings.max_unfinished_bytes),
    )
    their_digests = await asyncio.to_thread(digests, uploads)
    return Submission(
        pictures=pictures,
        digests=b"".join(their_digests),
        asked=asked,
        owner=owner_of(request.scope),
        key=key,
        fingerprint=fingerprint(uploads, their_digests, asked) if key else "",
        request_id=request_id(request.scope),
        traceparent=traceparent(request.scope),
    )


def read_key(request: Request) -> str:
    """The Idempotency-Key; empty if there is none. Raises InvalidRequest."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return ""
    if not _KEY.fullmatch(given):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters")
    return given


def read_wait(request: Request, most_ms: int) -> float:
    """How long to wait, in seconds, at most most_ms; 0 if the request does not say. Raises InvalidRequest."""
    check_names(request.query_params, ("wait",))
    given = request.query_params.get("wait")
    if given is None:
        return 0.0
    found = _WAIT.fullmatch(given)
    if found is None:
        raise InvalidRequest(f"wait {given[:20]!r} is not a number with s or ms, such as 20s or 500ms")
    return min(float(found[1]) * {"s": 1.0, "ms": 0.001}[found[2]], most_ms / 1000)


def read_last_event_id(request: Request) -> int | None:
    """How many events the client has seen; None if all. Raises InvalidRequest."""
    given = request.headers.get("last-event-id", "")
    if given == rendering.DONE:
        return None
    if given and not _EVENT_ID.fullmatch(given):
        raise InvalidRequest(f"Last-Event-ID {given[:20]!r} is not the id of an event of this stream")
    return int(given or 0)


def _jobs(request: Request) -> Jobs:
    return cast(Jobs, request.app.state.jobs)


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _respond(document: Document, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(document),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        "application/json",
    )
