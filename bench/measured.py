"""What a run has found so far. Kept on disk as it grows, so that a run that is cut off is not lost."""

import os
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import aims, machine, names, rounds
from bench.report import Case, Failed, Report, Scale
from bench.rounds import Cell

QUIET_LOAD = 0.7


class Measured:
    def __init__(self, asked_rounds: int, seconds: float, partial: Path) -> None:
        """asked_rounds and seconds: what was asked for. partial: where to keep what there is."""
        self.round = 0
        self.notes: list[str] = []
        self.scales: list[Scale] = []
        self._machine = machine.machine()
        self._started = time.monotonic()
        self._rounds, self._seconds, self._partial = asked_rounds, seconds, partial
        self._cells: dict[Case, dict[int, Cell]] = defaultdict(dict)
        self._values: dict[str, dict[int, float]] = defaultdict(dict)
        self._failed: list[Failed] = []
        if os.getloadavg()[0] > QUIET_LOAD:
            self.notes.append("The machine was not quiet before: other work took part of the processor.")

    @property
    def took_s(self) -> float:
        return time.monotonic() - self._started

    def cell(self, case: Case, cell: Cell) -> None:
        self._cells[case][self.round] = cell
        say(f"  {words(case)}: {cell.result.requests_per_s:.0f}/s, median {cell.result.p50_ms:.2f} ms")

    def value(self, name: str, value: float, number: int | None = None) -> None:
        """In this round, or under a number of its own where a value is taken several times at once."""
        self._values[name][self.round if number is None else number] = value
        say(f"  {name}: {value:.4g}")

    def fails(self, system: str, reason: str) -> None:
        self._failed.append(Failed(system, self.round, reason))
        say(f"  {system}: {reason}")

    def keep(self) -> None:
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        self._partial.write_bytes(encode(self.report()))

    def report(self) -> Report:
        bare = Report(
            machine=self._machine,
            versions=machine.versions(),
            command=" ".join(["python -m bench.run", *sys.argv[1:]]),
            date=datetime.now(UTC).date().isoformat(),
            rounds=self._rounds,
            seconds=self._seconds,
            took_s=round(self.took_s),
            notes=self.notes,
            rows=[rounds.row(case, cells) for case, cells in self._cells.items()],
            values={name: rounds.figure(values) for name, values in self._values.items()},
            scales=self.scales,
            failed=self._failed,
        )
        if least := aims.floor(bare):
            bare.values[names.FLOOR_MS] = least
        return msgspec.structs.replace(bare, ratios=aims.ratios(bare), aims=aims.aims(bare))


def encode(found: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def words(case: Case) -> str:
    load = f"{case.rate_per_s:g} a second" if case.rate_per_s else f"{case.clients} clients"
    return f"{case.system}, workers: {case.workers}, {case.body}, {load}, {case.generator}"
