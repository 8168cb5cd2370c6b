"""A report as Markdown: the tables of the bench, and what it takes to serve more requests a second."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

from bench.report import GARMENTS, KAFKA, Aim, Case, Figure, Report, Row
from bench.systems import BROKER, CONSUMER, GATEWAY, MODEL

LOW_RATE_PER_S = 50.0
RATES = (1_000, 10_000, 100_000, 1_000_000)
UTILISATION = 0.6
REPLICATION_COST = 2.0
BROKER_CORES = 8
MESSAGE_KB = 1.0
MEMBERS_OF_A_GROUP = 500
EXAMPLE_PRICE = 0.05
"""Of a core-hour, in USD."""
_STEP = 12


def markdown(report: Report) -> str:
    first = [_origin(report), _aims(report), _parts_of_a_request(report), _load(report), _ratios(report)]
    return "\n\n".join(part for part in [*first, _values(report), _scales(report), _failed(report)] if part)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty without rows."""
    lines = [list(row) for row in rows]
    every = [header, ["---"] * len(header), *lines] if lines else []
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


def number(value: float) -> str:
    """Three significant digits, or whole numbers from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(figure: Figure | None) -> str:
    if figure is None:
        return "not measured"
    if len(figure.rounds) < 2:
        return number(figure.median)
    return f"{number(figure.median)} ({number(figure.least)}–{number(figure.most)})"


def _origin(report: Report) -> str:
    machine, versions = report.machine, report.versions
    return "\n".join(
        [
            f"{report.date}, `{report.command}`, {report.took_s / 60:.0f} minutes: {machine['cpu']}, "
            f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['os']}, load average "
            f"{machine['load_average_before']} before. "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
            + ".",
            f"{report.rounds} x {report.seconds:g} s for each load"
            + (f" that an aim is about, {report.shorter_s:g} s for the others" if report.shorter_s else "")
            + ". Medians over the rounds; "
            "in brackets the least and the most.",
            *report.notes,
        ]
    )


def _aims(report: Report) -> str:
    return table(
        ["what", "measured", "gate", "met", "aim", "met"],
        ([aim.name, spread(aim.value), *_gate(aim), aim.target, _is_met(aim.met)] for aim in report.aims),
    )


def _gate(aim: Aim) -> tuple[str, str]:
    return (aim.gate, _is_met(aim.gate_met)) if aim.gate else ("", "")


def _is_met(met: bool) -> str:
    return "yes" if met else "**no**"


def _parts_of_a_request(report: Report) -> str:
    row = report.plainest(KAFKA, 64)
    costs = row.cpu_ms if row else {}
    return table(
        ["part, 64 clients", "CPU ms a request"], ([role, spread(its)] for role, its in costs.items())
    )


def _load(report: Report) -> str:
    load = ["system", "workers", "body", "load"]
    header = [*load, "requests/s", "p50 ms", "p99 ms", "CPU ms a request", "errors"]
    ordered = sorted(report.rows, key=lambda row: _order(row.case))
    failed = [
        [each.system, "", "", "", f"round {each.round}: {each.reason}", *([""] * 4)] for each in report.failed
    ]
    return table(header, [*map(_row, ordered), *failed])


def _row(row: Row) -> list[str]:
    case, errors = row.case, sum(row.errors.values())
    load = f"{case.rate_per_s:g}/s" if case.rate_per_s else f"{case.clients} clients"
    return [
        case.system,
        str(case.workers),
        case.body if case.model == GARMENTS else f"{case.body}, {case.model}",
        load if case.generator == "wrk" or case.rate_per_s else f"{load}, {case.generator}",
        spread(row.requests_per_s),
        spread(row.p50_ms),
        spread(row.p99_ms),
        number(sum(each.median for each in row.cpu_ms.values())),
        f"{errors} of {row.answers + errors}",
    ]


def _order(case: Case) -> tuple[bool, bool, str, int, bool, float, int, str]:
    """A sort key that puts mlaas first, and the shipped model."""
    form = case.body == "form"
    ours = case.system.startswith("mlaas")
    plain = case.workers, form, case.rate_per_s, case.clients, case.generator
    return case.model != GARMENTS, not ours, case.system, *plain


def _ratios(report: Report) -> str:
    header = ["requests/s of mlaas over Apache Kafka over those of", "64 clients, one worker", "best of each"]
    rows = ([each.peer, spread(each.at_64_clients), spread(each.best_of_each)] for each in report.ratios)
    return table(header, rows)


def _values(report: Report) -> str:
    return table(["by itself", "measured"], ([name, spread(value)] for name, value in report.values.items()))


def _scales(report: Report) -> str:
    header = ["simulated workers", "requests/s", "of so many times one", "busiest partition"]
    rows = []
    for each in report.scales:
        shares = [f"{each.efficiency:.0%}", *(f"{share:g} x mean" for share in (each.busiest, each.idlest))]
        rows.append([str(each.workers), number(each.requests_per_s), *shares])
    return table([*header, "idlest partition"], rows)


def _failed(report: Report) -> str:
    return "Not everything could be measured; the rows say why." if report.failed else ""


def scaling(report: Report) -> str:
    """The part of docs/scaling.md that follows from the cost of a request."""
    row = report.plainest(KAFKA, 64)
    if row is None or not row.cpu_ms:
        return "Not measured."
    cost_ms = {role: figure.median for role, figure in row.cpu_ms.items()}
    return "\n\n".join([_costs(row, cost_ms), _needs(cost_ms), _next_limits(cost_ms)])


def gateways(rate: float, cost_ms: Mapping[str, float]) -> int:
    """Gateway processes, each using one core at most."""
    return ceil(rate * cost_ms[GATEWAY] / 1000 / UTILISATION)


def workers(rate: float, cost_ms: Mapping[str, float]) -> int:
    """Workers. Consumer and model process use one core each at most; the costlier one limits the worker."""
    return ceil(rate * max(cost_ms[CONSUMER], cost_ms[MODEL]) / 1000 / UTILISATION)


def partitions(rate: float, cost_ms: Mapping[str, float]) -> int:
    """Partitions of requests and of replies: two per worker or gateway, a multiple of twelve."""
    return _STEP * ceil(2 * max(workers(rate, cost_ms), gateways(rate, cost_ms)) / _STEP)


def broker_cores(rate: float, cost_ms: Mapping[str, float]) -> float:
    """REPLICATION_COST is an estimate for three replicas."""
    return rate * cost_ms[BROKER] / 1000 / UTILISATION * REPLICATION_COST


def brokers(rate: float, cost_ms: Mapping[str, float]) -> int:
    return max(3, ceil(broker_cores(rate, cost_ms) / BROKER_CORES))


def _costs(row: Row, cost_ms: Mapping[str, float]) -> str:
    parts = (GATEWAY, BROKER, CONSUMER, MODEL)
    whole = sum(cost_ms[role] for role in parts)
    lines = [[role, number(cost_ms[role]), number(1000 / max(cost_ms[role], 1e-3))] for role in parts]
    lines.append(["together", number(whole), number(1000 / whole)])
    rate = number(row.requests_per_s.median)
    measured = f"Measured with {row.case.clients} clients and one worker, one broker, {rate} requests/s:"
    return f"{measured}\n\n{table(['part', 'CPU ms a request', 'requests/s of one core'], lines)}"


def _needs(cost_ms: Mapping[str, float]) -> str:
    counts = {
        "gateways": gateways,
        "workers": workers,
        "partitions of each topic": partitions,
        "brokers": brokers,
    }
    header = ["requests/s", *counts, "cores in all", "MB/s in"]
    lines = []
    for rate in RATES:
        cores = rate * sum(cost_ms[role] for role in (GATEWAY, CONSUMER, MODEL)) / 1000 / UTILISATION
        totals = (ceil(cores + broker_cores(rate, cost_ms)), 2 * rate * MESSAGE_KB / 1000)
        counted = [f"{count(rate, cost_ms):,}" for count in counts.values()]
        lines.append([f"{rate:,}", *counted, *map(number, totals)])
    assumed = (
        f"With every process at {UTILISATION:.0%} of a core, brokers of {BROKER_CORES} cores, three copies "
        f"of each message at {REPLICATION_COST:g} times the broker's cost (an estimate), and {MESSAGE_KB:g} "
        "kB for a picture as for an answer:"
    )
    return f"{assumed}\n\n{table(header, lines)}\n\n{_price(cost_ms)}"


def core_hours(requests: int, cost_ms: Mapping[str, float]) -> float:
    """Of all processes and brokers, idle share and copies included."""
    own_ms = sum(cost_ms[role] for role in (GATEWAY, CONSUMER, MODEL))
    return requests * (own_ms + cost_ms[BROKER] * REPLICATION_COST) / UTILISATION / 3_600_000


def _price(cost_ms: Mapping[str, float]) -> str:
    hours = core_hours(1_000_000, cost_ms)
    return (
        f"A million requests take {number(hours)} core-hours of that; times the price of a core-hour, this "
        f"is what they cost: {number(hours * EXAMPLE_PRICE)} USD at {EXAMPLE_PRICE:g} USD."
    )


def _next_limits(cost_ms: Mapping[str, float]) -> str:
    of_gateway = UTILISATION * 1000 / cost_ms[GATEWAY]
    of_worker = UTILISATION * 1000 / max(cost_ms[CONSUMER], cost_ms[MODEL])
    dearer = MODEL if cost_ms[MODEL] >= cost_ms[CONSUMER] else CONSUMER
    group, of_group = MEMBERS_OF_A_GROUP, of_worker * MEMBERS_OF_A_GROUP
    thread, balancer = "its event loop is one thread", "another: `--gateways`, or behind the balancer"
    one, start = "a partition goes to one worker", "`topics.partitions`, before the first start"
    change, cell = (
        "every change of members goes by one coordinator",
        "topics, workers and gateways of its own",
    )
    return f"""Where the next limit is:

| of | requests/s | because | then |
| --- | --- | --- | --- |
| one gateway | {number(of_gateway)} | {thread} | {balancer} |
| one worker | {number(of_worker)} | its {dearer} | another worker: `--workers`, or a replica |
| 12 partitions | {number(12 * of_worker)} | {one} | {start} |
| one group of {group} workers | {number(of_group)} | {change} | another cell: {cell} |"""
