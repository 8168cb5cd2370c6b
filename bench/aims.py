"""What was aimed at, and what came of it. Pure."""

from collections.abc import Sequence

from bench import names
from bench.figures import best, plainest, row_of, total
from bench.report import BARE, EMBEDDED, KAFKA, Aim, Figure, Ratio, Report, Row
from bench.rounds import ratio

PEERS = ("Mosec", "LitServe", "BentoML", "Ray Serve", "MLServer", "FastAPI")
AT_64 = {"Mosec": 1.25, "LitServe": 7.0, "BentoML": 20.0, "Ray Serve": 20.0}


def ratios(report: Report) -> list[Ratio]:
    """To each peer: with 64 clients and one worker, and the best that each of both reaches."""
    ours, our_best = plainest(report, KAFKA, 64), best(report, KAFKA)
    return [
        Ratio(peer, _faster(ours, plainest(report, peer, 64)), _faster(our_best, best(report, peer)))
        for peer in PEERS
    ]


def floor(report: Report) -> Figure | None:
    """What one request takes at least: FLOOR_MS."""
    bare = row_of(report, BARE, 1)
    parts = [report.values.get(name) for name in (names.PING_PONG_MS, names.inference_ms(1))]
    return total([bare.p50_ms if bare else None, *parts])


def aims(report: Report) -> list[Aim]:
    return [*_throughput(report), *_latency(report), *_work(report), *_footprint(report), *_scale(report)]


def _throughput(report: Report) -> list[Aim]:
    to = {each.peer: each for each in ratios(report)}
    forms = [row_of(report, name, 64, body="form") for name in (KAFKA, "FastAPI")]
    return [
        *(
            _least(f"64 clients, requests/s over {peer}'s", to[peer].at_64_clients, target)
            for peer, target in AT_64.items()
        ),
        _least("best of each, requests/s over Mosec's", to["Mosec"].best_of_each, 1.0),
        _least("64 clients, forms, requests/s over plain FastAPI's", _faster(*forms), 1.5),
    ]


def _latency(report: Report) -> list[Aim]:
    one, many = row_of(report, KAFKA, 1), row_of(report, KAFKA, 64)
    alone = row_of(report, EMBEDDED, 1)
    return [
        _most(
            "one client, median ms over bare uvicorn, Kafka and back, and one inference together",
            _over(one.p50_ms if one else None, floor(report)),
            1.5,
        ),
        _most("64 clients, p99 over median", ratio(many.p99_ms, many.p50_ms) if many else None, 4.0),
        _most("embedded broker, one client, median ms", alone.p50_ms if alone else None, 8.0),
    ]


def _work(report: Report) -> list[Aim]:
    values = report.values.get
    return [
        _least(
            "batches of 256, pictures/s over decoding and network alone",
            _over(values(names.BATCH_PER_S), values(names.ALONE_PER_S)),
            0.7,
        ),
        _most(
            "a 12-megapixel JPEG, median ms over decoding alone",
            _over(values(names.LARGE_MS), values(names.DECODE_LARGE_MS)),
            1.2,
        ),
        _most(
            "small pictures beside 12-megapixel ones, p99 over that by themselves",
            _over(values(names.SMALL_BESIDE_MS), values(names.SMALL_ALONE_MS)),
            2.0,
        ),
    ]


def _footprint(report: Report) -> list[Aim]:
    return [
        _most(name, report.values.get(name), target)
        for name, target in (
            (names.WORKER_READY_S, 2.5),
            (names.GATEWAY_READY_S, 1.0),
            (names.GATEWAY_MB, 90.0),
            (names.WORKER_MB, 220.0),
        )
    ]


def _scale(report: Report) -> list[Aim]:
    last = max(report.scales, key=lambda scale: scale.workers, default=None)
    wide = last if last and last.workers >= 16 else None
    return [
        _least(
            "16 simulated workers, share of 16 times what one does",
            _single(wide.efficiency if wide else None),
            0.9,
        ),
        _most(
            "16 simulated workers, busiest partition over the mean",
            _single(wide.busiest if wide else None),
            1.5,
        ),
    ]


def _single(value: float | None) -> Figure | None:
    return None if value is None else Figure(value, value, value, {0: value})


def _faster(ours: Row | None, theirs: Row | None) -> Figure | None:
    return ratio(ours.requests_per_s, theirs.requests_per_s) if ours and theirs else None


def _over(above: Figure | None, below: Figure | None) -> Figure | None:
    return ratio(above, below) if above and below else None


def _most(name: str, value: Figure | None, target: float) -> Aim:
    return Aim(name=name, value=value, target=f"<= {target:g}", met=bool(value and value.median <= target))


def _least(name: str, value: Figure | None, target: float) -> Aim:
    return Aim(name=name, value=value, target=f">= {target:g}", met=bool(value and value.median >= target))


def missed(found: Sequence[Aim]) -> list[str]:
    return [f"{aim.name}{'' if aim.value else ' (not measured)'}" for aim in found if not aim.met]
