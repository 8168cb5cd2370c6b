"""A Python environment for each peer, under .cache/bench, made once for each list of versions."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "bench"
REQUIREMENTS = Path(__file__).parent / "peers" / "requirements"

_INSTALL_TIMEOUT_S = 900


class PeerFailed(Exception):
    """It could not be installed or started; the message is the reason, in a line."""


def python_of(name: str) -> Path:
    """The interpreter of its environment, which is made if it is not there. Raises PeerFailed."""
    wanted = REQUIREMENTS / f"{name}.txt"
    folder = CACHE / f"{name}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for command in _commands(folder, python, wanted):
            _run(command)
        (folder / ".complete").touch()
    return python


def version_of(name: str) -> str:
    """The pinned one."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return next((line.partition("==")[2] for line in lines if line.startswith(f"{name}==")), "unknown")


def _commands(folder: Path, python: Path, wanted: Path) -> list[list[str]]:
    if uv := shutil.which("uv"):
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(wanted)],
        ]
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)],
    ]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"not installed within {_INSTALL_TIMEOUT_S} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise PeerFailed(f"not installed: {lines[-1]}")
