"""Two of PostgreSQL's transactions at once: one accepts a job, the other would forget it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
import pytest

from gateway.jobs.postgresql_store import PostgresqlStore
from gateway.jobs.sql_store import Session, SqlStore
from gateway.jobs.store import Job
from tests.stores.servers import PATIENCE_S, LocalPostgresql
from tests.stores.test_store_contract import create, new_job, read, result

T = TypeVar("T")

FORGETTING: dict[str, Callable[[PostgresqlStore, Job], object]] = {
    "sweep": lambda store, job: store.sweep(job.publish_until_ms + 1, 1_000),
    "remove": lambda store, job: store.remove(job.id),
}


class LateStore(SqlStore):
    """A store that commits when the test says."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.worked, self.commit = threading.Event(), threading.Event()

    def change(self, work: Callable[[Session], T]) -> T:
        def work_and_wait(session: Session) -> T:
            done = work(session)
            self.worked.set()
            assert self.commit.wait(PATIENCE_S)
            return done

        return self._store.change(work_and_wait)

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def stores(postgresql: LocalPostgresql) -> Iterator[list[PostgresqlStore]]:
    """Two that are connected, which waits for others' transactions."""
    made = [PostgresqlStore(postgresql.url, PATIENCE_S) for _ in range(2)]
    for store in made:
        store.identity()
    yield made
    for store in made:
        store.close()


@pytest.mark.parametrize("forgetting", FORGETTING)
def test_a_job_that_is_accepted_while_it_is_being_forgotten_stays(
    postgresql: LocalPostgresql, stores: list[PostgresqlStore], forgetting: str
) -> None:
    """The sweep reads by a clock that is ahead of the one by which the job is accepted."""
    store, other = stores
    job = new_job()
    create(store, job, result(job, 0))
    late = LateStore(store)
    with ThreadPoolExecutor(2) as threads:
        accepting = threads.submit(late.accept, job.id, job.created_ms)
        assert late.worked.wait(PATIENCE_S)
        forgotten = threads.submit(FORGETTING[forgetting], other, job)
        until_one_waits(postgresql)
        late.commit.set()
    assert accepting.result()
    forgotten.result()
    found, results = read(store, job)
    assert (found.publish_until_ms, results) == (0, [result(job, 0)])


def until_one_waits(server: LocalPostgresql) -> None:
    """For what another transaction has changed."""
    end = time.monotonic() + PATIENCE_S
    with psycopg.connect(server.url, autocommit=True) as connection:
        while not connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).rowcount:
            assert time.monotonic() < end
            time.sleep(0.02)
