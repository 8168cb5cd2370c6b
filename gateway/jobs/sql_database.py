"""What an SQL database is to the store of jobs: two tables, and transactions."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

# next_step_ms: when the sweep is to look at the job again. unfinished: until then it counts against
# the limits. place: of a result among its job's, from 1 on.
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS mlaas_jobs (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, idempotency_key TEXT, fingerprint TEXT NOT NULL,
        created_ms BIGINT NOT NULL, deadline_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL,
        publish_until_ms BIGINT NOT NULL, total INTEGER NOT NULL, size_bytes BIGINT NOT NULL,
        asked TEXT NOT NULL, state TEXT NOT NULL, completed INTEGER NOT NULL,
        unfinished INTEGER NOT NULL, next_step_ms BIGINT NOT NULL, UNIQUE (owner, idempotency_key))""",
    "CREATE INDEX IF NOT EXISTS mlaas_jobs_next_step ON mlaas_jobs (next_step_ms)",
    "CREATE INDEX IF NOT EXISTS mlaas_jobs_unfinished ON mlaas_jobs (next_step_ms) WHERE unfinished = 1",
    """CREATE TABLE IF NOT EXISTS mlaas_job_results (
        job_id TEXT NOT NULL, picture INTEGER NOT NULL, place INTEGER NOT NULL, body {blob} NOT NULL,
        PRIMARY KEY (job_id, picture), UNIQUE (job_id, place))""",
    "CREATE TABLE IF NOT EXISTS mlaas_job_store (identity TEXT NOT NULL)",
)


class Session(Protocol):
    """Within one transaction. Statements have a question mark for each parameter."""

    def rows(self, statement: str, *parameters: object) -> Sequence[Sequence[Any]]: ...

    def each(self, statement: str, parameters: Iterable[Sequence[object]]) -> None:
        """The statement once for each set of parameters."""

    def lock_jobs(self, job_ids: Sequence[str]) -> None:
        """Nobody else changes these until the transaction ends."""

    def lock_creation(self) -> None:
        """Nobody else creates a job until the transaction ends."""


class Database(Protocol):
    """Translates the errors of its library to StoreError."""

    def change(self, work: Callable[[Session], T]) -> T:
        """In one transaction, all or nothing. The work may run twice."""

    def close(self) -> None: ...
