"""A job and its results as HTTP carries them: JSON documents, and server-sent events."""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
from msgspec import Meta

from gateway import problem
from gateway.answer import REQUEST_ID, prediction
from gateway.errors import GatewayError, JobExpired, NotAPicture, WorkerFailed
from gateway.jobs.job import Job, Result, State, Status, status_of
from gateway.predict import BatchEntry
from gateway.problem import Problem
from messaging.codec import NOT_JSON
from messaging.contract import ContractError, Reply, check_prediction

_log = logging.getLogger("mlaas.jobs")

EVENT_STREAM = "text/event-stream"
# no-transform and X-Accel-Buffering have proxies pass on each event at once.
EVENT_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
DONE = "done"

_RETRY_MS = 1_000


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A job without its results."""

    id: str
    status: Annotated[
        Status,
        Meta(
            description="accepted: nothing is finished yet. running: some pictures are. done: every picture "
            "has a prediction or a problem. canceled: no results are added. expired: the deadline passed, "
            "and each picture without an answer has a problem."
        ),
    ]
    created_at: str
    expires_at: Annotated[str, Meta(description="When the results are deleted.")]
    total: Annotated[int, Meta(description="How many pictures the job has.")]
    completed: Annotated[int, Meta(description="How many are finished.")]


class JobDocument(JobSummary, frozen=True, kw_only=True):
    """A job with its results so far."""

    results: Annotated[
        list[BatchEntry],
        Meta(description="The pictures that are finished, in the order in which they were sent."),
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
                    "detail": "the bytes are neither PNG, JPEG nor WebP",
                    "request_id": REQUEST_ID,
                },
            }
        ],
    }


class Answered(msgspec.Struct, frozen=True, tag="reply"):
    """A worker's reply, and when it came (epoch)."""

    at_ms: int
    reply: Reply


class Refused(msgspec.Struct, frozen=True, tag="problem"):
    """Why a picture was not sent to a worker."""

    problem: Problem


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answered | Refused).decode


class Event(NamedTuple):
    """An entry of the results, and its number among the job's events, from 1 on."""

    number: int
    entry: BatchEntry


def answered(reply: Reply, at_ms: int) -> bytes:
    """A result's body."""
    return _encode(Answered(at_ms, reply))


def refused(error: GatewayError, request_id: str) -> bytes:
    """A result's body."""
    return _encode(Refused(problem.document(error, request_id)))


def document(job: Job, results: Sequence[Result]) -> JobDocument:
    """results are all that the store has."""
    entries = sorted((event.entry for event in events(job, results)), key=_index)
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
    """One for each result; results are those after the first `after`.

    If they are all results of an expired job, each picture without one gets an event, too.
    """
    entries = [_entry(job, result) for result in results]
    if job.state is State.EXPIRED and not after:
        entries += [_expired(job, index) for index in unfinished(job, results)]
    return [Event(number, entry) for number, entry in enumerate(entries, after + 1)]


def unfinished(job: Job, results: Iterable[Result]) -> list[int]:
    """The pictures without a result."""
    return sorted(set(range(job.total)) - {result.index for result in results})


async def stream(found: AsyncIterator[Event | JobSummary | None]) -> AsyncIterator[bytes]:
    """Server-sent events (HTML Standard, 9.2). After an error the stream ends, and the client comes again."""
    yield f"retry: {_RETRY_MS}\n\n".encode()
    try:
        async for each in found:
            yield _encoded(each)
    except GatewayError as error:
        _log.warning("event stream: %s: %s", error.title, error)


def _encoded(each: Event | JobSummary | None) -> bytes:
    if each is None:
        return b": still waiting\n\n"
    if isinstance(each, Event):
        return _event(str(each.number), "result", each.entry)
    return _event(DONE, "done", each)


def _event(number: str, kind: str, data: msgspec.Struct) -> bytes:
    """The data is one line, for msgspec writes JSON without line breaks."""
    return f"id: {number}\nevent: {kind}\ndata: ".encode() + _encode(data) + b"\n\n"


def _entry(job: Job, result: Result) -> BatchEntry:
    """A stored reply that cannot be the picture's is a failure: older gateways stored what came."""
    asked = job.asked
    filename = asked.filenames[result.index]
    try:
        stored = _decode(result.body)
        if isinstance(stored, Refused):
            return BatchEntry(index=result.index, filename=filename, problem=stored.problem)
        check_prediction(stored.reply, asked.sha256_of(result.index))
        total_ms = float(max(0, stored.at_ms - job.created_ms))
        its = prediction(stored.reply, asked.request_id, total_ms, asked.top_k)
        return BatchEntry(index=result.index, filename=filename, prediction=its)
    except GatewayError as error:
        return _failed(job, result.index, error)
    except (ContractError, *NOT_JSON) as error:
        return _failed(job, result.index, WorkerFailed(str(error)))


def _expired(job: Job, index: int) -> BatchEntry:
    return _failed(job, index, JobExpired(f"not answered by {_rfc3339(job.deadline_ms)}, the job's deadline"))


def _failed(job: Job, index: int, error: GatewayError) -> BatchEntry:
    its = problem.document(error, job.asked.request_id)
    return BatchEntry(index=index, filename=job.asked.filenames[index], problem=its)


def _index(entry: BatchEntry) -> int:
    return entry.index


def _rfc3339(epoch_ms: int) -> str:
    return (
        datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
