"""Measure mlaas and print the numbers: `python -m bench.run`, or with --quick for one minute of it."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import machine, report, tables
from bench.report import BARE, EMBEDDED, KAFKA, Case, Report
from bench.systems import System, ask, bare, memory_mib, mlaas
from deploy.kafka.jars import missing_tools
from deploy.kafka.local_kafka import LocalKafka
from mlaas.load.tally import Result
from tests.e2e.services import SAMPLES

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "bench.json"
README = HERE / "README.md"

LOADS = [(1, False), (16, False), (64, False), (256, False), (64, True)]
WARM_UP = ("--clients", "64", "--seconds", "3")

Systems = dict[str, Callable[[], AbstractContextManager[System]]]


class Measurements:
    """What each turn adds to."""

    def __init__(self) -> None:
        self.machine = machine.machine()
        self.results: dict[Case, list[Result]] = defaultdict(list)
        self.ready_s: dict[str, list[float]] = defaultdict(list)
        self.resident_mib: dict[str, list[dict[str, float]]] = defaultdict(list)

    def report(self, repeats: int, seconds: float) -> Report:
        cases = [Case(name, *load) for name in (KAFKA, EMBEDDED, BARE) for load in LOADS]
        rows = [report.row(case, self.results[case]) for case in cases]
        starts = [
            report.start(name, self.ready_s[name], self.resident_mib[name]) for name in (KAFKA, EMBEDDED)
        ]
        return Report(
            machine=self.machine,
            versions=machine.versions(),
            command=" ".join(["python -m bench.run", *sys.argv[1:]]),
            date=datetime.now(UTC).date().isoformat(),
            repeats=repeats,
            seconds=seconds,
            rows=rows,
            starts=starts,
            aims=report.aims(rows, starts),
        )


def measure(repeats: int, seconds: float) -> Report:
    """All systems in turn, next time in the opposite order, so that a drift of the machine cancels out."""
    measured = Measurements()
    with LocalKafka() as kafka:
        systems: Systems = {
            KAFKA: lambda: mlaas(f"kafka://{kafka.bootstrap_servers}"),
            EMBEDDED: lambda: mlaas("embedded://"),
            BARE: bare,
        }
        with mlaas("embedded://"):
            pass  # from now on all files are warm
        for turn in range(repeats):
            for name in sorted(systems, reverse=turn % 2 == 1):
                with systems[name]() as system:
                    _measure(name, system, seconds, measured)
    return measured.report(repeats, seconds)


def _measure(name: str, system: System, seconds: float, into: Measurements) -> None:
    options = ["--any-answer"] if name == BARE else []
    ask(system, SAMPLES, *WARM_UP, *options)
    for clients, form in LOADS:
        case = Case(name, clients, form)
        as_form = ["--form"] if form else []
        result = ask(
            system, SAMPLES, "--clients", str(clients), "--seconds", str(seconds), *as_form, *options
        )
        into.results[case].append(result)
        _say(f"{name}, clients: {clients}{', form' if form else ''}: {result.requests_per_s:.0f} requests/s")
    into.ready_s[name].append(system.ready_s)
    into.resident_mib[name].append(memory_mib(system))


def _write(measured: Report) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n")
    page = README.read_text(encoding="utf-8")
    README.write_text(tables.between_markers(page, tables.markdown(measured)), encoding="utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure mlaas. Keep the machine quiet meanwhile.")
    parser.add_argument("--quick", action="store_true", help="one minute; prints, and writes nothing")
    quick = parser.parse_args(arguments).quick
    if problem := missing_tools():
        sys.exit(problem)
    measured = measure(repeats=1, seconds=2) if quick else measure(repeats=3, seconds=10)
    print(tables.markdown(measured))
    if not quick:
        _write(measured)
    missed = [aim.name for aim in measured.aims if not aim.met]
    _say(f"Missed: {'; '.join(missed)}." if missed else "All aims are met.")


if __name__ == "__main__":
    main()
