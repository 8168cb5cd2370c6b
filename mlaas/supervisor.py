"""Child processes that are started, watched, restarted when they die, and never left behind."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger("mlaas")

_INSTALLED_IN = ("site-packages", "dist-packages")

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_SOUND_AFTER_S = 30.0


@dataclass(slots=True)
class Child:
    """One process and how its restarts went."""

    name: str
    arguments: Sequence[str]
    pass_fds: Sequence[int] = ()
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    restart_at: float = 0.0
    pause_s: float = 0.0


def pause_before_restart(pause_s: float, lived_s: float) -> float:
    """None, but for a child that dies young; then doubled each time, so that a broken one does not spin."""
    return 0.0 if lived_s > _SOUND_AFTER_S else min(max(_FIRST_PAUSE_S, pause_s * 2), _LONGEST_PAUSE_S)


class Supervisor:
    """Runs `mlaas …` children, told their settings by the environment.

    Each holds the read end of a pipe, and ends when this process does.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}
        self._children: list[Child] = []

    def start(self, name: str, arguments: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        child = Child(name, arguments, pass_fds)
        self._children.append(child)
        self._spawn(child)

    def dead(self) -> list[Child]:
        return [child for child in self._children if child.process and child.process.poll() is not None]

    def watch(self, now: float) -> None:
        """One turn: note who died, restart whose pause is over."""
        for child in self.dead():
            if not child.restart_at:
                child.pause_s = pause_before_restart(child.pause_s, now - child.started_at)
                child.restart_at = now + child.pause_s
                code = child.process.returncode if child.process else 0
                _log.error("%s ended with code %s; again in %.1f s", child.name, code, child.pause_s)
            elif now >= child.restart_at:
                self._spawn(child)

    def stop(self, name_prefix: str, timeout_s: float) -> None:
        """SIGTERM to those of that name, time to finish, then SIGKILL."""
        running = [child for child in self._children if child.name.startswith(name_prefix) and child.process]
        for child in running:
            child.process.terminate()  # type: ignore[union-attr]
        end = time.monotonic() + timeout_s
        for child in running:
            _wait_or_kill(child, max(0.1, end - time.monotonic()))
            self._children.remove(child)

    def _spawn(self, child: Child) -> None:
        child.restart_at = 0.0
        child.started_at = time.monotonic()
        child.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mlaas", "--supervised", *child.arguments],
            stdin=subprocess.PIPE,
            pass_fds=child.pass_fds,
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends the others in order
        )


def _wait_or_kill(child: Child, timeout_s: float) -> None:
    process = child.process
    if process is None:
        return
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _log.warning("%s does not end; killing it", child.name)
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


def found_by_children() -> None:
    """Let child processes find the packages of a checkout, whatever the working directory.

    They are started with -P, so that a module in the working directory cannot take the place of one of ours.
    """
    root = Path(__file__).resolve().parents[1]
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root.name not in _INSTALLED_IN and str(root) not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), *known]))


def end_with_parent() -> None:
    """For a child: when the supervisor is gone, however it ended, its end of the pipe closes."""

    def wait_for_end() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="end-with-parent", daemon=True).start()
