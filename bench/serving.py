"""A server process on a free port, from its start to an end that leaves nothing of it."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.environments import CACHE, ROOT, PeerFailed
from bench.probe import answers
from deploy.kafka.ports import free_port
from mlaas.load.bodies import Body
from mlaas.load.exchange import Exchange, exchanges
from tests.e2e.services import SAMPLES, descendants, is_alive

_START_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 3.0

Serving = tuple["subprocess.Popen[bytes]", int, float]


@contextmanager
def serving(
    name: str,
    command: Sequence[str],
    *,
    body: Body = "raw",
    path: str = "/predict",
    proof: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """The process, its port, and how long it took until it answered a picture. The port ends the command.

    What it prints is kept in .cache/bench/logs. Raises PeerFailed.
    """
    port, log = free_port(), CACHE / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    url, picture = f"http://127.0.0.1:{port}{path}", SAMPLES[0].read_bytes()
    (asked,) = exchanges(url, [picture], body=body, proof=proof)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        process = _start([*command, str(port)], log, {"TMPDIR": folder, **(environment or {})})
        try:
            _wait_until_it_answers(process, asked, log)
            yield process, port, time.perf_counter() - started
        finally:
            end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, some time to go, then SIGKILL to it and to all that it started."""
    family = [process.pid, *descendants(process.pid)]
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_TIMEOUT_S)
    for pid in family:
        if process.poll() is None or (pid != process.pid and is_alive(pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", asked: Exchange, log: Path) -> None:
    end_at = time.monotonic() + _START_TIMEOUT_S
    while not answers(asked):
        if process.poll() is not None:
            raise PeerFailed(f"ended with code {process.returncode}: {_last_line(log)}")
        if time.monotonic() > end_at:
            raise PeerFailed(f"no answer within {_START_TIMEOUT_S:g} s: {_last_line(log)}")
        time.sleep(0.02)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"
