"""From single results to the figures that are kept. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from mlaas.load.tally import Result

KAFKA, EMBEDDED, BARE = "Apache Kafka", "embedded broker", "bare uvicorn"


class Case(msgspec.Struct, frozen=True):
    """Some clients at once, and whether they send forms or the picture itself."""

    system: str
    clients: int
    form: bool = False


class Figure(msgspec.Struct, frozen=True):
    median: float
    least: float
    most: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One case over all repeats: medians, but the worst latency and the sum of the errors."""

    system: str
    clients: int
    body: str
    requests_per_s: Figure
    p50_ms: Figure
    p90_ms: float
    p99_ms: float
    max_ms: float
    answers: int
    errors: dict[str, int]


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """From `mlaas up` to its ready line, and each process's memory after the measurements."""

    system: str
    ready_s: Figure
    resident_mib: dict[str, float]


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    value: float
    target: str
    met: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    command: str
    date: str
    repeats: int
    seconds: float
    rows: list[Row]
    starts: list[Start]
    aims: list[Aim]


def figure(values: Sequence[float]) -> Figure:
    return Figure(*(round(value, 2) for value in (median(values), min(values), max(values))))


def row(case: Case, results: Sequence[Result]) -> Row:
    errors = sum((Counter(result.errors) for result in results), Counter())
    return Row(
        system=case.system,
        clients=case.clients,
        body="form" if case.form else "raw",
        requests_per_s=figure([result.requests_per_s for result in results]),
        p50_ms=figure([result.p50_ms for result in results]),
        p90_ms=round(median(result.p90_ms for result in results), 2),
        p99_ms=round(median(result.p99_ms for result in results), 2),
        max_ms=round(max(result.max_ms for result in results), 2),
        answers=sum(result.answers for result in results),
        errors=dict(errors),
    )


def start(system: str, ready_s: Sequence[float], resident_mib: Sequence[Mapping[str, float]]) -> Start:
    names = resident_mib[0]
    middle = {name: median(each[name] for each in resident_mib) for name in names}
    return Start(system=system, ready_s=figure(ready_s), resident_mib=middle)


def aims(rows: Sequence[Row], starts: Sequence[Start]) -> list[Aim]:
    by_case = {(row.system, row.clients, row.body): row for row in rows}
    ready_s = next(start.ready_s.median for start in starts if start.system == EMBEDDED)
    one = by_case[KAFKA, 1, "raw"]
    many = by_case[KAFKA, 64, "raw"]
    alone = by_case[EMBEDDED, 1, "raw"]
    return [
        _at_most("seconds from `mlaas up` to ready", ready_s, 6),
        _at_most(f"{KAFKA}, 1 client, median ms", one.p50_ms.median, 10),
        _at_least(f"{KAFKA}, 64 clients, raw body, requests/s", many.requests_per_s.median, 1000),
        _at_most(f"{KAFKA}, 64 clients, raw body, errors", sum(many.errors.values()), 0),
        _at_most(f"{EMBEDDED}, 1 client, median ms", alone.p50_ms.median, 8),
    ]


def _at_most(name: str, value: float, target: float) -> Aim:
    return Aim(name=name, value=value, target=f"<= {target:g}", met=value <= target)


def _at_least(name: str, value: float, target: float) -> Aim:
    return Aim(name=name, value=value, target=f">= {target:g}", met=value >= target)
