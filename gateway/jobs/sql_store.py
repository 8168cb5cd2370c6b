"""Jobs in two tables of an SQL database."""

import uuid
from collections.abc import Mapping, Sequence

from gateway.jobs import sql_statements as statements
from gateway.jobs.job import Job, Result, State
from gateway.jobs.sql_database import Database, Session
from gateway.jobs.store import Added, Creation, Limits, Progress


class SqlStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def identity(self) -> str:
        def work(session: Session) -> str:
            session.lock_creation()
            for (known,) in session.rows("SELECT identity FROM mlaas_job_store"):
                return str(known)
            session.each("INSERT INTO mlaas_job_store VALUES (?)", [(new := uuid.uuid4().hex,)])
            return new

        return self._database.change(work)

    def create(
        self, job: Job, results: Sequence[Result], limits: Limits, now_ms: int
    ) -> tuple[Creation, Job | None]:
        def work(session: Session) -> tuple[Creation, Job | None]:
            session.lock_creation()
            if session.rows("SELECT 1 FROM mlaas_jobs WHERE id = ?", job.id):
                return Creation.CREATED, job
            if job.key and (first := statements.with_key(session, job, now_ms)):
                return Creation.KEY_TAKEN, first
            if statements.is_full(session, job, limits, now_ms):
                return Creation.FULL, None
            statements.insert(session, job, results)
            return Creation.CREATED, job

        return self._database.change(work)

    def accept(self, job_id: str, now_ms: int) -> bool:
        return bool(
            self._database.change(
                lambda session: session.rows(
                    "UPDATE mlaas_jobs SET publish_until_ms = 0, next_step_ms = deadline_ms "
                    "WHERE id = ? AND (publish_until_ms = 0 OR publish_until_ms >= ?) RETURNING id",
                    job_id,
                    now_ms,
                )
            )
        )

    def remove(self, job_id: str) -> bool:
        def work(session: Session) -> bool:
            statements.delete(session, [job_id], statements.NOT_ACCEPTED)
            return not session.rows("SELECT 1 FROM mlaas_jobs WHERE id = ?", job_id)

        return self._database.change(work)

    def get(self, job_id: str, now_ms: int, after: int = 0) -> tuple[Job, Sequence[Result]] | None:
        def look(session: Session) -> tuple[Job, Sequence[Result]] | None:
            job = statements.find(session, "id = ?", job_id)
            if job is not None and not job.is_over and job.deadline_ms <= now_ms:
                statements.expire(session, [job_id])
                job = statements.find(session, "id = ?", job_id)
            if job is None:
                return None
            found = session.rows(
                "SELECT picture, body FROM mlaas_job_results WHERE job_id = ? AND place > ? ORDER BY place",
                job_id,
                after,
            )
            results = [Result(job_id, picture, bytes(body)) for picture, body in found]
            return job, results

        return self._database.change(look)

    def progress(self, job_ids: Sequence[str]) -> Mapping[str, Progress]:
        if not job_ids:
            return {}
        rows = self._database.change(
            lambda session: session.rows(
                f"SELECT id, state, completed FROM mlaas_jobs WHERE id IN ({statements.marks(job_ids)})",
                *job_ids,
            )
        )
        return {job_id: Progress(State(state), completed) for job_id, state, completed in rows}

    def add(self, results: Sequence[Result], now_ms: int) -> Added:
        if not results:
            return Added(0, 0, 0)
        return self._database.change(lambda session: statements.add(session, results, now_ms))

    def cancel(self, job_id: str, now_ms: int) -> None:
        self._database.change(
            lambda session: session.rows(
                "UPDATE mlaas_jobs SET state = 'canceled', unfinished = 0 WHERE id = ? AND state = 'open' "
                "AND completed < total AND deadline_ms > ? RETURNING id",
                job_id,
                now_ms,
            )
        )

    def sweep(self, now_ms: int, most: int) -> int:
        return self._database.change(lambda session: statements.sweep(session, now_ms, most))

    def close(self) -> None:
        self._database.close()
