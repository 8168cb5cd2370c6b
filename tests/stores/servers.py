"""A real PostgreSQL server on a free port, in a folder of its own, which ends with the test."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.services import descendants

PATIENCE_S = 30.0
HOST = "127.0.0.1"


class LocalPostgresql:
    """Runs as the user postgres where this is root, which the server refuses."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mlaas-postgresql-"))
        with socket.create_server((HOST, 0)) as server:
            self.port: int = server.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._create()

    @staticmethod
    def missing() -> str | None:
        """Why it cannot be started here; None if it can."""
        if _programs() is None:
            return "PostgreSQL's server is not installed"
        if os.geteuid() == 0 and not shutil.which("setpriv"):
            return "PostgreSQL refuses to run as root, and there is no setpriv"
        return None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/postgres"

    def start(self) -> None:
        where = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", HOST, "-p", str(self.port)]
        command = [*_as_postgres(), f"{_programs()}/postgres", *where, "-c", "fsync=off"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        asking = [f"{_programs()}/pg_isready", "-q", "-h", HOST, "-p", str(self.port)]
        end = time.monotonic() + PATIENCE_S
        while subprocess.run(asking).returncode:
            assert time.monotonic() < end, (self.folder / "server.log").read_text()
            time.sleep(0.05)

    def signal(self, what: signal.Signals) -> None:
        """To the server and the processes of its connections, which are in groups of their own."""
        assert self._process
        for pid in (self._process.pid, *descendants(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, what)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _create(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        data = str(self.folder / "data")
        options = ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(
            [*_as_postgres(), f"{_programs()}/initdb", *options],
            check=True,
            capture_output=True,
            cwd=self.folder,
        )


def _programs() -> str | None:
    """The folder with those of the server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    return str(found[-1].parent) if found else on_path and str(Path(on_path).parent)


def _as_postgres() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
