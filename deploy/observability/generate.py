"""Writes what is made from code: docs/metrics.md from what gateways and workers declare, and the dashboard.

python -m deploy.observability.generate
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.metrics import GatewayMetrics
from messaging import SHARED
from messaging.metrics import Declared
from worker.metrics import WorkerMetrics

ROOT = Path(__file__).parents[2]
METRICS_PAGE = ROOT / "docs" / "metrics.md"
DASHBOARD = ROOT / "deploy" / "observability" / "grafana" / "dashboard.json"

_SOURCE = {"type": "prometheus", "uid": "mlaas"}
_COLUMNS, _HEIGHT = 3, 8


class Panel(NamedTuple):
    """A chart. queries: PromQL, and how its series are named. unit: Grafana's."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    about: str = ""


def _quantiles(metric: str, by: str = "", of: str = "") -> list[tuple[str, str]]:
    """The median and the 99th percentile."""
    labels, legend = ("le", "") if not by else (f"le, {by}", f" {{{{{by}}}}}")
    rate = f"sum by ({labels}) (rate({metric}_bucket{of}[5m]))"
    return [(f"histogram_quantile({q}, {rate})", f"p{q * 100:g}{legend}") for q in (0.5, 0.99)]


def _of_shadows(answers: str, among: str) -> str:
    """The share of these among a shadow's answers."""
    part, whole = (
        f'sum by (model, version) (rate(mlaas_worker_shadow_answers_total{{answer=~"{these}"}}[5m]))'
        for these in (answers, among)
    )
    return f"{part} / {whole}"


ROWS: dict[str, Sequence[Panel]] = {
    "Answers": (
        Panel(
            "Requests",
            "reqps",
            [("sum by (route, code) (rate(mlaas_requests_total[5m]))", "{{route}} {{code}}")],
        ),
        Panel(
            "Failures",
            "percentunit",
            [("mlaas:failures:ratio_rate5m", "5 minutes"), ("mlaas:failures:ratio_rate1h", "1 hour")],
            "Answers from status 500 on. The alerts hold them against 0.1 %.",
        ),
        Panel(
            "Time to an answer", "s", _quantiles("mlaas_request_duration_seconds", of='{route="/predict"}')
        ),
        Panel("Ready", "bool_yes_no", [("max by (queue) (mlaas_queue_ready)", "{{queue}}")]),
        Panel(
            "Waiting for a reply", "short", [("sum by (queue) (mlaas_queue_in_flight_requests)", "{{queue}}")]
        ),
        Panel(
            "Refused, cancelled, dropped",
            "reqps",
            [
                ("sum(rate(mlaas_rate_limited_requests_total[5m]))", "over a key's rate"),
                ("sum(rate(mlaas_cancelled_requests_total[5m]))", "hung up"),
                ("sum by (reason) (rate(mlaas_replies_dropped_total[5m]))", "reply dropped: {{reason}}"),
            ],
        ),
    ),
    "Workers": (
        Panel(
            "Lag", "short", [("sum by (queue, origin) (mlaas_worker_lag_messages)", "{{queue}} {{origin}}")]
        ),
        Panel("Wait in the broker", "s", _quantiles("mlaas_worker_queue_wait_seconds", "origin")),
        Panel(
            "Pictures in a batch",
            "short",
            [
                (
                    "sum(rate(mlaas_worker_batch_size_sum[5m])) "
                    "/ sum(rate(mlaas_worker_batch_size_count[5m]))",
                    "mean",
                )
            ],
        ),
        Panel(
            "Endings", "reqps", [("sum by (outcome) (rate(mlaas_worker_requests_total[5m]))", "{{outcome}}")]
        ),
        Panel("Decoding", "s", _quantiles("mlaas_worker_decode_seconds", "model")),
        Panel("Inference, a batch", "s", _quantiles("mlaas_worker_inference_seconds", "model")),
        Panel(
            "Restarts", "short", [("sum by (role) (increase(mlaas_worker_restarts_total[15m]))", "{{role}}")]
        ),
        Panel(
            "Jobs",
            "cps",
            [
                ("sum(rate(mlaas_jobs_accepted_total[5m]))", "accepted"),
                ("sum(rate(mlaas_job_results_total[5m]))", "results"),
            ],
        ),
        Panel(
            "Memory",
            "bytes",
            [('process_resident_memory_bytes{job=~"mlaas-.*"}', "{{job}} {{process}}")],
            "Of the process that talks to the broker; not of the model process.",
        ),
    ),
    "Models": (
        Panel(
            "Predictions",
            "cps",
            [("sum by (model, version) (rate(mlaas_worker_predictions_total[5m]))", "{{model}} {{version}}")],
        ),
        Panel("Labels in an hour", "short", [("mlaas:predictions:increase1h", "{{model}}: {{label}}")]),
        Panel(
            "Labels: difference from the last day",
            "percentunit",
            [("mlaas:predictions:moved", "{{model}}")],
            "0: the same mix; 1: no label in common.",
        ),
        Panel(
            "Confidence",
            "percentunit",
            [
                (
                    "sum by (model) (rate(mlaas_worker_confidence_sum[5m])) "
                    "/ sum by (model) (rate(mlaas_worker_confidence_count[5m]))",
                    "mean {{model}}",
                )
            ],
        ),
        Panel(
            "Out of distribution",
            "percentunit",
            [
                (
                    "sum by (model) (rate(mlaas_worker_out_of_distribution_total[5m])) "
                    "/ sum by (model) (rate(mlaas_worker_predictions_total[5m]))",
                    "{{model}}",
                )
            ],
        ),
        Panel(
            "A shadow's answers",
            "percentunit",
            [
                (_of_shadows("same", among="same|other"), "{{model}} {{version}} agrees"),
                (_of_shadows("skipped|failed", among=".*"), "{{model}} {{version}} not compared"),
            ],
            "How many of those that were compared agree with what was answered.",
        ),
        Panel(
            "Processor",
            "percentunit",
            [('rate(process_cpu_seconds_total{job=~"mlaas-.*"}[5m])', "{{job}} {{process}}")],
            "Of a core, by the process that talks to the broker.",
        ),
    ),
}

_PAGE = """\
# Metrics

Made by `make observability` from `gateway/metrics.py` and `worker/metrics.py`.

Prometheus scrapes `GET /metrics` of a gateway, which is open to everyone, and the ports that
`gateway.metrics_port` and `worker.metrics_port` set. Those listen on 127.0.0.1; for a Prometheus on another
machine, also set `gateway.metrics_host` and `worker.metrics_host`.

Each process also has Prometheus' own `process_cpu_seconds_total`, `process_resident_memory_bytes`,
`process_open_fds`, `process_start_time_seconds` and their like; for a worker they leave out its model process
and its decoders.

Values of labels that are not listed come from the configuration: routes, queues, models, their versions and
labels, names of API keys. None came with a request. A histogram `name` has the series `name_bucket`,
`name_sum` and `name_count`.

## Gateway

{gateway}

Only `gateway.metrics_port` shows those marked *closed*, because they name API keys.

## Worker

{worker}
"""


def metrics_page() -> str:
    return _PAGE.format(
        gateway=_table(GatewayMetrics().declared), worker=_table(WorkerMetrics(SHARED, int, int).declared)
    )


def _table(declared: Iterable[Declared]) -> str:
    rows = [f"| `{_name(its)}` | {_kind(its)} | {its.about} |" for its in declared]
    return "\n".join(["| metric | kind | what it counts or measures |", "| --- | --- | --- |", *rows])


def _name(its: Declared) -> str:
    return f"{its.name}{{{','.join(its.labels)}}}" if its.labels else its.name


def _kind(its: Declared) -> str:
    return its.kind if its.is_open else f"{its.kind}, *closed*"


def dashboard() -> str:
    """Grafana's JSON."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, of_row in ROWS.items():
        panels.append(
            {"type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []}
        )
        for number, panel in enumerate(of_row):
            line, column = divmod(number, _COLUMNS)
            width = 24 // _COLUMNS
            place = {"x": column * width, "y": y + 1 + line * _HEIGHT, "w": width, "h": _HEIGHT}
            panels.append(_chart(panel, place))
        y += 1 + -(-len(of_row) // _COLUMNS) * _HEIGHT
    numbered = [{"id": number, **panel} for number, panel in enumerate(panels, 1)]
    made = {
        "uid": "mlaas",
        "title": "mlaas",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "annotations": {"list": [_alerts_shown()]},
        "panels": numbered,
    }
    return json.dumps(made, indent=1) + "\n"


def _chart(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for number, (query, legend) in enumerate(panel.queries)
        ],
    }


def _alerts_shown() -> dict[str, Any]:
    """Each alert, as a mark in all charts while it fires."""
    return {
        "name": "Alerts",
        "enable": True,
        "iconColor": "red",
        "datasource": _SOURCE,
        "expr": 'ALERTS{alertstate="firing"}',
        "titleFormat": "{{alertname}}",
    }


def main() -> None:
    METRICS_PAGE.write_text(metrics_page())
    DASHBOARD.write_text(dashboard())


if __name__ == "__main__":
    main()
