"""What processes take, by what they are for. From /proc and ps, so on Linux alone."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.e2e.services import descendants

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Roles = Mapping[str, list[int]]
"""Process ids by what they are for."""


def roles(root: int, parts: Mapping[str, str], otherwise: str) -> dict[str, list[int]]:
    """The process and its descendants; parts: what in a command line says what it is for."""
    found: dict[str, list[int]] = {otherwise: [root]}
    for pid, command in descendants(root).items():
        role = next((role for part, role in parts.items() if part in f"{command} "), otherwise)
        found.setdefault(role, []).append(pid)
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time so far; 0 for those that are gone."""
    return sum(map(_cpu_s, pids))


def memory_mb(pids: Iterable[int]) -> float:
    """Resident, in megabytes; 0 for those that are gone. Pages that several share count in each."""
    return sum(map(_resident_mb, pids))


def per_request_ms(before: Mapping[str, float], after: Mapping[str, float], answers: int) -> dict[str, float]:
    """CPU milliseconds by role."""
    return {role: (after[role] - before[role]) * 1000 / answers for role in before if role in after}


def _cpu_s(pid: int) -> float:
    fields = _fields(pid, "stat")
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def _resident_mb(pid: int) -> float:
    fields = _fields(pid, "statm")
    return int(fields[1]) * _PAGE_BYTES / 1e6 if fields else 0.0


def _fields(pid: int, name: str) -> list[str]:
    """After the command, which may hold blanks."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text().rpartition(")")[2].split()
    except OSError:
        return []
