"""A report as Markdown. Pure."""

from collections.abc import Iterable, Sequence

from bench.report import Case, Figure, Report, Row


def markdown(report: Report) -> str:
    parts = [_origin(report), _aims(report), _load(report), _ratios(report), _values(report), _scales(report)]
    return "\n\n".join(part for part in [*parts, _failed(report)] if part)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Empty without rows."""
    lines = [list(row) for row in rows]
    every = [header, ["---"] * len(header), *lines] if lines else []
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


def number(value: float) -> str:
    """As many digits as mean something."""
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
            f"{report.rounds} x {report.seconds:g} s for each load. Medians over the rounds; "
            "in brackets the least and the most.",
            *report.notes,
        ]
    )


def _aims(report: Report) -> str:
    return table(
        ["aim", "target", "measured", "met"],
        ([aim.name, aim.target, spread(aim.value), "yes" if aim.met else "**no**"] for aim in report.aims),
    )


def _load(report: Report) -> str:
    header = [
        "system",
        "workers",
        "body",
        "load",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "CPU ms a request",
        "errors",
    ]
    ordered = sorted(report.rows, key=lambda row: _order(row.case))
    failed = [
        [each.system, "", "", "", f"round {each.round}: {each.reason}", "", "", "", ""]
        for each in report.failed
    ]
    return table(header, [*map(_row, ordered), *failed])


def _row(row: Row) -> list[str]:
    case, errors = row.case, sum(row.errors.values())
    load = f"{case.rate_per_s:g}/s" if case.rate_per_s else f"{case.clients} clients"
    return [
        case.system,
        str(case.workers),
        case.body,
        load if case.generator == "wrk" or case.rate_per_s else f"{load}, {case.generator}",
        spread(row.requests_per_s),
        spread(row.p50_ms),
        spread(row.p99_ms),
        number(sum(each.median for each in row.cpu_ms.values())),
        f"{errors} of {row.answers + errors}",
    ]


def _order(case: Case) -> tuple[bool, str, int, bool, float, int, str]:
    """mlaas first."""
    form = case.body == "form"
    ours = case.system.startswith("mlaas")
    return not ours, case.system, case.workers, form, case.rate_per_s, case.clients, case.generator


def _ratios(report: Report) -> str:
    return table(
        ["requests/s of mlaas over Apache Kafka over those of", "64 clients, one worker", "best of each"],
        ([each.peer, spread(each.at_64_clients), spread(each.best_of_each)] for each in report.ratios),
    )


def _values(report: Report) -> str:
    return table(["by itself", "measured"], ([name, spread(value)] for name, value in report.values.items()))


def _scales(report: Report) -> str:
    return table(
        ["simulated workers", "requests/s", "of so many times one", "busiest partition", "idlest partition"],
        (
            [
                str(scale.workers),
                number(scale.requests_per_s),
                f"{scale.efficiency:.0%}",
                f"{scale.busiest:g} x mean",
                f"{scale.idlest:g} x mean",
            ]
            for scale in report.scales
        ),
    )


def _failed(report: Report) -> str:
    return "Not everything could be measured; the rows say why." if report.failed else ""
