"""What a process takes."""

import re
from collections.abc import Iterable
from pathlib import Path


def memory_mib(pids: Iterable[int]) -> float:
    """Resident, of all of them; 0 for those that are gone."""
    return sum(map(_resident_mib, pids))


def threads(pids: Iterable[int]) -> int:
    return sum(_entries(pid, "task") for pid in pids)


def descriptors(pids: Iterable[int]) -> int:
    return sum(_entries(pid, "fd") for pid in pids)


def _entries(pid: int, folder: str) -> int:
    return len(list(Path(f"/proc/{pid}/{folder}").glob("*")))


def _resident_mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
