"""Putting load on a system. Everything that asks runs in a process of its own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from bench import usage, wrk
from bench.probe import answers
from bench.report import Case
from bench.rounds import Cell
from bench.systems import System
from mlaas.load.exchange import exchanges
from mlaas.load.tally import Result
from tests.e2e.services import ROOT, SAMPLES

Printed = TypeVar("Printed")

_SLACK_S = 120.0
_CONNECTIONS = 64


class AskingFailed(Exception):
    """What asked ended without a result; the message says why."""


def ask(system: System, case: Case, seconds: float, pictures: Sequence[Path] = SAMPLES) -> Cell:
    """For so many seconds, when what an earlier load left behind is done. Raises AskingFailed."""
    (first,) = exchanges(
        system.urls[case.body], [pictures[0].read_bytes()], body=case.body, proof=system.proof
    )
    if not answers(first):
        raise AskingFailed("a picture by itself was not answered")
    before = system.cpu_s()
    result = _ask(system, case, seconds, pictures)
    if not result.answers:
        raise AskingFailed(f"no answers: {result.errors}")
    return Cell(result, usage.per_request_ms(before, system.cpu_s(), result.answers), seconds)


def warm_up(system: System, seconds: float) -> None:
    """Every answer is checked. Raises AskingFailed if one is wrong."""
    case = Case(system="", body=system.body, clients=32, generator="mlaas.load")
    for body in system.urls:
        result = ask(system, msgspec.structs.replace(case, body=body), seconds / len(system.urls)).result
        if wrong := result.errors.get("not the answer to this request"):
            raise AskingFailed(f"{wrong} wrong answers")


def start_asking(
    system: System, case: Case, seconds: float, pictures: Sequence[Path]
) -> "subprocess.Popen[bytes]":
    """In the background: see load_command."""
    return subprocess.Popen(_load_command(system, case, seconds, pictures), cwd=ROOT, stdout=subprocess.PIPE)


def printed(command: Sequence[str], kind: type[Printed], timeout_s: float = _SLACK_S) -> Printed:
    """What a command of ours prints as JSON. Raises AskingFailed."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise AskingFailed(f"{command[2]} did not end") from None
    if done.returncode:
        raise AskingFailed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given")
    return msgspec.json.decode(done.stdout, type=kind)


def _ask(system: System, case: Case, seconds: float, pictures: Sequence[Path]) -> Result:
    if case.generator == "wrk" and wrk.is_there():
        url = system.urls[case.body]
        given = exchanges(url, [path.read_bytes() for path in pictures], body=case.body)
        try:
            return wrk.closed_loop(url, given, clients=case.clients, seconds=seconds)
        except subprocess.CalledProcessError as error:
            raise AskingFailed(f"wrk ended with code {error.returncode}") from error
    return printed(_load_command(system, case, seconds, pictures), Result, seconds + _SLACK_S)


def _load_command(system: System, case: Case, seconds: float, pictures: Sequence[Path]) -> list[str]:
    rate = ["--rate", str(case.rate_per_s)] if case.rate_per_s else []
    load = ["--clients", str(case.clients or _CONNECTIONS), *rate]
    proof = [] if system.proof else ["--any-answer"]
    options = [*load, "--seconds", str(seconds), "--body", case.body, *proof]
    return [sys.executable, "-m", "bench.load", system.urls[case.body], *map(str, pictures), *options]
