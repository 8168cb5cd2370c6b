"""Finding figures in a report. Pure."""

from bench.report import Case, Figure, Report, Row
from bench.rounds import figure
from mlaas.load.bodies import Body

CLIENTS = (1, 16, 64, 256)


def row_of(
    report: Report, system: str, clients: int = 0, *, body: Body = "raw", workers: int = 1, rate: float = 0.0
) -> Row | None:
    """By wrk where there are several generators."""
    wanted = (system, clients, body, workers, rate)
    found = [row for row in report.rows if _key(row.case) == wanted]
    return min(found, key=lambda row: row.case.generator != "wrk", default=None)


def plainest(report: Report, system: str, clients: int, workers: int = 1) -> Row | None:
    """By whatever body the system takes that is not a form, if there is one."""
    found = [
        row
        for row in report.rows
        if (row.case.system, row.case.clients, row.case.workers) == (system, clients, workers)
        and row.case.body != "form"
    ]
    return min(found, key=lambda row: row.case.generator != "wrk", default=None)


def best(report: Report, system: str) -> Row | None:
    """Most requests a second, whatever the number of clients and workers; forms left out."""
    found = [row for row in report.rows if row.case.system == system and row.case.body != "form"]
    return max(found, key=lambda row: row.requests_per_s.median, default=None)


def total(figures: list[Figure | None]) -> Figure | None:
    """Their sum within each round; None if one is missing."""
    there = [one for one in figures if one is not None]
    if len(there) < len(figures) or not there:
        return None
    common = set.intersection(*(set(one.rounds) for one in there))
    return figure({n: sum(one.rounds[n] for one in there) for n in sorted(common)}) if common else None


def _key(case: Case) -> tuple[str, int, Body, int, float]:
    return case.system, case.clients, case.body, case.workers, case.rate_per_s
