"""What a scenario found, and whether that is what was asked of it."""

import operator
from typing import Literal

import msgspec

from tests.faults.ledger import Verdict

Comparison = Literal["<=", ">=", "=="]
_COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


class Check(msgspec.Struct, frozen=True):
    """One number, and its limit. unit: "s" for what a busy machine makes longer, else empty."""

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
    """A scenario's result as it is written down."""

    name: str
    passed: bool
    checks: list[Check]
    numbers: dict[str, object]
    seconds: float = 0.0


def outcome(name: str, checks: list[Check], numbers: dict[str, object]) -> Outcome:
    return Outcome(name, all(check.passed for check in checks), checks, numbers)


def none(name: str, value: float) -> Check:
    """There must be none of it."""
    return Check(name, value, "==", 0)


def most(name: str, value: float, limit: float) -> Check:
    return Check(name, round(value, 4), "<=", limit)


def within_s(name: str, value: float, limit: float) -> Check:
    return Check(name, round(value, 3), "<=", limit, "s")


def least(name: str, value: float, limit: float) -> Check:
    return Check(name, round(value, 5), ">=", limit)


def one_right_answer_each(judged: Verdict) -> list[Check]:
    return [
        none("lost", judged.lost),
        none("wrong", judged.wrong),
        none("double", judged.double),
        within_s("latest after its deadline", judged.latest_s, 1.0),
    ]
