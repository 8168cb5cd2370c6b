"""Figures out of what several rounds found. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from bench.report import Case, Figure, Row
from mlaas.load.tally import Result

Rounds = Mapping[int, float]
"""A value for each round that has one."""


class Cell(msgspec.Struct, frozen=True):
    """A case in one round."""

    result: Result
    cpu_ms: dict[str, float]
    seconds: float


def figure(rounds: Rounds) -> Figure:
    """Of at least one value."""
    values = list(rounds.values())
    kept = {number: _rounded(value) for number, value in rounds.items()}
    return Figure(*map(_rounded, (median(values), min(values), max(values))), kept)


def ratio(above: Figure, below: Figure) -> Figure | None:
    """Taken within each round, so that a drift of the machine cancels out. None without a common round."""
    common = [number for number in above.rounds if below.rounds.get(number)]
    rounds = {number: above.rounds[number] / below.rounds[number] for number in common}
    return figure(rounds) if rounds else None


def row(case: Case, cells: Mapping[int, Cell]) -> Row:
    results = [cell.result for cell in cells.values()]
    roles = sorted({role for cell in cells.values() for role in cell.cpu_ms})
    return Row(
        case=case,
        requests_per_s=figure({number: cell.result.requests_per_s for number, cell in cells.items()}),
        p50_ms=figure({number: cell.result.p50_ms for number, cell in cells.items()}),
        p99_ms=figure({number: cell.result.p99_ms for number, cell in cells.items()}),
        max_ms=_rounded(max(result.max_ms for result in results)),
        answers=sum(result.answers for result in results),
        errors=dict(sum((Counter(result.errors) for result in results), Counter())),
        quantiles_ms=_medians([result.quantiles_ms for result in results]),
        cpu_ms={role: figure({n: cell.cpu_ms.get(role, 0.0) for n, cell in cells.items()}) for role in roles},
        generator_cores=_rounded(
            median(cell.result.generator_cpu_s / cell.seconds for cell in cells.values())
        ),
    )


def _medians(columns: Sequence[Sequence[float]]) -> list[float]:
    return [_rounded(median(values)) for values in zip(*columns, strict=True)]


def _rounded(value: float) -> float:
    """Four significant digits, which is more than a second run repeats."""
    return float(f"{value:.4g}")
