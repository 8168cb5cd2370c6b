"""Measurements beside plain load: the parts alone, whole batches, large pictures, starts."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import httpx
import msgspec

from bench import aims
from bench.limits import KafkaAlone, ModelAlone
from bench.load import AskingFailed, ask, printed, start, warm_up
from bench.report import ROOT, Case
from bench.systems import CACHE, System, mlaas
from deploy.kafka.local_kafka import LocalKafka
from mlaas.commands.bench import exchange, form, run
from tests.e2e.services import SAMPLES
from tests.faults.fleet import Fleet

BATCH_PICTURES = 256
SMALL_RATE_PER_S = 50.0
PHOTO_SIZE = (4000, 3000)

_PATIENCE_S = 30.0
_LARGE = Case(system="", clients=1, generator="mlaas bench")
_SMALL = Case(system="", rate_per_s=SMALL_RATE_PER_S, generator="mlaas bench")


class Values(Protocol):
    """Takes single measurements."""

    def value(self, name: str, value: float) -> None: ...


def limits(kafka: LocalKafka, seconds: float, into: Values) -> None:
    command = [sys.executable, "-m", "bench.limits"]
    lasting = ["--seconds", str(2 * seconds)]
    alone = printed([*command, "model", str(photo()), *lasting], ModelAlone)
    for size, took_ms in alone.inference_ms.items():
        into.value(aims.inference_ms(size), took_ms)
    into.value(aims.DECODE_SMALL_MS, alone.decode_small_ms)
    into.value(aims.DECODE_LARGE_MS, alone.decode_large_ms)
    into.value(aims.ALONE_PER_S, alone.pictures_per_s)
    there_and_back = printed([*command, "kafka", kafka.bootstrap_servers, *lasting], KafkaAlone)
    into.value(aims.PING_PONG_MS, there_and_back.p50_ms)
    into.value(aims.PING_PONG_PER_S, there_and_back.per_s)


def batches(kafka: LocalKafka, seconds: float, into: Values) -> None:
    """Two clients, so that one batch is on its way while the other is processed."""
    with _one_worker(kafka) as system:
        pictures = [SAMPLES[number % len(SAMPLES)].read_bytes() for number in range(BATCH_PICTURES)]
        url = f"{system.urls['raw']}/batch"
        result = run(
            url, [exchange(url, *form(*pictures), proof=pictures[-1])], clients=2, seconds=2 * seconds
        )
        if result.errors or not result.answers:
            raise AskingFailed(f"of {result.answers} batches: {result.errors}")
        into.value(aims.BATCH_PER_S, result.requests_per_s * BATCH_PICTURES)


def large(kafka: LocalKafka, seconds: float, into: Values) -> None:
    with _one_worker(kafka) as system:
        into.value(aims.LARGE_MS, ask(system, _LARGE, seconds, [photo()]).result.p50_ms)
        into.value(aims.SMALL_ALONE_MS, ask(system, _SMALL, 2 * seconds).result.p99_ms)
        with start(system, _LARGE, 2 * seconds + 1, [photo()]) as beside:
            beneath = ask(system, _SMALL, 2 * seconds).result
            beside.communicate()
        into.value(aims.SMALL_BESIDE_MS, beneath.p99_ms)


def starts(kafka: LocalKafka, _: float, into: Values) -> None:
    """The time from starting a gateway or worker until it is ready, while the rest runs."""
    with Fleet(kafka.bootstrap_servers) as fleet:
        fleet.gateway("gateway")
        fleet.worker("worker")
        fleet.wait_until_ready()
        fleet.stop("gateway")
        into.value(aims.GATEWAY_READY_S, _until_ready_s(fleet))
        fleet.stop("worker")
        started = time.perf_counter()
        fleet.again("worker")
        fleet.wait_for("worker", "assigned partitions")
        into.value(aims.WORKER_READY_S, time.perf_counter() - started)


PARTS = {"limits": limits, "batch": batches, "large": large, "start": starts}


def _until_ready_s(fleet: Fleet) -> float:
    url, started = f"{fleet.url('gateway')}/health/ready", time.perf_counter()
    fleet.again("gateway")
    with httpx.Client(trust_env=False, timeout=_PATIENCE_S) as client:
        while not _is_ready(client, url):
            if time.perf_counter() - started > _PATIENCE_S:
                raise AskingFailed("the gateway did not become ready")
            time.sleep(0.005)
    return time.perf_counter() - started


def _is_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def _one_worker(kafka: LocalKafka) -> Iterator[System]:
    with mlaas(f"kafka://{kafka.bootstrap_servers}", 1, kafka.pid) as system:
        warm_up(msgspec.structs.replace(system, urls={"raw": system.urls["raw"]}), 1.0)
        yield system


def photo() -> Path:
    """A 12-megapixel JPEG like a phone's (3 to 6 MB), always the same: a sample on a grainy wall."""
    path = CACHE / "photo-12-megapixels.jpg"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_photo(path)
    return path


def _make_photo(path: Path) -> None:
    import numpy as np
    from PIL import Image, ImageOps

    width, height = PHOTO_SIZE
    shades = np.linspace(170, 230, height)[:, None, None] + np.zeros((1, width, 3))
    shades += np.random.default_rng(1).normal(0, 7, (height, width, 1))
    wall = Image.fromarray(shades.clip(0, 255).astype(np.uint8))
    with Image.open(ROOT / "samples" / "coat.png") as sample:
        coat = sample.convert("L").resize((2200, 2200), Image.Resampling.BICUBIC)
    garment = ImageOps.colorize(coat, "#203050", "#7088a8")
    wall.paste(garment, (900, 400), coat.point(lambda v: 255 * (v > 30)))
    wall.save(path, quality=90)
