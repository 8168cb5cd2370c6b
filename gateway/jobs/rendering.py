"""Jobs and their results as JSON documents and server-sent events."""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
from msgspec import Meta

from gateway import problem
from gateway.answer import REQUEST_ID, check_version, prediction
from gateway.errors import GatewayError, JobExpired, NotAPicture, WorkerFailed
from gateway.jobs.store import Job, Result, State, Status, status_of
from gateway.predict import BatchEntry
from gateway.problem import Problem
from messaging.codec import NOT_JSON
from messaging.contract import ContractError, Reply, check_prediction
from messaging.picture_header import ACCEPTED

_log = logging.getLogger("mlaas.jobs")

EVENT_STREAM = "text/event-stream"
# no-transform and X-Accel-Buffering stop proxies from buffering events.
EVENT_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
DONE = "done"

_RETRY_MS = 1_000


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A job without its results."""

    id: str
    status: Annotated[
        Status,
        Meta(
            description="accepted: no picture is finished yet. running: some are. done: every picture has a "
            "prediction or a problem. canceled: no more results are added. expired: the deadline passed, "
            "and each picture without an answer has a problem."
        ),
    ]
    created_at: str
    expires_at: Annotated[str, Meta(description="When the results are deleted.")]
    total: Annotated[int, Meta(description="The number of pictures.")]
    completed: Annotated[int, Meta(description="The number of finished pictures.")]


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one API key, newest first."""

    jobs: list[JobSummary]
    has_more: Annotated[bool, Meta(description="Whether there are older ones.")]


class JobDocument(JobSummary, frozen=True, kw_only=True):
    """A job with the results it has so far."""

    results: Annotated[
        list[BatchEntry], Meta(description="The finished pictures, in the order they were sent.")
    ]

    example: ClassVar[dict[str, Any]] = {
        "id": "3f0c2a9b7d5e4c1f8a6b0d9e2c4f7a1b",
        "status": "running",
        "created_at": "2026-01-31T12:00:00.000Z",
        "expires_at": "2026-02-01T12:00:00.000Z",
        "total": 2,
        "completed": 1,
        "results": [
            {
                "index": 1,
                "filename": "notes.txt",
                "problem": {
                    "type": "urn:mlaas:problem:not-a-picture",
                    "title": NotAPicture.title,
                    "status": 422,
                    "detail": f"the bytes are not a picture in {ACCEPTED}",
                    "request_id": REQUEST_ID,
                },
            }
        ],
    }


class StoredReply(msgspec.Struct, frozen=True, tag="reply"):
    """A worker's reply and its time of arrival in epoch milliseconds."""

    at_ms: int
    reply: Reply


class StoredProblem(msgspec.Struct, frozen=True, tag="problem"):
    """Why a picture was refused instead of sent to a worker."""

    problem: Problem


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StoredReply | StoredProblem).decode


class Event(NamedTuple):
    """A result, numbered from 1 within its job."""

    number: int
    entry: BatchEntry


def encode_reply(reply: Reply, at_ms: int) -> bytes:
    """The body of a Result. at_ms is epoch time."""
    return _encode(StoredReply(at_ms, reply))


def encode_refusal(error: GatewayError, request_id: str) -> bytes:
    """The body of a Result."""
    return _encode(StoredProblem(problem.document(error, request_id)))


def document(job: Job, results: Sequence[Result]) -> JobDocument:
    """Needs all results that the store has."""
    entries = sorted((event.entry for event in events(job, results)), key=lambda entry: entry.index)
    return JobDocument(**msgspec.structs.asdict(summary(job, len(entries))), results=entries)


def summary(job: Job, completed: int) -> JobSummary:
    return JobSummary(
        id=job.id,
        status=status_of(msgspec.structs.replace(job, completed=completed)),
        created_at=_rfc3339(job.created_ms),
        expires_at=_rfc3339(job.expires_ms),
        total=job.total,
        completed=completed,
    )


def events(job: Job, results: Sequence[Result], after: int = 0) -> list[Event]:
    """An event for each result; `results` skips the first `after` results of the job.

    If the job has expired and after is 0, pictures without a result get an event, too.
    """
    entries = [_entry(job, result) for result in results]
    if job.state is State.EXPIRED and not after:
        expired = JobExpired(f"no answer before the job's deadline, {_rfc3339(job.deadline_ms)}")
        entries += [_failed(job, index, expired) for index in unfinished(job, results)]
    return [Event(number, entry) for number, entry in enumerate(entries, after + 1)]


def unfinished(job: Job, results: Iterable[Result]) -> list[int]:
    """The indexes of pictures without a result."""
    return sorted(set(range(job.total)) - {result.index for result in results})


async def stream(items: AsyncIterator[Event | JobSummary | None]) -> AsyncIterator[bytes]:
    """Server-sent events (HTML Standard, 9.2). An error ends the stream, and the client reconnects."""
    yield f"retry: {_RETRY_MS}\n\n".encode()
    try:
        async for item in items:
            yield _frame(item)
    except GatewayError as error:
        _log.warning("event stream ended: %s: %s", error.title, error)


def _frame(item: Event | JobSummary | None) -> bytes:
    if item is None:
        return b": still waiting\n\n"
    if isinstance(item, Event):
        return _event(str(item.number), "result", item.entry)
    return _event(DONE, "done", item)


def _event(number: str, kind: str, data: msgspec.Struct) -> bytes:
    """msgspec writes JSON without line breaks, as `data:` requires."""
    return f"id: {number}\nevent: {kind}\ndata: ".encode() + _encode(data) + b"\n\n"


def _entry(job: Job, result: Result) -> BatchEntry:
    """Checks the reply again, because older gateways stored replies unchecked."""
    request = job.request
    filename = request.filenames[result.index]
    try:
        stored = _decode(result.body)
        if isinstance(stored, StoredProblem):
            return BatchEntry(index=result.index, filename=filename, problem=stored.problem)
        check_prediction(stored.reply, request.sha256_of(result.index))
        check_version(stored.reply, request.version)
        total_ms = float(max(0, stored.at_ms - job.created_ms))
        found = prediction(stored.reply, request.request_id, total_ms, request.top_k)
        return BatchEntry(index=result.index, filename=filename, prediction=found)
    except GatewayError as error:
        return _failed(job, result.index, error)
    except (ContractError, *NOT_JSON) as error:
        return _failed(job, result.index, WorkerFailed(str(error)))


def _failed(job: Job, index: int, error: GatewayError) -> BatchEntry:
    request = job.request
    found = problem.document(error, request.request_id)
    return BatchEntry(index=index, filename=request.filenames[index], problem=found)


def _rfc3339(epoch_ms: int) -> str:
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
