"""A job and its results as HTTP carries them: JSON documents, and server-sent events."""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from gateway import problem
from gateway.answer import prediction
from gateway.errors import GatewayError, JobExpired, WorkerFailed
from gateway.jobs.job import Job, Result, State, status_of
from messaging.codec import NOT_JSON
from messaging.contract import ContractError, Reply, check_prediction

_log = logging.getLogger("mlaas.jobs")

Document = dict[str, object]

EVENT_STREAM = "text/event-stream"
# no-transform and X-Accel-Buffering have proxies pass on each event at once.
EVENT_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
DONE = "done"

_RETRY_MS = 1_000


class Answered(msgspec.Struct, frozen=True, tag="reply"):
    """A worker's reply, and when it came (epoch)."""

    at_ms: int
    reply: Reply


class Refused(msgspec.Struct, frozen=True, tag="problem"):
    """A problem document."""

    problem: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answered | Refused).decode


class Event(NamedTuple):
    """An entry of the results, and its number among the job's events, from 1 on."""

    number: int
    entry: Document


def answered(reply: Reply, at_ms: int) -> bytes:
    """A result's body."""
    return _encode(Answered(at_ms, reply))


def refused(error: GatewayError, request_id: str) -> bytes:
    """A result's body."""
    return _encode(Refused(msgspec.Raw(_encode(problem.document(error, request_id)))))


def document(job: Job, results: Sequence[Result]) -> Document:
    """gateway.jobs.schemas.Job, of all results that the store has."""
    entries = sorted((event.entry for event in events(job, results)), key=_index)
    return {**summary(job, len(entries)), "results": entries}


def summary(job: Job, completed: int) -> Document:
    """The document without the results."""
    job = msgspec.structs.replace(job, completed=completed)
    return {
        "id": job.id,
        "status": status_of(job),
        "created_at": _rfc3339(job.created_ms),
        "expires_at": _rfc3339(job.expires_ms),
        "total": job.total,
        "completed": completed,
    }


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


async def stream(found: AsyncIterator[Event | Document | None]) -> AsyncIterator[bytes]:
    """Server-sent events (HTML Standard, 9.2). After an error the stream ends, and the client comes again."""
    yield f"retry: {_RETRY_MS}\n\n".encode()
    try:
        async for each in found:
            yield _encoded(each)
    except GatewayError as error:
        _log.warning("event stream: %s: %s", error.title, error)


def _encoded(each: Event | Document | None) -> bytes:
    if each is None:
        return b": still waiting\n\n"
    if isinstance(each, Event):
        return _event(str(each.number), "result", each.entry)
    return _event(DONE, "done", each)


def _event(number: str, kind: str, data: Document) -> bytes:
    """An event is a line; JSON that msgspec writes has no line breaks."""
    return f"id: {number}\nevent: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


def _entry(job: Job, result: Result) -> Document:
    """A stored reply that cannot be the picture's is a failure: older gateways stored what came."""
    entry, asked = _head(job, result.index), job.asked
    try:
        stored = _decode(result.body)
        if isinstance(stored, Refused):
            return {**entry, "problem": stored.problem}
        check_prediction(stored.reply, asked.sha256_of(result.index))
        total_ms = float(max(0, stored.at_ms - job.created_ms))
        return {**entry, "prediction": prediction(stored.reply, asked.request_id, total_ms, asked.top_k)}
    except GatewayError as error:
        return {**entry, "problem": problem.document(error, asked.request_id)}
    except (ContractError, *NOT_JSON) as error:
        return {**entry, "problem": problem.document(WorkerFailed(str(error)), asked.request_id)}


def _expired(job: Job, index: int) -> Document:
    error = JobExpired(f"not answered by {_rfc3339(job.deadline_ms)}, the job's deadline")
    return {**_head(job, index), "problem": problem.document(error, job.asked.request_id)}


def _head(job: Job, index: int) -> Document:
    return {"index": index, "filename": job.asked.filenames[index]}


def _index(entry: Document) -> int:
    index = entry["index"]
    assert isinstance(index, int)
    return index


def _rfc3339(epoch_ms: int) -> str:
    return (
        datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
