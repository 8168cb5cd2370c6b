"""Reports of runs that never were."""

from bench.report import KAFKA, Case, Figure, Report, Row, figure
from bench.systems import BROKER, CONSUMER, GATEWAY, MODEL

COST_MS = {GATEWAY: 0.2, BROKER: 0.1, CONSUMER: 0.1, MODEL: 0.3}


def rounds(*values: float) -> Figure:
    return figure(dict(enumerate(values, 1)))


def row(system: str, *per_s: float, cpu_ms: dict[str, float] | None = None, p50_ms=5.0, **case) -> Row:
    return Row(
        case=Case(system=system, **{"clients": 64, **case}),
        requests_per_s=rounds(*per_s),
        p50_ms=rounds(p50_ms),
        p99_ms=rounds(2 * p50_ms),
        max_ms=30.0,
        answers=100,
        errors={},
        quantiles_ms=[1.0, 2.0, 3.0],
        cpu_ms={role: rounds(value) for role, value in (cpu_ms or {}).items()},
        generator_cores=0.1,
    )


def ours(*per_s: float, **case) -> Row:
    return row(KAFKA, *per_s, cpu_ms=COST_MS, **case)


def report(*rows: Row, **changed) -> Report:
    values = {
        "machine": {"cpu": "any", "cores": 2, "memory_gib": 4, "os": "any", "load_average_before": 0},
        "versions": {"python": "3"},
        "command": "python -m bench.run",
        "date": "2026-01-01",
        "rounds": 3,
        "seconds": 3,
        "took_s": 60,
        "notes": [],
        "values": {},
        "scales": [],
        "failed": [],
    }
    return Report(rows=list(rows), **{**values, **changed})
