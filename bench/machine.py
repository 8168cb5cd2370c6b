"""What the numbers were measured on, and with."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.environments import version_of
from deploy.kafka.jars import POM
from mlaas import __version__


def machine() -> dict[str, str | int | float]:
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": _operating_system(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    packages = ("confluent-kafka", "onnxruntime", "uvicorn", "fastapi", "uvloop", "httptools")
    return {
        "python": platform.python_version(),
        "mlaas": __version__,
        "apache-kafka": _first(r"<kafka.version>(.+?)<", POM) or "unknown",
        **{name: version(name) for name in packages},
        **{name: version_of(name) for name in ("mosec", "litserve", "bentoml", "ray", "mlserver")},
        "wrk": _wrk(),
    }


def _wrk() -> str:
    try:
        said = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout
    except OSError:
        return "none"
    return said.split()[1] if said.startswith("wrk ") else "unknown"


def _cpu() -> str:
    return _first(r"model name\s*: (.+)", Path("/proc/cpuinfo")) or platform.processor() or platform.machine()


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.platform()


def _first(pattern: str, file: Path) -> str | None:
    try:
        found = re.search(pattern, file.read_text())
    except OSError:
        return None
    return found[1] if found else None
