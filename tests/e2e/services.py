"""Starting the real processes, and asking them."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "samples").glob("*.png"))
PNG = {"Content-Type": "image/png"}
PATIENCE_S = 120.0
# For what looks at the broker of the settings by itself: one may run on the usual port.
NO_BROKER = {"MLAAS_BROKER__URL": "kafka://127.0.0.1:1"}


def label_of(sample: Path) -> str:
    """t-shirt-top.png shows T-shirt/top."""
    return {"t-shirt-top": "T-shirt/top"}.get(sample.stem, sample.stem.replace("-", " ").capitalize())


class Service:
    """One `mlaas …` process with what it prints."""

    def __init__(
        self, *arguments: str, module: str = "mlaas", checkout: Path = ROOT, **environment: str
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=checkout,
            env={**os.environ, **_of(checkout), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._new: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line, printed or to be printed, in which the pattern is found."""
        end = time.monotonic() + PATIENCE_S
        for line in self.lines:
            if found := re.search(pattern, line):
                return found
        while time.monotonic() < end:
            try:
                line = self._new.get(timeout=0.2)
            except queue.Empty:
                continue
            assert line is not None, f"ended before {pattern!r}:\n{self.output}"
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"{pattern!r} did not come:\n{self.output}")

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.wait()

    def wait(self) -> int:
        """Until it has ended and all it printed is read."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout:
            for line in self.process.stdout:
                self.lines.append(line)
                self._new.put(line)
        self._new.put(None)


def _of(checkout: Path) -> dict[str, str]:
    """What makes Python prefer another checkout to the installed packages, which are this one's."""
    return {} if checkout == ROOT else {"PYTHONPATH": str(checkout)}


@contextmanager
def service(*arguments: str, **environment: str) -> Iterator[Service]:
    running = Service(*arguments, **environment)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def up(*arguments: str, **environment: str) -> Iterator[tuple[Service, str]]:
    """`mlaas up` on a free port, when it says it is ready."""
    with service("up", "--port", "0", *arguments, **environment) as running:
        yield running, running.wait_for(r"Ready: (http://\S+)")[1]


def mlaas(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mlaas", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip


def predict(url: str, picture: bytes, **query: str) -> httpx.Response:
    return httpx.post(f"{url}/predict", params=query, content=picture, headers=PNG, timeout=PATIENCE_S)


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {patience_s} s"
        time.sleep(0.05)


def is_ready(url: str) -> bool:
    return status(f"{url}/health/ready") == 200


def status(url: str) -> int:
    """0 where nobody listens."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0


def descendants(pid: int) -> dict[int, str]:
    """Command lines by pid, of all processes below this one."""
    table = subprocess.run(
        ["ps", "-eww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [(int(a), int(b), c) for a, b, c in (line.split(None, 2) for line in table.splitlines())]
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        below = {child: args for child, parent, args in rows if parent in parents}
        found |= below
        parents = set(below)
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
