"""The job store in SQL, common to SQLite and PostgreSQL."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from gateway.jobs.store import Added, Creation, Job, JobRequest, Limits, Progress, Result, State

T = TypeVar("T")

# next_step_ms: when the sweep next looks at the job. unfinished: 1 while the job counts towards the limits.
# place: the position of a result within its job, from 1.
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS mlaas_jobs (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, idempotency_key TEXT, fingerprint TEXT NOT NULL,
        created_ms BIGINT NOT NULL, deadline_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL,
        publish_until_ms BIGINT NOT NULL, total INTEGER NOT NULL, size_bytes BIGINT NOT NULL,
        asked TEXT NOT NULL, state TEXT NOT NULL, completed INTEGER NOT NULL,
        unfinished INTEGER NOT NULL, next_step_ms BIGINT NOT NULL, UNIQUE (owner, idempotency_key))""",
    "CREATE INDEX IF NOT EXISTS mlaas_jobs_next_step ON mlaas_jobs (next_step_ms)",
    "CREATE INDEX IF NOT EXISTS mlaas_jobs_of_owner ON mlaas_jobs (owner, created_ms, id)",
    "CREATE INDEX IF NOT EXISTS mlaas_jobs_unfinished ON mlaas_jobs (next_step_ms) WHERE unfinished = 1",
    """CREATE TABLE IF NOT EXISTS mlaas_job_results (
        job_id TEXT NOT NULL, picture INTEGER NOT NULL, place INTEGER NOT NULL, body {blob} NOT NULL,
        PRIMARY KEY (job_id, picture), UNIQUE (job_id, place))""",
    "CREATE TABLE IF NOT EXISTS mlaas_job_store (identity TEXT NOT NULL)",
)
_JOB = (
    "id, owner, coalesce(idempotency_key, ''), fingerprint, created_ms, deadline_ms, expires_ms, "
    "publish_until_ms, total, size_bytes, asked, state, completed"
)
_NOT_ACCEPTED = "publish_until_ms > 0"
_ACCEPTED = "publish_until_ms = 0"
_ABANDONED = f"{_NOT_ACCEPTED} AND publish_until_ms < ?"


class Session(Protocol):
    """A transaction. Statements have a question mark for each parameter."""

    def rows(self, statement: str, *parameters: object) -> Sequence[Sequence[Any]]: ...

    def each(self, statement: str, parameters: Iterable[Sequence[object]]) -> None:
        """Execute the statement once per set of parameters."""

    def lock_jobs(self, job_ids: Sequence[str]) -> None:
        """Lock these jobs until the transaction ends."""

    def lock_creation(self) -> None:
        """Lock the creation of jobs until the transaction ends."""


class SqlStore(ABC):
    """A Store whose subclasses connect to a database and run its transactions."""

    @abstractmethod
    def change(self, work: Callable[[Session], T]) -> T:
        """Run the work in one transaction. It may run twice. Raises StoreError."""

    @abstractmethod
    def close(self) -> None: ...

    def identity(self) -> str:
        def work(session: Session) -> str:
            session.lock_creation()
            for (known,) in session.rows("SELECT identity FROM mlaas_job_store"):
                return str(known)
            session.each("INSERT INTO mlaas_job_store VALUES (?)", [(new := uuid.uuid4().hex,)])
            return new

        return self.change(work)

    def create(
        self, job: Job, results: Sequence[Result], limits: Limits, now_ms: int
    ) -> tuple[Creation, Job | None]:
        def work(session: Session) -> tuple[Creation, Job | None]:
            session.lock_creation()
            if session.rows("SELECT 1 FROM mlaas_jobs WHERE id = ?", job.id):
                return Creation.CREATED, job
            if job.key and (first := _with_key(session, job, now_ms)):
                return Creation.KEY_TAKEN, first
            if _is_full(session, job, limits, now_ms):
                return Creation.FULL, None
            _insert(session, job, results)
            return Creation.CREATED, job

        return self.change(work)

    def accept(self, job_id: str, now_ms: int) -> bool:
        accepted = self.change(
            lambda session: session.rows(
                "UPDATE mlaas_jobs SET publish_until_ms = 0, next_step_ms = deadline_ms "
                "WHERE id = ? AND (publish_until_ms = 0 OR publish_until_ms >= ?) RETURNING id",
                job_id,
                now_ms,
            )
        )
        return bool(accepted)

    def remove(self, job_id: str) -> bool:
        def work(session: Session) -> bool:
            _delete(session, [job_id], _NOT_ACCEPTED)
            return not session.rows("SELECT 1 FROM mlaas_jobs WHERE id = ?", job_id)

        return self.change(work)

    def get(self, job_id: str, now_ms: int, after: int = 0) -> tuple[Job, Sequence[Result]] | None:
        def look(session: Session) -> tuple[Job, Sequence[Result]] | None:
            job = _find(session, "id = ?", job_id)
            if job is not None and not job.is_over and job.deadline_ms <= now_ms:
                _expire(session, [job_id])
                job = _find(session, "id = ?", job_id)
            if job is None:
                return None
            found = session.rows(
                "SELECT picture, body FROM mlaas_job_results WHERE job_id = ? AND place > ? ORDER BY place",
                job_id,
                after,
            )
            results = [Result(job_id, picture, bytes(body)) for picture, body in found]
            return job, results

        return self.change(look)

    def progress(self, job_ids: Sequence[str]) -> Mapping[str, Progress]:
        if not job_ids:
            return {}
        rows = self.change(
            lambda session: session.rows(
                f"SELECT id, state, completed FROM mlaas_jobs WHERE id IN ({_marks(job_ids)})", *job_ids
            )
        )
        return {job_id: Progress(State(state), completed) for job_id, state, completed in rows}

    def of_owner(self, owner: str, now_ms: int, most: int, before: str = "") -> Sequence[Job]:
        def look(session: Session) -> Sequence[Job]:
            condition, parameters = f"owner = ? AND {_ACCEPTED} AND expires_ms > ?", [owner, now_ms]
            overdue = session.rows(
                f"SELECT id FROM mlaas_jobs WHERE {condition} AND state = 'open' AND deadline_ms <= ?",
                *parameters,
                now_ms,
            )
            _expire(session, [job_id for (job_id,) in overdue])
            if before:
                this = "SELECT created_ms, id FROM mlaas_jobs WHERE id = ? AND owner = ?"
                condition += f" AND (created_ms, id) < ({this})"
                parameters += [before, owner]
            return _select(
                session, f"{condition} ORDER BY created_ms DESC, id DESC LIMIT ?", *parameters, most
            )

        return self.change(look)

    def add(self, results: Sequence[Result], now_ms: int) -> Added:
        if not results:
            return Added(0, 0, 0)
        return self.change(lambda session: _add(session, results, now_ms))

    def cancel(self, job_id: str, now_ms: int) -> None:
        self.change(
            lambda session: session.rows(
                "UPDATE mlaas_jobs SET state = 'canceled', unfinished = 0 WHERE id = ? AND state = 'open' "
                "AND completed < total AND deadline_ms > ? RETURNING id",
                job_id,
                now_ms,
            )
        )

    def sweep(self, now_ms: int, most: int) -> int:
        return self.change(lambda session: _sweep(session, now_ms, most))


class Standing(NamedTuple):
    """The part of a job's record that decides whether it takes a result."""

    total: int
    completed: int
    state: State
    deadline_ms: int

    def takes(self, index: int, now_ms: int) -> bool:
        return self.state is State.OPEN and now_ms < self.deadline_ms and index < self.total


class Assigned(NamedTuple):
    """The new results with their places, the new count of each job, and what became of all results."""

    placed: list[tuple[Result, int]]
    completed: dict[str, int]
    added: Added


def assign(
    results: Iterable[Result], jobs: Mapping[str, Standing], stored: Set[tuple[str, int]], now_ms: int
) -> Assigned:
    """Choose the results to store, and their places. stored has the pictures that have a result already."""
    placed: list[tuple[Result, int]] = []
    completed: dict[str, int] = {}
    seen = set(stored)
    duplicates = unknown = 0
    for result in results:
        job, picture = jobs.get(result.job_id), (result.job_id, result.index)
        if picture in seen:
            duplicates += 1
        elif job is None or not job.takes(result.index, now_ms):
            unknown += 1
        else:
            seen.add(picture)
            place = completed.get(result.job_id, job.completed) + 1
            completed[result.job_id] = place
            placed.append((result, place))
    return Assigned(placed, completed, Added(len(placed), duplicates, unknown))


def _insert(session: Session, job: Job, results: Sequence[Result]) -> None:
    unfinished = int(len(results) < job.total)
    session.each(
        f"INSERT INTO mlaas_jobs VALUES ({_marks(range(15))})",
        [
            (
                *(job.id, job.owner, job.key or None, job.fingerprint),
                *(job.created_ms, job.deadline_ms, job.expires_ms, job.publish_until_ms),
                *(job.total, job.size_bytes, msgspec.json.encode(job.request).decode(), job.state.value),
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


def _with_key(session: Session, job: Job, now_ms: int) -> Job | None:
    """The owner's job with the same key, after expired and abandoned jobs have released it."""
    session.each(
        "UPDATE mlaas_jobs SET idempotency_key = NULL WHERE owner = ? AND idempotency_key = ? "
        f"AND (expires_ms <= ? OR ({_ABANDONED}))",
        [(job.owner, job.key, now_ms, now_ms)],
    )
    return _find(session, "owner = ? AND idempotency_key = ?", job.owner, job.key)


def _is_full(session: Session, job: Job, limits: Limits, now_ms: int) -> bool:
    ((pictures, size),) = session.rows(
        "SELECT coalesce(sum(total), 0), coalesce(sum(size_bytes), 0) FROM mlaas_jobs "
        "WHERE unfinished = 1 AND next_step_ms > ?",
        now_ms,
    )
    return bool(pictures + job.total > limits.max_pictures or size + job.size_bytes > limits.max_bytes)


def _add(session: Session, results: Sequence[Result], now_ms: int) -> Added:
    job_ids = sorted({result.job_id for result in results})
    session.lock_jobs(job_ids)
    jobs = session.rows(
        f"SELECT id, total, completed, state, deadline_ms FROM mlaas_jobs WHERE id IN ({_marks(job_ids)})",
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


def _sweep(session: Session, now_ms: int, most: int) -> int:
    """Advance each job that is due: it expires, loses its results, or is deleted."""
    due = session.rows(
        "SELECT id, publish_until_ms, expires_ms, created_ms FROM mlaas_jobs "
        "WHERE next_step_ms < ? ORDER BY next_step_ms, id LIMIT ?",
        now_ms,
        most,
    )
    expiring, emptied, outdated, abandoned = [], [], [], []
    for job_id, publish_until_ms, expires_ms, created_ms in due:
        if publish_until_ms:
            abandoned.append(job_id)
        elif 2 * expires_ms - created_ms < now_ms:
            outdated.append(job_id)
        elif expires_ms < now_ms:
            emptied.append((2 * expires_ms - created_ms, job_id))
        else:
            expiring.append(job_id)
    _delete(session, abandoned, _NOT_ACCEPTED)
    _delete(session, outdated, _ACCEPTED)
    _empty(session, emptied)
    _expire(session, expiring)
    session.each(
        "UPDATE mlaas_jobs SET next_step_ms = expires_ms WHERE id = ?", [(job_id,) for job_id in expiring]
    )
    return len(due)


def _expire(session: Session, job_ids: Sequence[str]) -> None:
    session.each(
        "UPDATE mlaas_jobs SET state = 'expired', unfinished = 0 "
        "WHERE id = ? AND state = 'open' AND completed < total",
        [(job_id,) for job_id in job_ids],
    )


def _empty(session: Session, jobs: Sequence[tuple[int, str]]) -> None:
    """Delete the results but keep the record, which tells an expired job from an unknown one."""
    session.each("DELETE FROM mlaas_job_results WHERE job_id = ?", [(job_id,) for _, job_id in jobs])
    session.each(
        "UPDATE mlaas_jobs SET next_step_ms = ?, idempotency_key = NULL, unfinished = 0 WHERE id = ?", jobs
    )


def _delete(session: Session, job_ids: Sequence[str], condition: str) -> None:
    """Delete the jobs that still meet the condition, which may have changed since they were read."""
    for statement in (
        f"DELETE FROM mlaas_jobs WHERE id = ? AND {condition}",
        "DELETE FROM mlaas_job_results WHERE job_id = ? "
        "AND NOT EXISTS (SELECT 1 FROM mlaas_jobs WHERE id = job_id)",
    ):
        session.each(statement, [(job_id,) for job_id in job_ids])


def _find(session: Session, condition: str, *parameters: object) -> Job | None:
    return next(iter(_select(session, condition, *parameters)), None)


def _select(session: Session, condition: str, *parameters: object) -> list[Job]:
    jobs = []
    for row in session.rows(f"SELECT {_JOB} FROM mlaas_jobs WHERE {condition}", *parameters):
        fields = dict(zip(Job.__struct_fields__, row, strict=True))
        fields["request"] = msgspec.json.decode(fields["request"], type=JobRequest)
        fields["state"] = State(fields["state"])
        jobs.append(Job(**fields))
    return jobs


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
