"""Pictures of few bytes that take long to decode, beside a client that asks as ever."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from tests.faults.asking import Address, Client, in_turn
from tests.faults.corpus import expensive
from tests.faults.fleet import Fleet
from tests.faults.ledger import judge, longest_gap, percentile
from tests.faults.outcome import Check, Outcome, least, most, none, outcome, within_s
from tests.faults.processes import memory_mib
from tests.faults.stage import TIMEOUT_S, Stage, under_load

RATE = 20.0
MOST_MIB = 900
"""Of a worker's processes, below the limit that compose.yaml gives its container."""

# What becomes of an expensive picture: an answer, a refusal, or an end of the caller's patience.
ANSWERS = frozenset({200, 202, 413, 422, 429, 504})


@dataclass(slots=True)
class Found:
    """What an attack was answered, and what the normal client saw meanwhile."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    memory_mib: float = 0.0
    client: Client = field(default_factory=lambda: Client(TIMEOUT_S))


def expensive_pictures(stage: Stage) -> Outcome:
    """Each attack in turn; the normal client's p99 beside it, over its p99 when it is alone."""
    webp, png, jpeg = expensive.webp(), expensive.png(), expensive.jpeg(10_000)
    attacks: dict[str, tuple[Attack, list[bytes]]] = {
        "WebP of 34 bytes, a batch of 64": (one_batch, [webp] * stage.size(64, 8)),
        "WebP of 34 bytes, a job of 64": (one_job, [webp] * stage.size(64, 8)),
        "32 PNGs of 110 kB": (each_alone, [png] * stage.size(32, 4)),
        "a JPEG of 10,000 scans": (each_alone, [jpeg]),
        "16 JPEGs of 10,000 scans": (each_alone, [jpeg] * stage.size(16, 4)),
        "48 PNGs of 203 kB": (each_alone, [expensive.png(padding=93_000)] * stage.size(48, 4)),
    }
    with stage.fleet() as fleet:
        address = fleet.gateway("gateway")
        fleet.worker("worker")
        fleet.wait_until_ready()
        before = fleet.pids("worker")
        beside(stage, fleet, address, wait, [])  # everything is warm
        alone = beside(stage, fleet, address, wait, [])
        found = {
            name: beside(stage, fleet, address, attack, pictures)
            for name, (attack, pictures) in attacks.items()
        }
        ended = len(before) - len(before.keys() & fleet.pids("worker").keys())
    alone_p99_s = _p99_s(alone.client)
    return outcome(
        "expensive",
        [
            *itertools.chain.from_iterable(_checks(name, each, alone_p99_s) for name, each in found.items()),
            none("processes of the worker that ended", ended),
            most("memory of the worker, MiB", max(each.memory_mib for each in found.values()), MOST_MIB),
        ],
        {"alone": _numbers(alone)} | {name: _numbers(each) for name, each in found.items()},
    )


Attack = Callable[[str, Sequence[bytes]], Counter[int]]
"""Given the gateway's URL; returns when all are answered."""


def beside(stage: Stage, fleet: Fleet, address: Address, attack: Attack, pictures: Sequence[bytes]) -> Found:
    """The normal client goes on until the attack is over."""
    found, over = Found(), threading.Event()

    def attacking(_: threading.Event) -> None:
        time.sleep(1.0)
        began = time.monotonic()
        try:
            found.statuses = attack(fleet.url("gateway"), pictures)
        finally:
            found.seconds = time.monotonic() - began
            time.sleep(0.5)
            over.set()

    def watching(ended: threading.Event) -> None:
        while not ended.wait(0.02):
            found.memory_mib = max(found.memory_mib, memory_mib(fleet.pids("worker")))

    asked = map(stage.pictures, itertools.count())
    load = found.client.drive(in_turn([address]), asked, RATE, stop=over.is_set)
    under_load(load, attacking, watching)
    return found


def wait(_: str, __: Sequence[bytes]) -> Counter[int]:
    """No attack."""
    time.sleep(10.0)
    return Counter()


def each_alone(url: str, pictures: Sequence[bytes]) -> Counter[int]:
    with ThreadPoolExecutor(len(pictures)) as threads:
        return Counter(
            threads.map(lambda picture: _post(f"{url}/predict", content=picture).status_code, pictures)
        )


def one_batch(url: str, pictures: Sequence[bytes]) -> Counter[int]:
    answer = _post(f"{url}/predict/batch", files=[("file", picture) for picture in pictures]).json()
    return _of_results(answer["results"])


def one_job(url: str, pictures: Sequence[bytes]) -> Counter[int]:
    answer = _post(f"{url}/jobs", files=[("file", picture) for picture in pictures])
    where = url + answer.headers["location"]
    while answer.json()["status"] in ("accepted", "running"):
        answer = httpx.get(where, params={"wait": "20s"}, timeout=60)
    return _of_results(answer.json()["results"])


def _post(url: str, **body: object) -> httpx.Response:
    return httpx.post(url, timeout=120, **body)  # type: ignore[arg-type]


def _of_results(results: list[dict[str, dict[str, int]]]) -> Counter[int]:
    return Counter(entry["problem"]["status"] if entry.get("problem") else 200 for entry in results)


def _checks(name: str, found: Found, alone_p99_s: float) -> list[Check]:
    judged = judge(found.client.entries)
    return [
        none(f"{name}: answered otherwise", sum(found.statuses.values()) - _expected(found.statuses)),
        none(f"{name}: normal client, not answered 200", judged.requests - judged.statuses.get(200, 0)),
        none(f"{name}: normal client, wrong", judged.wrong),
        least(f"{name}: normal client, asked", judged.requests, 20),
        within_s(f"{name}: p99", judged.p99_s, 3 * alone_p99_s),
        within_s(f"{name}: longest silence", longest_gap(found.client.answered_at), 0.5),
    ]


def _expected(statuses: Counter[int]) -> int:
    return sum(count for status, count in statuses.items() if status in ANSWERS)


def _p99_s(client: Client) -> float:
    return percentile(sorted(entry.seconds for entry in client.entries if entry.status == 200), 0.99)


def _numbers(found: Found) -> dict[str, object]:
    judged = judge(found.client.entries)
    return {
        "attack_answers": {str(status): count for status, count in sorted(found.statuses.items())},
        "attack_s": round(found.seconds, 1),
        "p50_ms": round(judged.p50_s * 1000, 1),
        "p99_ms": round(judged.p99_s * 1000, 1),
        "longest_ms": round(judged.longest_s * 1000, 1),
        "silence_ms": round(longest_gap(found.client.answered_at) * 1000),
        "answers": {str(status): count for status, count in sorted(judged.statuses.items())},
        "memory_mib": round(found.memory_mib),
    }
