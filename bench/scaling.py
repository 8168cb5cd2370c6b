"""What so many requests a second need, worked out from what one request costs. Pure."""

from collections.abc import Mapping
from math import ceil

from bench.figures import plainest
from bench.report import KAFKA, Report, Row
from bench.systems import BROKER, CONSUMER, GATEWAY, MODEL
from bench.tables import number, table

RATES = (1_000, 10_000, 100_000, 1_000_000)
UTILISATION = 0.6
REPLICATION_COST = 2.0
BROKER_CORES = 8
MESSAGE_KB = 1.0
MEMBERS_OF_A_GROUP = 500
_STEP = 12


def markdown(report: Report) -> str:
    row = plainest(report, KAFKA, 64)
    if row is None or not row.cpu_ms:
        return "Not measured."
    cost_ms = {role: figure.median for role, figure in row.cpu_ms.items()}
    return "\n\n".join([_costs(row, cost_ms), _needs(cost_ms), _limits(cost_ms)])


def gateways(rate: float, cost_ms: Mapping[str, float]) -> int:
    """Processes; one uses one core at most."""
    return ceil(rate * cost_ms[GATEWAY] / 1000 / UTILISATION)


def workers(rate: float, cost_ms: Mapping[str, float]) -> int:
    """Each a consumer and a model process, which use one core each at most; the dearer one is the limit."""
    return ceil(rate * max(cost_ms[CONSUMER], cost_ms[MODEL]) / 1000 / UTILISATION)


def partitions(rate: float, cost_ms: Mapping[str, float]) -> int:
    """Of requests and of replies: two for each worker, two for each gateway, a multiple of twelve."""
    return _STEP * ceil(2 * max(workers(rate, cost_ms), gateways(rate, cost_ms)) / _STEP)


def broker_cores(rate: float, cost_ms: Mapping[str, float], replication: int) -> float:
    """REPLICATION_COST is an estimate for three copies of everything."""
    return rate * cost_ms[BROKER] / 1000 / UTILISATION * (REPLICATION_COST if replication > 1 else 1.0)


def brokers(rate: float, cost_ms: Mapping[str, float]) -> int:
    return max(3, ceil(broker_cores(rate, cost_ms, 3) / BROKER_CORES))


def _costs(row: Row, cost_ms: Mapping[str, float]) -> str:
    parts = (GATEWAY, BROKER, CONSUMER, MODEL)
    whole = sum(cost_ms[role] for role in parts)
    lines = [[role, number(cost_ms[role]), number(1000 / max(cost_ms[role], 1e-3))] for role in parts]
    lines.append(["together", number(whole), number(1000 / whole)])
    told = (
        f"Measured with {row.case.clients} clients and one worker, one broker, "
        f"{number(row.requests_per_s.median)} requests/s:"
    )
    return f"{told}\n\n{table(['part', 'CPU ms a request', 'requests/s of one core'], lines)}"


def _needs(cost_ms: Mapping[str, float]) -> str:
    header = [
        "requests/s",
        "gateways",
        "workers",
        "partitions of each topic",
        "brokers",
        "cores in all",
        "MB/s in",
    ]
    lines = []
    for rate in RATES:
        cores = rate * sum(cost_ms[role] for role in (GATEWAY, CONSUMER, MODEL)) / 1000 / UTILISATION
        lines.append(
            [
                f"{rate:,}",
                f"{gateways(rate, cost_ms):,}",
                f"{workers(rate, cost_ms):,}",
                f"{partitions(rate, cost_ms):,}",
                f"{brokers(rate, cost_ms):,}",
                number(ceil(cores + broker_cores(rate, cost_ms, 3))),
                number(2 * rate * MESSAGE_KB / 1000),
            ]
        )
    told = (
        f"With every process at {UTILISATION:.0%} of a core, brokers of {BROKER_CORES} cores, three copies "
        f"of each message at {REPLICATION_COST:g} times the broker's cost (an estimate), and {MESSAGE_KB:g} "
        "kB for a picture as for an answer:"
    )
    return f"{told}\n\n{table(header, lines)}"


def _limits(cost_ms: Mapping[str, float]) -> str:
    of_gateway = UTILISATION * 1000 / cost_ms[GATEWAY]
    of_worker = UTILISATION * 1000 / max(cost_ms[CONSUMER], cost_ms[MODEL])
    of_group = of_worker * MEMBERS_OF_A_GROUP
    dearer = MODEL if cost_ms[MODEL] >= cost_ms[CONSUMER] else CONSUMER
    lines = [
        [
            "one gateway",
            number(of_gateway),
            "its event loop is one thread",
            "another: `--gateways`, or behind the balancer",
        ],
        ["one worker", number(of_worker), f"its {dearer}", "another worker: `--workers`, or a replica"],
        [
            "12 partitions",
            number(12 * of_worker),
            "a partition goes to one worker",
            "`topics.partitions`, before the first start",
        ],
        [
            f"one group of {MEMBERS_OF_A_GROUP} workers",
            number(of_group),
            "every change of members goes by one coordinator",
            "another cell: topics, workers and gateways of its own",
        ],
    ]
    return "Where the next limit is:\n\n" + table(["of", "requests/s", "because", "then"], lines)
