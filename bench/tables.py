"""A report as Markdown. Pure."""

from collections.abc import Iterable, Sequence

from bench.report import Figure, Report

START, END = "<!-- results: written by bench.run -->", "<!-- end of results -->"


def markdown(report: Report) -> str:
    return "\n\n".join([_origin(report), _load(report), _starts(report), _aims(report)])


def between_markers(page: str, text: str) -> str:
    """The page with the text in place of what was between the markers. Raises ValueError without them."""
    before, _, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"no {START} ... {END}")
    return f"{before}{START}\n\n{text}\n\n{END}{after}"


def _origin(report: Report) -> str:
    machine, versions = report.machine, report.versions
    return (
        f"{report.date}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {machine['os']}; "
        f"Python {versions['python']}, mlaas {versions['mlaas']}, Apache Kafka {versions['apache-kafka']}, "
        f"confluent-kafka {versions['confluent-kafka']}, ONNX Runtime {versions['onnxruntime']}.\n"
        f"{report.repeats} x {report.seconds:g} s a row. Medians; in brackets the least and the most; "
        "max is the worst of all."
    )


def _load(report: Report) -> str:
    header = ["over", "clients", "body", "requests/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "errors"]
    return _table(
        header,
        (
            [
                row.system,
                str(row.clients),
                row.body,
                _spread(row.requests_per_s, 0),
                _spread(row.p50_ms, 1),
                f"{row.p90_ms:.1f}",
                f"{row.p99_ms:.1f}",
                f"{row.max_ms:.1f}",
                f"{sum(row.errors.values())} of {row.answers + sum(row.errors.values())}",
            ]
            for row in report.rows
        ),
    )


def _starts(report: Report) -> str:
    names = list(report.starts[0].resident_mib)
    return _table(
        ["over", "ready after s", *(f"{name} MiB" for name in names)],
        (
            [start.system, _spread(start.ready_s, 1), *(f"{start.resident_mib[name]:.0f}" for name in names)]
            for start in report.starts
        ),
    )


def _aims(report: Report) -> str:
    return _table(
        ["aim", "target", "measured", "met"],
        ([aim.name, aim.target, f"{aim.value:g}", "yes" if aim.met else "**no**"] for aim in report.aims),
    )


def _spread(figure: Figure, digits: int) -> str:
    return f"{figure.median:.{digits}f} ({figure.least:.{digits}f}–{figure.most:.{digits}f})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
