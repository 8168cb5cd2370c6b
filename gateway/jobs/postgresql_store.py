"""The job store in PostgreSQL, for gateways on several machines."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from psycopg import Connection, Cursor
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from gateway.jobs.sql_store import SCHEMA, Session, SqlStore
from gateway.jobs.store import StoreError, StoreUnavailable

T = TypeVar("T")

_CREATION_LOCK = 7_316_403_298  # any number identifies an advisory lock
_CONNECTIONS = 4
_POLL_S = 0.1


class _Connection(Connection):
    """Times out at `until`, in monotonic seconds, even if the server hangs."""

    until: float

    @classmethod
    def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, timeout_s: float, failed: Callable[[Exception], None], **named: Any
    ) -> Self:
        try:
            connection = super().connect(conninfo, **named)
        except psycopg.Error as error:
            failed(error)
            raise
        connection.until = time.monotonic() + timeout_s
        return connection

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return super().wait(gen, interval, max(0.001, self.until - time.monotonic()))
        except psycopg.OperationalError:
            if self.info.transaction_status is TransactionStatus.ACTIVE:
                self.close()  # a late answer would be taken for that of the next statement
            raise


class PostgresqlStore(SqlStore):
    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._failure: Exception | None = None
        # The pool logs connection failures that change() raises.
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
        self._pool = ConnectionPool(
            url,
            connection_class=_Connection,
            kwargs={
                "timeout_s": timeout_s,
                "failed": self._failed,
                "autocommit": True,
                "connect_timeout": max(2, int(timeout_s)),  # libpq rounds 1 up to 2
                "application_name": "mlaas",
                "options": f"-c statement_timeout={timeout_s * 1000:.0f}",
            },
            min_size=0,
            max_size=_CONNECTIONS,
            open=True,
            configure=self._create_tables,
            check=self._check,
            reconnect_timeout=0,  # the next call reconnects
        )

    def change(self, work: Callable[[Session], T]) -> T:
        try:
            with self._borrowed() as connection, connection.transaction():
                return work(_Transaction(connection))
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StoreUnavailable(f"PostgreSQL: {_one_line(error)}") from error
        except psycopg.Error as error:
            raise StoreError(f"PostgreSQL: {_one_line(error)}") from error

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def _borrowed(self) -> Iterator[_Connection]:
        until = time.monotonic() + self._timeout_s
        connection = self._borrow(until)
        connection.until = until
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def _borrow(self, until: float) -> _Connection:
        """Fails at once if the server refuses connections; the pool alone would wait for the timeout."""
        self._failure = None
        while True:
            try:
                return self._pool.getconn(_POLL_S)
            except PoolTimeout:
                if self._failure is not None:
                    raise self._failure from None
                if time.monotonic() > until:
                    raise PoolTimeout(f"no connection within {self._timeout_s:g} s") from None

    def _failed(self, error: Exception) -> None:
        self._failure = error

    def _create_tables(self, connection: _Connection) -> None:
        with connection.transaction():
            transaction = _Transaction(connection)
            transaction.lock_creation()  # IF NOT EXISTS fails if two sessions create at once
            for statement in SCHEMA:
                transaction.run(statement.format(blob="BYTEA"))

    def _check(self, connection: _Connection) -> None:
        """Runs before each use, since an idle connection may have broken."""
        connection.until = time.monotonic() + self._timeout_s
        connection.execute("")


class _Transaction:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, statement: str, *parameters: object) -> Cursor:
        return self._connection.execute(_with_percents(statement), parameters)

    def rows(self, statement: str, *parameters: object) -> Sequence[Sequence[Any]]:
        return self.run(statement, *parameters).fetchall()

    def each(self, statement: str, parameters: Iterable[Sequence[object]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_with_percents(statement), parameters)

    def lock_jobs(self, job_ids: Sequence[str]) -> None:
        self.run("SELECT 1 FROM mlaas_jobs WHERE id = ANY(?) ORDER BY id FOR UPDATE", list(job_ids))

    def lock_creation(self) -> None:
        self.run("SELECT pg_advisory_xact_lock(?)", _CREATION_LOCK)


def _with_percents(statement: str) -> LiteralString:
    return statement.replace("?", "%s")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
