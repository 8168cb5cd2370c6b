"""POST /jobs, GET and DELETE /jobs/{id}, GET /jobs/{id}/events."""

import asyncio

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.deadline import read_deadline
from gateway.hang_up import while_connected
from gateway.jobs import events as sse
from gateway.jobs import schemas
from gateway.jobs.reading import digests, fingerprint, judge, read_key, read_last_event_id, read_wait
from gateway.jobs.rendering import Document
from gateway.jobs.service import Jobs
from gateway.jobs.settings import JobSettings
from gateway.jobs.submitting import Submission
from gateway.middleware import owner_of, request_id, traceparent
from gateway.query import read_query
from gateway.settings import GatewaySettings
from gateway.upload import read_any


def router(jobs: Jobs, settings: JobSettings, gateway: GatewaySettings) -> APIRouter:
    routes = APIRouter(tags=["jobs"])

    @routes.post(
        "/jobs",
        summary="Answer these pictures later",
        status_code=202,
        response_model=None,
        responses=schemas.SUBMIT_ANSWERS,
        openapi_extra=schemas.SUBMIT,
    )
    async def submit(request: Request) -> Response:
        """Send one picture or many, as form fields `file`, or one as the body itself.

        `Location` is where to ask for results. Once acknowledged, a job outlives gateways and workers.
        """
        deadline = read_deadline(request, gateway.reply_timeout_ms)
        submission = await _read(request)
        async with while_connected(request):
            job_id, document, again = await jobs.submit(submission, deadline)
        headers = {"Location": f"/jobs/{job_id}", **({"Idempotent-Replayed": "true"} if again else {})}
        return _respond(document, 202, headers)

    @routes.get(
        "/jobs/{id}",
        summary="How far is the job?",
        response_model=None,
        responses=schemas.JOB_ANSWERS,
        openapi_extra={"parameters": [schemas.ID, schemas.WAIT]},
    )
    async def job(request: Request) -> Response:
        """The job with the results that it has; with `wait`, as soon as it is over."""
        wait_s = read_wait(request, settings.max_wait_ms)
        async with while_connected(request):
            return _respond(await jobs.document(_id(request), owner_of(request.scope), wait_s))

    @routes.delete(
        "/jobs/{id}",
        summary="Cancel the job",
        response_model=None,
        responses=schemas.CANCEL_ANSWERS,
        openapi_extra={"parameters": [schemas.ID]},
    )
    async def cancel(request: Request) -> Response:
        """What is finished stays, nothing is added. A job that is over stays as it is."""
        return _respond(await jobs.cancel(_id(request), owner_of(request.scope)))

    @routes.get(
        "/jobs/{id}/events",
        summary="Results as they come",
        response_class=StreamingResponse,
        responses=schemas.EVENTS_ANSWERS,
        openapi_extra=schemas.EVENTS,
    )
    async def events(request: Request) -> Response:
        """Server-sent events: `result` for each picture, then `done`. `Last-Event-ID` goes on after one."""
        seen = read_last_event_id(request)
        job_id, owner = _id(request), owner_of(request.scope)
        await jobs.check(job_id, owner)
        if seen is None:
            return Response(status_code=204)
        found = jobs.events(job_id, owner, seen)
        return StreamingResponse(sse.encode(found), media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)

    async def _read(request: Request) -> Submission:
        """Raises GatewayError."""
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

    return routes


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _respond(document: Document, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(document),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        "application/json",
    )
