"""Jobs in PostgreSQL: for gateways on several machines."""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, LifoQueue
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import Connection, Cursor

from gateway.jobs.sql_database import SCHEMA, Session
from gateway.jobs.sql_store import SqlStore
from gateway.jobs.store import StoreError, StoreUnavailable

T = TypeVar("T")

_CREATION_LOCK = 7_316_403_298  # any number of ours: advisory locks are numbers
_CONNECTIONS = 4


class PostgresqlStore(SqlStore):
    def __init__(self, url: str, timeout_s: float) -> None:
        super().__init__(_Postgresql(url, timeout_s))


class _Postgresql:
    """A few connections, made when needed, lent to one thread at a time."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._idle: LifoQueue[Connection | None] = LifoQueue()
        for _ in range(_CONNECTIONS):
            self._idle.put(None)

    def change(self, work: Callable[[Session], T]) -> T:
        """A connection that broke while it lay idle is replaced once."""
        with self._borrowed() as place:
            had_one = place.connection is not None
            try:
                return self._change(place, work)
            except StoreUnavailable:
                if not had_one:
                    raise
            return self._change(place, work)

    def close(self) -> None:
        """Those that are idle; a lent one ends with the process."""
        idle = [self._idle.get_nowait() for _ in range(self._idle.qsize())]
        for connection in idle:
            _Place(connection).drop()
            self._idle.put(None)

    @contextmanager
    def _borrowed(self) -> Iterator["_Place"]:
        try:
            place = _Place(self._idle.get(timeout=self._timeout_s))
        except Empty as error:
            raise StoreUnavailable(f"PostgreSQL: busy for {self._timeout_s:g} s") from error
        try:
            yield place
        finally:
            self._idle.put(place.connection)

    def _change(self, place: "_Place", work: Callable[[Session], T]) -> T:
        try:
            if place.connection is None:
                place.connection = self._open()
            with _cut_after(self._timeout_s, place.connection), place.connection.transaction():
                return work(_Transaction(place.connection))
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            place.drop()
            raise StoreUnavailable(f"PostgreSQL: {_one_line(error)}") from error
        except psycopg.Error as error:
            place.drop()
            raise StoreError(f"PostgreSQL: {_one_line(error)}") from error

    def _open(self) -> Connection:
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=max(2, int(self._timeout_s)),  # libpq makes less of 1
            application_name="mlaas",
            options=f"-c statement_timeout={self._timeout_s * 1000:.0f}",
        )
        try:
            with _cut_after(self._timeout_s, connection), connection.transaction():
                transaction = _Transaction(connection)
                transaction.lock_creation()  # IF NOT EXISTS fails where two create at once
                for statement in SCHEMA:
                    transaction.run(statement.format(blob="BYTEA"))
        except psycopg.Error:
            connection.close()
            raise
        return connection


class _Place:
    """One of the connections, if it is made."""

    def __init__(self, connection: Connection | None) -> None:
        self.connection = connection

    def drop(self) -> None:
        if self.connection is not None:
            with suppress(psycopg.Error):
                self.connection.close()
            self.connection = None


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


@contextmanager
def _cut_after(timeout_s: float, connection: Connection) -> Iterator[None]:
    """statement_timeout is kept by the server: one that stands still does not keep it."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        cutting = threading.Timer(timeout_s, lambda: _shut(same))
        cutting.daemon = True
        cutting.start()
        try:
            yield
        finally:
            cutting.cancel()
            cutting.join()


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _with_percents(statement: str) -> LiteralString:
    return statement.replace("?", "%s")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
