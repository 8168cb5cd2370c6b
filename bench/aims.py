"""The names of single measurements, and the aims they are checked against."""

import operator
from collections.abc import Sequence
from typing import Literal

from bench.report import BARE, EMBEDDED, KAFKA, MOBILENET, Aim, Case, Figure, Ratio, Report, Row, ratio, total

PEERS = ("Mosec", "LitServe", "BentoML", "Ray Serve", "MLServer", "FastAPI")
AT_64 = {
    "Mosec": (0.85, 1.0),
    "LitServe": (4.0, 5.0),
    "BentoML": (7.0, 8.0),
    "Ray Serve": (17.0, 20.0),
    "FastAPI": (3.0, 3.5),
}
"""The gate and the aim of each."""

PING_PONG_MS = "Kafka and back, one at a time, median ms"
PING_PONG_PER_S = "Kafka and back, 64 under way, messages/s"
FLOOR_MS = "bare uvicorn, Kafka and back, and one inference together, median ms"
DECODE_SMALL_MS = "decoding a 28 x 28 PNG, ms"
DECODE_LARGE_MS = "decoding a 12-megapixel JPEG, ms"
ALONE_PER_S = "decoding and network alone, pictures/s"
BATCH_PER_S = "POST /predict/batch with 256 pictures, pictures/s"
LARGE_MS = "POST /predict with a 12-megapixel JPEG, median ms"
SMALL_ALONE_MS = "small pictures by themselves, p99 ms"
SMALL_BESIDE_MS = "small pictures beside 12-megapixel ones, p99 ms"
UP_READY_S = "`mlaas up` with its embedded broker ready, s"
GATEWAY_READY_S = "gateway ready, s"
WORKER_READY_S = "worker ready, s"
GATEWAY_MB = "gateway resident, MB"
WORKER_MB = "worker's two processes resident, MB"

IDLE = {EMBEDDED: (3.0, 2.0), KAFKA: (2.0, 1.0)}
FIRST_MS = 15.0

FOOTPRINT = {WORKER_READY_S: 2.5, GATEWAY_READY_S: 1.0, GATEWAY_MB: 90.0, WORKER_MB: 220.0}


def inference_ms(pictures: int) -> str:
    return f"network alone on {pictures}, ms"


def idle_share(system: str) -> str:
    without = " without the broker" if system == KAFKA else ""
    return f"{system}, idle{without}, % of a core"


def first_ms(system: str) -> str:
    return f"{system}, first request after a pause, ms"


def is_about(case: Case) -> bool:
    """Whether the throughput or latency of this load has an aim."""
    if case.workers > 1:
        return False
    if case.clients == 64:
        return case.system in (KAFKA, *AT_64)
    return case.clients == 1 and case.system in (KAFKA, EMBEDDED, BARE)


def ratios(report: Report) -> list[Ratio]:
    """To each peer: with 64 clients and one worker, and between the best results of both."""
    ours, our_best = report.plainest(KAFKA, 64), report.best(KAFKA)
    return [
        Ratio(peer, _faster(ours, report.plainest(peer, 64)), _faster(our_best, report.best(peer)))
        for peer in PEERS
    ]


def floor(report: Report) -> Figure | None:
    """FLOOR_MS, the least that one request can take."""
    bare = report.row(BARE, 1)
    parts = [report.values.get(name) for name in (PING_PONG_MS, inference_ms(1))]
    return total([bare.p50_ms if bare else None, *parts])


def aims(report: Report) -> list[Aim]:
    to = {each.peer: each for each in ratios(report)}
    forms = [report.row(name, 64, body="form") for name in (KAFKA, "FastAPI")]
    usual = [report.row(name, 64, model=MOBILENET) for name in (KAFKA, "Mosec")]
    one, many, alone = report.row(KAFKA, 1), report.row(KAFKA, 64), report.row(EMBEDDED, 1)
    last = max(report.scales, key=lambda scale: scale.workers, default=None)
    wide = last if last and last.workers >= 16 else None
    efficiency, busiest = (_single(wide.efficiency), _single(wide.busiest)) if wide else (None, None)
    cpu_ms = total(list(many.cpu_ms.values())) if many else None
    tail = ratio(many.p99_ms, many.p50_ms) if many else None

    def over(name: str, other: str) -> Figure | None:
        return ratio(report.values.get(name), report.values.get(other))

    return [
        *(
            _least(f"64 clients, requests/s over {peer}'s", to[peer].at_64_clients, target, gate)
            for peer, (gate, target) in AT_64.items()
        ),
        _least("best of each, requests/s over Mosec's", to["Mosec"].best_of_each, 1.0),
        _least("64 clients, forms, requests/s over plain FastAPI's", _faster(*forms), 2.5, 2.0),
        _most("64 clients, CPU ms a request, all processes and broker", cpu_ms, 0.5, 0.6),
        _most(
            "one client, median ms over bare uvicorn, Kafka and back, and one inference together",
            ratio(one.p50_ms if one else None, floor(report)),
            1.5,
            1.8,
        ),
        _most("64 clients, p99 over median", tail, 4.0),
        _most("embedded broker, one client, median ms", alone.p50_ms if alone else None, 8.0),
        _least(
            "batches of 256, pictures/s over decoding and network alone",
            over(BATCH_PER_S, ALONE_PER_S),
            0.85,
            0.75,
        ),
        _most(
            "a 12-megapixel JPEG, median ms over decoding alone", over(LARGE_MS, DECODE_LARGE_MS), 1.2, 1.4
        ),
        _least("224x224 model, 60 kB JPEG, 64 clients, requests/s over Mosec's", _faster(*usual), 1.0, 0.95),
        _most(
            "small pictures beside 12-megapixel ones, p99 over that by themselves",
            over(SMALL_BESIDE_MS, SMALL_ALONE_MS),
            2.0,
        ),
        *(
            _most(idle_share(name), report.values.get(idle_share(name)), target, gate)
            for name, (gate, target) in IDLE.items()
        ),
        *(_most(first_ms(name), report.values.get(first_ms(name)), FIRST_MS) for name in IDLE),
        *(_most(name, report.values.get(name), target) for name, target in FOOTPRINT.items()),
        _least("16 simulated workers, share of 16 times what one does", efficiency, 0.9),
        _most("16 simulated workers, busiest partition over the mean", busiest, 1.5),
    ]


def _single(value: float) -> Figure:
    return Figure(value, value, value, {0: value})


def _faster(ours: Row | None, theirs: Row | None) -> Figure | None:
    return ratio(ours.requests_per_s, theirs.requests_per_s) if ours and theirs else None


def _most(name: str, value: Figure | None, target: float, gate: float | None = None) -> Aim:
    return _aim(name, value, "<=", target, gate)


def _least(name: str, value: Figure | None, target: float, gate: float | None = None) -> Aim:
    return _aim(name, value, ">=", target, gate)


def _aim(
    name: str, value: Figure | None, compared: Literal["<=", ">="], target: float, gate: float | None
) -> Aim:
    reaches = operator.le if compared == "<=" else operator.ge
    return Aim(
        name=name,
        value=value,
        target=f"{compared} {target:g}",
        met=bool(value and reaches(value.median, target)),
        gate="" if gate is None else f"{compared} {gate:g}",
        gate_met=gate is None or bool(value and reaches(value.median, gate)),
    )


def missed(found: Sequence[Aim]) -> list[str]:
    """The aims that were missed, with a word on those whose gate was, too."""
    return [f"{aim.name}{_how(aim)}" for aim in found if not aim.met]


def _how(aim: Aim) -> str:
    if aim.value is None:
        return " (not measured)"
    return "" if aim.gate_met else " (its gate, too)"
