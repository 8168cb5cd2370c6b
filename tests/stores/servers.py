"""A real PostgreSQL server on a free port, in a folder of its own, which ends with the test."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_S = 30.0
HOST = "127.0.0.1"


class Server:
    """A process that listens on a port. name is what messages call it."""

    name = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"mlaas-{self.name}-"))
        with socket.create_server((HOST, 0)) as server:
            self.port: int = server.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.prepare()

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be started here; None if it can."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        raise NotImplementedError

    def prepare(self) -> None:
        """Once, before the first start."""

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        end = time.monotonic() + PATIENCE_S
        while not self._listens():
            assert time.monotonic() < end, (self.folder / "server.log").read_text()
            time.sleep(0.05)

    def signal(self, what: signal.Signals) -> None:
        """To the server and its children."""
        assert self._process
        os.killpg(self._process.pid, what)

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

    def _listens(self) -> bool:
        raise NotImplementedError


class LocalPostgresql(Server):
    """Runs as the user postgres where this is root, which the server refuses."""

    name = "postgresql"

    @classmethod
    def missing(cls) -> str | None:
        if _postgres_folder() is None:
            return "PostgreSQL's server is not installed"
        if os.geteuid() == 0 and not shutil.which("setpriv"):
            return "PostgreSQL refuses to run as root, and there is no setpriv"
        return None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/postgres"

    def prepare(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        data = str(self.folder / "data")
        options = ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(
            [*_as_postgres(), f"{_postgres_folder()}/initdb", *options],
            check=True,
            capture_output=True,
            cwd=self.folder,
        )

    def command(self) -> Sequence[str]:
        where = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", HOST, "-p", str(self.port)]
        return [*_as_postgres(), f"{_postgres_folder()}/postgres", *where, "-c", "fsync=off"]

    def _listens(self) -> bool:
        asking = [f"{_postgres_folder()}/pg_isready", "-q", "-h", HOST, "-p", str(self.port)]
        return subprocess.run(asking).returncode == 0


def _postgres_folder() -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    return str(found[-1].parent) if found else on_path and str(Path(on_path).parent)


def _as_postgres() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
