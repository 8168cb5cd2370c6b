"""The job store in a SQLite file, for gateways on one machine: its locks fail on network file systems."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from gateway.jobs.sql_store import SCHEMA, Session, SqlStore
from gateway.jobs.store import StoreError, StoreUnavailable

_RETRY_S = 0.01

T = TypeVar("T")


class SqliteStore(SqlStore):
    """Has one connection, used by one thread at a time, since SQLite allows one writer."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path = Path(path)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def change(self, work: Callable[[Session], T]) -> T:
        if not self._lock.acquire(timeout=self._timeout_s):
            raise StoreUnavailable(f"{self._path}: locked for {self._timeout_s:g} s")
        try:
            return self._change(work)
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error
        finally:
            self._lock.release()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _change(self, work: Callable[[Session], T]) -> T:
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            outcome = work(_Transaction(connection))
            connection.execute("COMMIT")
            return outcome
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._make_private()
        connection = sqlite3.connect(
            self._path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            self._write_ahead(connection)
            # Commits survive a crash of the process; a power failure may undo the last ones.
            connection.execute("PRAGMA synchronous = NORMAL")
            for statement in SCHEMA:
                connection.execute(statement.format(blob="BLOB"))
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _make_private(self) -> None:
        """Make the file readable by its owner only. SQLite creates -wal and -shm with the same mode."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError, PermissionError):  # or owned by another user
                os.chmod(f"{self._path}{suffix}", 0o600)

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to write-ahead logging. SQLite fails at once while another process opens the file."""
        until = time.monotonic() + self._timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
                time.sleep(_RETRY_S)


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, *parameters: object) -> Sequence[Sequence[Any]]:
        return self._connection.execute(statement, parameters).fetchall()

    def each(self, statement: str, parameters: Iterable[Sequence[object]]) -> None:
        self._connection.executemany(statement, parameters)

    def lock_jobs(self, job_ids: Sequence[str]) -> None:
        """BEGIN IMMEDIATE has locked the database already."""

    def lock_creation(self) -> None:
        """As lock_jobs."""
