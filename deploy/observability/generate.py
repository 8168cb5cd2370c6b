"""Writes what is made from code: docs/metrics.md, from what gateways and workers declare.

python -m deploy.observability.generate
"""

from collections.abc import Iterable
from pathlib import Path

from gateway.metrics import GatewayMetrics
from messaging.metrics import Declared
from messaging.settings import SHARED
from worker.metrics import WorkerMetrics

ROOT = Path(__file__).parents[2]
METRICS_PAGE = ROOT / "docs" / "metrics.md"

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


def main() -> None:
    METRICS_PAGE.write_text(metrics_page())


if __name__ == "__main__":
    main()
