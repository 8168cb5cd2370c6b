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
PAUSE_S = 0.5
MOST_MIB = 900
"""Of a worker's processes, below the limit that compose.yaml gives its container."""

# What becomes of an expensive picture: an answer, a refusal, or the end of the caller's patience.
ANSWERS = frozenset({200, 413, 422, 429, 504})

Attack = Callable[[httpx.Client, Sequence[bytes]], Counter[int]]
"""Returns how many pictures were answered with which status, once all are."""


@dataclass(slots=True)
class Found:
    """What an attack was answered, and what the normal client saw meanwhile."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    memory_mib: float = 0.0
    client: Client = field(default_factory=lambda: Client(TIMEOUT_S))

    @property
    def silence_s(self) -> float:
        """The longest time without an answer, from the first request to the last that was due."""
        dues = [entry.due for entry in self.client.entries]
        return longest_gap([min(dues), *self.client.answered_at, max(dues)])


def expensive_pictures(stage: Stage) -> Outcome:
    """Each attack again and again; the normal client's p99 meanwhile, over its p99 when it is alone."""
    webp, png, many = expensive.webp(), expensive.png(padding=93_000), stage.size(64, 8)
    attacks: dict[str, tuple[Attack, list[bytes]]] = {
        "batch of 64 WebPs of 34 bytes": (one_batch, [webp] * many),
        "job of 64 WebPs of 34 bytes": (one_job, [webp] * many),
        "48 PNGs of 203 kB": (each_alone, [png] * stage.size(48, 8)),
        "JPEG of 10,000 scans": (each_alone, [expensive.jpeg(10_000)]),
    }
    if not stage.quick:
        attacks |= {
            "batch of 64 WebPs of 4 megapixels": (one_batch, [expensive.webp(2_000)] * 64),
            "32 PNGs of 110 kB": (each_alone, [expensive.png()] * 32),
            "16 JPEGs of 10,000 scans": (each_alone, [expensive.jpeg(10_000)] * 16),
            "batch of 16 JPEGs of 100 scans": (one_batch, [expensive.jpeg(100, 5_000)] * 16),
            "batch of 64 small pictures as photos": (one_batch_of_photos, [stage.pictures(0).content] * 64),
        }
    with stage.fleet() as fleet:
        address = fleet.gateway("gateway")
        fleet.worker("worker")
        fleet.wait_until_ready()
        before = fleet.pids("worker")
        beside(stage, fleet, address, nothing, [])  # now everything is warm
        alone = beside(stage, fleet, address, nothing, [])
        found = {name: beside(stage, fleet, address, *attack) for name, attack in attacks.items()}
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


def beside(stage: Stage, fleet: Fleet, address: Address, attack: Attack, pictures: Sequence[bytes]) -> Found:
    """The normal client goes on until the attack is over, which in the long form takes ten seconds."""
    found, over = Found(), threading.Event()

    def attacking(_: threading.Event) -> None:
        began = time.monotonic()
        try:
            with httpx.Client(base_url=fleet.url("gateway"), timeout=120) as client:
                while found.seconds <= stage.size(10, 0):
                    found.statuses += attack(client, pictures)
                    time.sleep(PAUSE_S)
                    found.seconds = time.monotonic() - began
        finally:
            time.sleep(stage.size(1, 3))
            over.set()

    def watching(ended: threading.Event) -> None:
        pids, until = fleet.pids("worker"), time.monotonic() + 0.5
        while not ended.wait(0.02):
            found.memory_mib = max(found.memory_mib, memory_mib(pids))
            if time.monotonic() > until:
                pids, until = fleet.pids("worker"), time.monotonic() + 0.5

    asked = map(stage.pictures, itertools.count())
    load = found.client.drive(in_turn([address]), asked, RATE, stop=over.is_set)
    under_load(load, attacking, watching)
    return found


def nothing(_: httpx.Client, __: Sequence[bytes]) -> Counter[int]:
    """No attack."""
    time.sleep(1.0)
    return Counter()


def each_alone(client: httpx.Client, pictures: Sequence[bytes]) -> Counter[int]:
    def ask(picture: bytes) -> int:
        return client.post("/predict", content=picture).status_code

    with ThreadPoolExecutor(len(pictures)) as threads:
        return Counter(threads.map(ask, pictures))


def one_batch(client: httpx.Client, pictures: Sequence[bytes], query: str = "") -> Counter[int]:
    answer = client.post(f"/predict/batch{query}", files=_form(pictures))
    return _of_results(answer.json()["results"])


def one_batch_of_photos(client: httpx.Client, pictures: Sequence[bytes]) -> Counter[int]:
    return one_batch(client, pictures, "?mode=photo")


def one_job(client: httpx.Client, pictures: Sequence[bytes]) -> Counter[int]:
    answer = client.post("/jobs", files=_form(pictures))
    job = answer.headers["location"]
    while answer.json()["status"] in ("accepted", "running"):
        answer = client.get(job, params={"wait": "20s"})
    return _of_results(answer.json()["results"])


def _form(pictures: Sequence[bytes]) -> list[tuple[str, bytes]]:
    return [("file", picture) for picture in pictures]


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
        within_s(f"{name}: longest silence", found.silence_s, 0.5),
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
        "silence_ms": round(found.silence_s * 1000),
        "answers": {str(status): count for status, count in sorted(judged.statuses.items())},
        "memory_mib": round(found.memory_mib),
    }
