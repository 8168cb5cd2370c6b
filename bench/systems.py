"""The measured systems: mlaas over either broker, its peers, a bare HTTP server; and their CPU and memory."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import msgspec

from bench.report import REQUIREMENTS, ROOT, Body
from deploy.kafka.local_kafka import free_port
from tests.e2e.services import descendants, is_alive, up
from tests.faults.fleet import memory_mib

# So long after its first answer from a worker, a gateway sends frames. By default, it takes 15 s.
_SILENCE_MS = 3_000

GATEWAY, CONSUMER, MODEL, BROKER, UP = "gateway", "consumer", "model process", "broker", "mlaas up"
CACHE = ROOT / ".cache" / "bench"

_PARTS = {" gateway ": GATEWAY, " worker ": CONSUMER, "worker.model_main": MODEL}
_INSTALL_TIMEOUT_S = 900
_START_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 3.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Roles = Mapping[str, Sequence[int]]
"""Process ids by role."""


class PeerFailed(Exception):
    """A system could not be installed or started. The message is the reason, in one line."""


class System(msgspec.Struct, frozen=True):
    """A running system. ready_s is the time from its start until its first answer.

    proof: whether answers have the digest of their picture.
    """

    urls: Mapping[Body, str]
    ready_s: float
    roles: Roles
    proof: bool = True

    @property
    def body(self) -> Body:
        """The plainest body that it accepts."""
        return next(iter(self.urls))

    def cpu_s(self) -> dict[str, float]:
        """User and system time so far, by role; 0 for processes that have ended."""
        return {role: sum(map(_cpu_s, pids)) for role, pids in self.roles.items()}

    def memory_mb(self) -> dict[str, float]:
        """Resident memory by role. Shared pages count in each process."""
        return {role: memory_mib(pids) * 2**20 / 1e6 for role, pids in self.roles.items()}


class Peer(msgspec.Struct, frozen=True):
    """environment names a file in bench/peers/requirements."""

    environment: str
    module: str
    paths: Mapping[Body, str] = msgspec.field(default_factory=lambda: {"raw": "/predict"})
    variables: Mapping[str, str] = msgspec.field(default_factory=dict)


PEERS: dict[str, Peer] = {
    "Mosec": Peer("mosec", "mosec_server"),
    "LitServe": Peer("litserve", "litserve_server"),
    "BentoML": Peer("bentoml", "bentoml_server", {"json": "/predict"}, {"BENTOML_DO_NOT_TRACK": "True"}),
    "Ray Serve": Peer(
        "ray", "ray_server", variables={"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    ),
    "MLServer": Peer("mlserver", "mlserver_server", {"oip": "/v2/models/fashion/infer"}),
    "FastAPI": Peer("fastapi", "plain_fastapi", {"raw": "/predict", "form": "/form"}),
}


@contextmanager
def mlaas(
    broker_url: str, workers: int = 1, broker_pid: int | None = None, **settings: str
) -> Iterator[System]:
    """`mlaas up` on a free port. The embedded broker runs inside the process of `mlaas up`.

    settings are environment variables.
    """
    started = time.perf_counter()
    settings = {"MLAAS_GATEWAY__WORKER_SILENCE_MS": str(_SILENCE_MS), **settings}
    with up("--workers", str(workers), "--broker", broker_url, **settings) as (service, url):
        ready_s = time.perf_counter() - started
        time.sleep(_SILENCE_MS / 1000)
        roles = roles_of(service.process.pid, _PARTS, UP if broker_pid else BROKER)
        if broker_pid:
            roles[BROKER] = [broker_pid]
        predict = f"{url}/predict"
        yield System({"raw": predict, "form": predict}, ready_s, roles)


@contextmanager
def bare() -> Iterator[System]:
    """A uvicorn application that only reads the body."""
    command = [sys.executable, "-m", "bench.limits", "bare", "--port"]
    with serving("bare", command, {"raw": "/", "form": "/"}, proof=False) as system:
        yield system


@contextmanager
def peer(name: str, workers: int, **settings: str) -> Iterator[System]:
    """settings are environment variables. Raises PeerFailed."""
    chosen = PEERS[name]
    several = ["--workers", str(workers)] if workers > 1 else []
    command = [str(python_of(chosen.environment)), "-m", f"bench.peers.{chosen.module}", *several, "--port"]
    with serving(name, command, chosen.paths, environment={**chosen.variables, **settings}) as system:
        yield system


@contextmanager
def serving(
    name: str,
    command: Sequence[str],
    paths: Mapping[Body, str],
    *,
    proof: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Iterator[System]:
    """Run a server; the port is appended to the command. Its output goes to .cache/bench/logs.

    Raises PeerFailed.
    """
    port, log = free_port(), CACHE / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    base = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        process = _start([*command, str(port)], log, {"TMPDIR": folder, **(environment or {})})
        try:
            urls = {body: f"{base}{path}" for body, path in paths.items()}
            _wait_until_it_listens(process, next(iter(urls.values())), log)
            ready_s = time.perf_counter() - started
            yield System(urls, ready_s, roles_of(process.pid, {}, "server"), proof)
        finally:
            _end(process)


def roles_of(root: int, parts: Mapping[str, str], otherwise: str) -> dict[str, list[int]]:
    """The process and its descendants by role. parts maps parts of command lines to roles."""
    found: dict[str, list[int]] = {otherwise: [root]}
    for pid, command in descendants(root).items():
        role = next((role for part, role in parts.items() if part in f"{command} "), otherwise)
        found.setdefault(role, []).append(pid)
    return found


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, created if missing. Raises PeerFailed."""
    wanted = REQUIREMENTS / f"{name}.txt"
    folder = CACHE / f"{name}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)])
        (folder / ".complete").touch()
    return python


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"not installed within {_INSTALL_TIMEOUT_S} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise PeerFailed(f"not installed: {lines[-1]}")


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


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Some listen before they know the path, and answer 404."""
    end_at = time.monotonic() + _START_TIMEOUT_S
    while True:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=_START_TIMEOUT_S, trust_env=False).status_code != 404:
                return
        if process.poll() is not None:
            raise PeerFailed(f"ended with code {process.returncode}: {_last_line(log)}")
        if time.monotonic() > end_at:
            raise PeerFailed(f"no answer within {_START_TIMEOUT_S:g} s: {_last_line(log)}")
        time.sleep(0.02)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and after some time SIGKILL, to the process and its descendants."""
    family = [process.pid, *descendants(process.pid)]
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_TIMEOUT_S)
    for pid in family:
        if process.poll() is None or (pid != process.pid and is_alive(pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"


def _cpu_s(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()  # the command before it may contain spaces
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def per_request_ms(before: Mapping[str, float], after: Mapping[str, float], answers: int) -> dict[str, float]:
    """CPU time per request by role."""
    return {role: (after[role] - before[role]) * 1000 / answers for role in before if role in after}
