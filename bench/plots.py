"""A report as reproducible SVG plots."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from bench.report import CLIENTS, GARMENTS, KAFKA, Report
from bench.systems import BROKER, CONSUMER, GATEWAY, MODEL, UP
from bench.tables import LOW_RATE_PER_S

_SIZE_INCHES = (7.5, 4.5)


def throughput(report: Report) -> bytes:
    """Requests a second by number of clients, with one worker."""

    def draw(axes: Axes) -> None:
        for system in systems(report):
            rows = [(n, row) for n in CLIENTS if (row := report.plainest(system, n))]
            if rows:
                rates = [row.requests_per_s.median for _, row in rows]
                axes.plot([n for n, _ in rows], rates, marker="o", **_look(report, system))
        axes.set(xscale="log", yscale="log", xlabel="clients", ylabel="requests/s", xticks=CLIENTS)
        axes.xaxis.set_major_formatter("{x:.0f}")

    return _svg(draw)


def latency(report: Report) -> bytes:
    """The distribution of latency at the same low rate for all systems."""

    def draw(axes: Axes) -> None:
        for row in report.rows:
            if row.case.rate_per_s == LOW_RATE_PER_S:
                shares = [step / (len(row.quantiles_ms) - 1) for step in range(len(row.quantiles_ms))]
                axes.plot(row.quantiles_ms, shares, **_look(report, row.case.system))
        axes.set(xscale="log", xlabel=f"ms, at {LOW_RATE_PER_S:g} requests/s", ylabel="share answered")

    return _svg(draw)


def cost(report: Report) -> bytes:
    """CPU time per request with 64 clients, by part; peers as a whole."""

    def draw(axes: Axes) -> None:
        rows = [row for name in reversed(systems(report)) if (row := report.plainest(name, 64))]
        left = dict.fromkeys((row.case.system for row in rows), 0.0)
        for role in (GATEWAY, BROKER, CONSUMER, MODEL, UP, "server"):
            parts = {row.case.system: row.cpu_ms[role].median for row in rows if role in row.cpu_ms}
            if parts:
                axes.barh(list(parts), list(parts.values()), left=[left[n] for n in parts], label=role)
            left = {name: start + parts.get(name, 0.0) for name, start in left.items()}
        axes.set(xscale="linear", xlabel="CPU milliseconds a request, 64 clients")

    return _svg(draw)


PLOTS: dict[str, Callable[[Report], bytes]] = {"throughput": throughput, "latency": latency, "cost": cost}


def systems(report: Report) -> list[str]:
    """Those with the shipped model, in the order of the first measurement."""
    return list(dict.fromkeys(row.case.system for row in report.rows if row.case.model == GARMENTS))


def _look(report: Report, system: str) -> dict[str, Any]:
    """Consistent across plots."""
    colour = f"C{systems(report).index(system) % 10}"
    return {"label": system, "color": colour, "lw": 2.5 if system == KAFKA else 1.2}


def _svg(draw: Callable[[Axes], None]) -> bytes:
    with matplotlib.rc_context({"svg.hashsalt": "mlaas", "svg.fonttype": "none", "font.size": 9}):
        canvas = Canvas(figsize=_SIZE_INCHES, layout="constrained")
        axes = canvas.subplots()
        draw(axes)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
        into = BytesIO()
        canvas.savefig(into, format="svg", metadata={"Date": None})
    return into.getvalue()
