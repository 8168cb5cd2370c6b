"""The outcome of a scenario: its checks, and the file that outcomes are written to."""

import operator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from bench.report import ROOT, machine, versions
from tests.faults.asking import Verdict

RESULTS = ROOT / "bench" / "results" / "faults.json"

Comparison = Literal["<=", ">=", "=="]
_COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


class Check(msgspec.Struct, frozen=True):
    """A value and its limit. unit is "s" for durations, which grow on a busy machine."""

    name: str
    value: float
    comparison: Comparison
    limit: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        return bool(_COMPARE[self.comparison](self.value, self.limit))

    def __str__(self) -> str:
        sign = self.comparison if self.passed else f"NOT {self.comparison}"
        return f"{self.name} {self.value:g} {self.unit}{' ' if self.unit else ''}{sign} {self.limit:g}"


class Outcome(msgspec.Struct, frozen=True):
    name: str
    passed: bool
    checks: list[Check]
    numbers: dict[str, object]
    seconds: float = 0.0

    def __str__(self) -> str:
        mark = "pass" if self.passed else "FAIL"
        return f"{mark}  {self.name:18} {self.seconds:6.0f} s  " + "; ".join(map(str, self.checks))


class Report(msgspec.Struct, frozen=True):
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    command: str
    date: str
    scenarios: list[Outcome]


def outcome(checks: list[Check], numbers: dict[str, object]) -> Outcome:
    """play() adds the name and the duration."""
    return Outcome("", all(check.passed for check in checks), checks, numbers)


def none(name: str, value: float) -> Check:
    return Check(name, value, "==", 0)


def most(name: str, value: float, limit: float) -> Check:
    return Check(name, round(value, 4), "<=", limit)


def within_s(name: str, value: float, limit: float) -> Check:
    return Check(name, round(value, 3), "<=", limit, "s")


def least(name: str, value: float, limit: float) -> Check:
    return Check(name, round(value, 5), ">=", limit)


def one_right_answer_each(judged: Verdict, share_of_200: float = 0.0) -> list[Check]:
    """share_of_200: at least this share must be answered 200, if it is given."""
    return [
        none("lost", judged.lost),
        none("wrong", judged.wrong),
        none("double", judged.double),
        within_s("latest after its deadline", judged.latest_s, 1.0),
        *([least("answered 200, share", judged.share(200), share_of_200)] if share_of_200 else []),
    ]


def write(outcomes: list[Outcome], command: str, path: Path = RESULTS) -> None:
    """Replace the outcomes of these scenarios and keep those of the others."""
    before = msgspec.json.decode(path.read_bytes(), type=Report).scenarios if path.exists() else []
    played = {each.name for each in outcomes}
    kept = [each for each in before if each.name not in played]
    scenarios = sorted([*kept, *outcomes], key=lambda each: each.name)
    date = datetime.now(UTC).date().isoformat()
    report = Report(machine(), versions(), command, date, scenarios)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
