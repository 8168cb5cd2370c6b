"""Load on a system from wrk, or from the generator of `mlaas bench` in a process of its own.

wrk needs a tenth of the CPU time of a generator in Python, but has no open loop.

    python -m bench.load URL samples/*.png --clients 64    prints a Result as JSON
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import msgspec

from bench.report import ROOT, Body, Case, Cell
from bench.systems import System, per_request_ms
from mlaas.commands.bench import Exchange, Result, exchange, form, raw, run
from tests.e2e.services import SAMPLES

Printed = TypeVar("Printed")

_SLACK_S = 120.0
_CONNECTIONS = 64
_WRK_SCRIPT = Path(__file__).with_name("wrk.lua")


class AskingFailed(Exception):
    """A load generator produced no result. The message is the reason."""


class WrkPrinted(msgspec.Struct, frozen=True):
    """The output of wrk.lua. status counts answers other than 2xx and 3xx."""

    requests: int
    duration_us: int
    connect: int
    read: int
    write: int
    status: int
    timeout: int
    quantiles_us: list[float]


def ask(system: System, case: Case, seconds: float, pictures: Sequence[Path] = SAMPLES) -> Cell:
    """Run a load after requests of earlier loads are done. Raises AskingFailed."""
    url = system.urls[case.body]
    _drain(system, case.body, pictures[0])
    before = system.cpu_s()
    if case.generator == "wrk" and wrk_is_installed():
        given = exchanges(url, [path.read_bytes() for path in pictures], case.body)
        result = by_wrk(url, given, clients=case.clients, seconds=seconds)
    else:
        result = printed(_command(system, case, seconds, pictures), Result, seconds + _SLACK_S)
    if not result.answers:
        raise AskingFailed(f"no answers: {result.errors}")
    return Cell(result, per_request_ms(before, system.cpu_s(), result.answers), seconds)


def warm_up(system: System, seconds: float, pictures: Sequence[Path] = SAMPLES) -> None:
    """Warm up, checking every answer. Raises AskingFailed if one is wrong."""
    for body in system.urls:
        case = Case(system="", body=body, clients=32, generator="mlaas bench")
        result = ask(system, case, seconds / len(system.urls), pictures).result
        if wrong := result.errors.get("not the answer to this request"):
            raise AskingFailed(f"{wrong} wrong answers")


def start(system: System, case: Case, seconds: float, pictures: Sequence[Path]) -> "subprocess.Popen[bytes]":
    """Start a load in the background."""
    return subprocess.Popen(_command(system, case, seconds, pictures), cwd=ROOT, stdout=subprocess.PIPE)


def exchanges(url: str, pictures: Iterable[bytes], body: Body = "raw", proof: bool = True) -> list[Exchange]:
    """An exchange for each picture. With proof, answers must have the picture's SHA-256 digest."""
    return [exchange(url, *_made(body, one), proof=one if proof else b"") for one in pictures]


def _made(body: Body, picture: bytes) -> tuple[str, bytes]:
    if body in ("raw", "form"):
        return raw(picture) if body == "raw" else form(picture)
    text = base64.b64encode(picture).decode()
    tensor = {"name": "pictures", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    document = {"inputs": [tensor]} if body == "oip" else {"pictures": [text]}
    return "application/json", json.dumps(document).encode()


def _drain(system: System, body: Body, picture: Path) -> None:
    """Send one request and wait for its answer, which comes after those of earlier requests."""
    url = system.urls[body]
    given = exchanges(url, [picture.read_bytes()], body, system.proof)
    result = run(url, given, clients=1, seconds=_SLACK_S, count=1)
    if not result.answers:
        raise AskingFailed(f"a picture by itself was not answered: {result.errors}")


def wrk_is_installed() -> bool:
    return shutil.which("wrk") is not None


def by_wrk(url: str, given: Sequence[Exchange], *, clients: int, seconds: float) -> Result:
    """A closed loop on one thread. Only statuses of answers are checked. Raises AskingFailed."""
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(given, 1):
            Path(folder, str(number)).write_bytes(one.request)
        times = os.times()
        ended = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(clients), "--timeout", "30s"),
                *("--duration", f"{max(1, round(seconds))}s", "--script", str(_WRK_SCRIPT), url),
            ],
            env={**os.environ, "REQUESTS": folder},
            stdout=subprocess.PIPE,
        )
        after = os.times()
    if ended.returncode:
        raise AskingFailed(f"wrk ended with code {ended.returncode}")
    cpu_s = after.children_user + after.children_system - times.children_user - times.children_system
    return wrk_result(msgspec.json.decode(ended.stdout.splitlines()[-1], type=WrkPrinted), cpu_s)


def wrk_result(found: WrkPrinted, cpu_s: float) -> Result:
    counted = {
        "not 200": found.status,
        "no connection": found.connect,
        "closed": found.read + found.write,
        "no answer": found.timeout,
    }
    quantiles_ms = [value / 1000 for value in found.quantiles_us]
    answers = found.requests - found.status
    return Result(
        answers=answers,
        requests_per_s=answers / (found.duration_us / 1e6),
        p50_ms=quantiles_ms[50],
        p90_ms=quantiles_ms[90],
        p99_ms=quantiles_ms[99],
        max_ms=quantiles_ms[100],
        errors={kind: count for kind, count in counted.items() if count},
        quantiles_ms=quantiles_ms,
        generator="wrk",
        generator_cpu_s=cpu_s,
    )


def printed(command: Sequence[str], kind: type[Printed], timeout_s: float = _SLACK_S) -> Printed:
    """Decode the JSON that a command prints. Raises AskingFailed."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise AskingFailed(f"{command[2]} did not end") from None
    if done.returncode:
        raise AskingFailed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given")
    return msgspec.json.decode(done.stdout, type=kind)


def _command(system: System, case: Case, seconds: float, pictures: Sequence[Path]) -> list[str]:
    rate = ["--rate", str(case.rate_per_s)] if case.rate_per_s else []
    load = ["--clients", str(case.clients or _CONNECTIONS), *rate, "--seconds", str(seconds)]
    options = [*load, "--body", case.body, *([] if system.proof else ["--any-answer"])]
    return [sys.executable, "-m", "bench.load", system.urls[case.body], *map(str, pictures), *options]


def main() -> None:
    parser = argparse.ArgumentParser(description="Send pictures repeatedly and print the result as JSON.")
    parser.add_argument("url")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, help="requests a second in an open loop")
    parser.add_argument("--body", choices=get_args(Body), default="raw", help="how the picture is sent")
    parser.add_argument("--any-answer", action="store_true", help="accept every 200, whatever its body")
    chosen = parser.parse_args()
    pictures = [path.read_bytes() for path in chosen.pictures]
    given = exchanges(chosen.url, pictures, chosen.body, not chosen.any_answer)
    result = run(chosen.url, given, clients=chosen.clients, seconds=chosen.seconds, rate_per_s=chosen.rate)
    if not result.answers:
        sys.exit(f"{chosen.url} answered nothing: {result.errors}")
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
