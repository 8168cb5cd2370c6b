"""The statements that SQLite and PostgreSQL have in common. Each function is within one transaction."""

from collections.abc import Sequence

import msgspec

from gateway.jobs.assigning import Standing, assign
from gateway.jobs.job import Asked, Job, Result, State
from gateway.jobs.sql_database import Session
from gateway.jobs.store import Added, Limits

_JOB = (
    "id, owner, coalesce(idempotency_key, ''), fingerprint, created_ms, deadline_ms, expires_ms, "
    "publish_until_ms, total, size_bytes, asked, state, completed"
)
NOT_ACCEPTED = "publish_until_ms > 0"
_ACCEPTED = "publish_until_ms = 0"
_ABANDONED = f"{NOT_ACCEPTED} AND publish_until_ms < ?"


def insert(session: Session, job: Job, results: Sequence[Result]) -> None:
    unfinished = int(len(results) < job.total)
    session.each(
        f"INSERT INTO mlaas_jobs VALUES ({marks(range(15))})",
        [
            (
                *(job.id, job.owner, job.key or None, job.fingerprint),
                *(job.created_ms, job.deadline_ms, job.expires_ms, job.publish_until_ms),
                *(job.total, job.size_bytes, msgspec.json.encode(job.asked).decode(), job.state.value),
                *(len(results), unfinished, job.publish_until_ms or job.deadline_ms),
            )
        ],
    )
    _insert_results(session, [(result, place) for place, result in enumerate(results, 1)])


def _insert_results(session: Session, placed: Sequence[tuple[Result, int]]) -> None:
    session.each(
        "INSERT INTO mlaas_job_results (job_id, picture, place, body) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        [(result.job_id, result.index, place, result.body) for result, place in placed],
    )


def with_key(session: Session, job: Job, now_ms: int) -> Job | None:
    """The owner's job with the same key; one whose time is over gives it away."""
    session.each(
        "UPDATE mlaas_jobs SET idempotency_key = NULL WHERE owner = ? AND idempotency_key = ? "
        f"AND (expires_ms <= ? OR ({_ABANDONED}))",
        [(job.owner, job.key, now_ms, now_ms)],
    )
    return find(session, "owner = ? AND idempotency_key = ?", job.owner, job.key)


def is_full(session: Session, job: Job, limits: Limits, now_ms: int) -> bool:
    ((pictures, size),) = session.rows(
        "SELECT coalesce(sum(total), 0), coalesce(sum(size_bytes), 0) FROM mlaas_jobs "
        "WHERE unfinished = 1 AND next_step_ms > ?",
        now_ms,
    )
    return bool(pictures + job.total > limits.max_pictures or size + job.size_bytes > limits.max_bytes)


def add(session: Session, results: Sequence[Result], now_ms: int) -> Added:
    job_ids = sorted({result.job_id for result in results})
    session.lock_jobs(job_ids)
    jobs = session.rows(
        f"SELECT id, total, completed, state, deadline_ms FROM mlaas_jobs WHERE id IN ({marks(job_ids)})",
        *job_ids,
    )
    pictures = [value for result in results for value in (result.job_id, result.index)]
    stored = session.rows(
        "SELECT job_id, picture FROM mlaas_job_results "
        f"WHERE (job_id, picture) IN (VALUES {', '.join(['(?, ?)'] * len(results))})",
        *pictures,
    )
    standings = {
        job_id: Standing(total, completed, State(state), deadline_ms)
        for job_id, total, completed, state, deadline_ms in jobs
    }
    assigned = assign(results, standings, {(job_id, picture) for job_id, picture in stored}, now_ms)
    _insert_results(session, assigned.placed)
    session.each(
        "UPDATE mlaas_jobs SET completed = ?, unfinished = ? WHERE id = ?",
        [
            (completed, int(completed < standings[job_id].total), job_id)
            for job_id, completed in assigned.completed.items()
        ],
    )
    return assigned.added


def sweep(session: Session, now_ms: int, most: int) -> int:
    """Each job that is due takes one step: expired, emptied or forgotten."""
    due = session.rows(
        "SELECT id, publish_until_ms, expires_ms, created_ms FROM mlaas_jobs "
        "WHERE next_step_ms < ? ORDER BY next_step_ms, id LIMIT ?",
        now_ms,
        most,
    )
    over, empty, forgotten, abandoned = [], [], [], []
    for job_id, publish_until_ms, expires_ms, created_ms in due:
        if publish_until_ms:
            abandoned.append(job_id)
        elif 2 * expires_ms - created_ms < now_ms:
            forgotten.append(job_id)
        elif expires_ms < now_ms:
            empty.append((2 * expires_ms - created_ms, job_id))
        else:
            over.append(job_id)
    delete(session, abandoned, NOT_ACCEPTED)
    delete(session, forgotten, _ACCEPTED)
    _empty(session, empty)
    expire(session, over)
    session.each(
        "UPDATE mlaas_jobs SET next_step_ms = expires_ms WHERE id = ?", [(job_id,) for job_id in over]
    )
    return len(due)


def expire(session: Session, job_ids: Sequence[str]) -> None:
    session.each(
        "UPDATE mlaas_jobs SET state = 'expired', unfinished = 0 "
        "WHERE id = ? AND state = 'open' AND completed < total",
        [(job_id,) for job_id in job_ids],
    )


def _empty(session: Session, jobs: Sequence[tuple[int, str]]) -> None:
    """What is left says that the job was there."""
    session.each("DELETE FROM mlaas_job_results WHERE job_id = ?", [(job_id,) for _, job_id in jobs])
    session.each(
        "UPDATE mlaas_jobs SET next_step_ms = ?, idempotency_key = NULL, unfinished = 0 WHERE id = ?", jobs
    )


def delete(session: Session, job_ids: Sequence[str], condition: str) -> None:
    """Those that meet the condition now, whatever was read of them before."""
    for statement in (
        f"DELETE FROM mlaas_jobs WHERE id = ? AND {condition}",
        "DELETE FROM mlaas_job_results WHERE job_id = ? "
        "AND NOT EXISTS (SELECT 1 FROM mlaas_jobs WHERE id = job_id)",
    ):
        session.each(statement, [(job_id,) for job_id in job_ids])


def find(session: Session, condition: str, *parameters: object) -> Job | None:
    for row in session.rows(f"SELECT {_JOB} FROM mlaas_jobs WHERE {condition}", *parameters):
        fields = dict(zip(Job.__struct_fields__, row, strict=True))
        asked = msgspec.json.decode(fields.pop("asked"), type=Asked)
        return Job(**{**fields, "asked": asked, "state": State(fields["state"])})
    return None


def marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
