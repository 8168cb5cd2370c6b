"""The load generator wrk, which takes a tenth of what one in Python does: closed loop, one thread."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlaas.load.exchange import Exchange
from mlaas.load.tally import Result

_SCRIPT = Path(__file__).with_suffix(".lua")
_TIMEOUT = "30s"


class Printed(msgspec.Struct, frozen=True):
    """What wrk.lua prints. status counts the answers that are not 2xx or 3xx; they are among the requests."""

    requests: int
    duration_us: int
    connect: int
    read: int
    write: int
    status: int
    timeout: int
    quantiles_us: list[float]


def is_there() -> bool:
    return shutil.which("wrk") is not None


def closed_loop(url: str, given: Sequence[Exchange], *, clients: int, seconds: float) -> Result:
    """Answers are counted by status alone; what is under way at the end is given up."""
    with tempfile.TemporaryDirectory() as folder:
        for number, exchange in enumerate(given, 1):
            Path(folder, str(number)).write_bytes(exchange.request)
        cpu_before_s = _cpu_of_children_s()
        ended = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(clients), "--timeout", _TIMEOUT),
                *("--duration", f"{max(1, round(seconds))}s", "--script", str(_SCRIPT), url),
            ],
            env={**os.environ, "REQUESTS": folder},
            stdout=subprocess.PIPE,
            check=True,
        )
    printed = msgspec.json.decode(ended.stdout.splitlines()[-1], type=Printed)
    return to_result(printed, _cpu_of_children_s() - cpu_before_s)


def to_result(printed: Printed, cpu_s: float) -> Result:
    counted = {
        "not 200": printed.status,
        "no connection": printed.connect,
        "closed": printed.read + printed.write,
        "no answer": printed.timeout,
    }
    quantiles_ms = [value / 1000 for value in printed.quantiles_us]
    answers = printed.requests - printed.status
    return Result(
        answers=answers,
        requests_per_s=answers / (printed.duration_us / 1e6),
        p50_ms=quantiles_ms[50],
        p90_ms=quantiles_ms[90],
        p99_ms=quantiles_ms[99],
        max_ms=quantiles_ms[100],
        errors={kind: count for kind, count in counted.items() if count},
        quantiles_ms=quantiles_ms,
        generator="wrk",
        generator_cpu_s=cpu_s,
    )


def _cpu_of_children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system
