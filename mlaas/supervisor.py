"""Starts child processes, restarts those that die, and stops them all at the end."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_log = logging.getLogger("mlaas")

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_SOUND_AFTER_S = 30.0


@dataclass(slots=True)
class Child:
    """A child process and its restarts. Times are seconds on time.monotonic()."""

    name: str
    arguments: Sequence[str]
    pass_fds: Sequence[int] = ()
    process: "subprocess.Popen[bytes]" = field(init=False)
    started_at: float = 0.0
    restart_at: float = 0.0
    pause_s: float = 0.0


def pause_before_restart(pause_s: float, lived_s: float) -> float:
    """Seconds: 0 after a life of over 30 s, otherwise from 0.5 s, doubling up to 30 s."""
    return 0.0 if lived_s > _SOUND_AFTER_S else min(max(_FIRST_PAUSE_S, pause_s * 2), _LONGEST_PAUSE_S)


class Supervisor:
    """Runs `mlaas` commands as child processes, which get their settings from the environment.

    The standard input of each is a pipe from this process, so that it ends when this process does. Each
    answers scrapes of its metrics at a socket in the folder, named like itself.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, **environment}
        self._children: list[Child] = []

    def start(self, name: str, arguments: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        child = Child(name, arguments, pass_fds)
        self._spawn(child)
        self._children.append(child)

    def dead(self) -> list[Child]:
        return [child for child in self._children if child.process.poll() is not None]

    def watch(self, now: float) -> None:
        """Schedules a restart for each child that has died since; restarts those that are due."""
        for child in self.dead():
            if not child.restart_at:
                child.pause_s = pause_before_restart(child.pause_s, now - child.started_at)
                child.restart_at = now + child.pause_s
                code = child.process.returncode
                _log.error("%s exited with code %s; restarting it in %.1f s", child.name, code, child.pause_s)
            elif now >= child.restart_at:
                self._spawn(child)

    def stop(self, name_prefix: str, timeout_s: float) -> None:
        """Sends SIGTERM to the children with this prefix; after timeout_s, SIGKILL to those still running."""
        running = [child for child in self._children if child.name.startswith(name_prefix)]
        for child in running:
            child.process.terminate()
        end = time.monotonic() + timeout_s
        for child in running:
            _wait_or_kill(child, max(0.1, end - time.monotonic()))
            self._children.remove(child)

    def _spawn(self, child: Child) -> None:
        child.restart_at = 0.0
        child.started_at = time.monotonic()
        child.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mlaas", "--supervised", self.folder / child.name, *child.arguments],
            stdin=subprocess.PIPE,
            pass_fds=child.pass_fds,
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches only this process, which stops the children in order
        )


def _wait_or_kill(child: Child, timeout_s: float) -> None:
    try:
        child.process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _log.warning("%s did not stop in time; killing it", child.name)
        child.process.kill()
        child.process.wait()
    if child.process.stdin:
        child.process.stdin.close()


def end_with_parent() -> None:
    """Makes this process terminate once its supervisor is gone: the pipe on standard input closes."""

    def wait_for_end() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="end-with-parent", daemon=True).start()
