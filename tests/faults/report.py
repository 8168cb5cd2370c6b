"""The table, and the file."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.report import ROOT, machine, versions
from tests.faults.outcome import Outcome

RESULTS = ROOT / "bench" / "results" / "faults.json"


class Report(msgspec.Struct, frozen=True):
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    command: str
    date: str
    scenarios: list[Outcome]


def write(outcomes: list[Outcome], command: str, path: Path = RESULTS) -> None:
    """Scenarios that were not played now keep what they had."""
    before = msgspec.json.decode(path.read_bytes(), type=Report).scenarios if path.exists() else []
    played = {each.name for each in outcomes}
    kept = [each for each in before if each.name not in played]
    report = Report(
        machine(),
        versions(),
        command,
        datetime.now(UTC).date().isoformat(),
        sorted([*kept, *outcomes], key=lambda each: each.name),
    )
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def line(found: Outcome) -> str:
    """One row of the table: what was found, and what was asked."""
    mark = "pass" if found.passed else "FAIL"
    return f"{mark}  {found.name:18} {found.seconds:6.0f} s  " + "; ".join(map(str, found.checks))
