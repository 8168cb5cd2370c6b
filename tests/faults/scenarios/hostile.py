"""Attacks: malformed files and requests, and small pictures that take long to decode."""

import asyncio
import io
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
from PIL import Image

from tests.faults.asking import Client, by_status, in_turn, judge, longest_gap, percentile, request
from tests.faults.corpus import expensive, files, requests
from tests.faults.fleet import Address, Fleet, memory_mib
from tests.faults.outcome import Check, Outcome, least, most, none, outcome, within_s
from tests.faults.stage import TIMEOUT_S, Stage, under_load

AT_ONCE = 8
PATIENCE_S = 10.0
RATE = 20.0
PAUSE_S = 0.5
MOST_MIB = 900
"""For a worker's processes; compose.yaml limits its container to more."""

# An answer, a refusal, or a timeout.
ANSWERS = frozenset({200, 413, 422, 429, 504})

Attack = Callable[[httpx.Client, Sequence[bytes]], Counter[int]]
"""Waits for all answers and counts the pictures by status."""


@dataclass(slots=True)
class Answers:
    """Status 0: the server closed the connection, as it may after bytes that are not HTTP. -1: no answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")

    def add(self, name: str, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.seconds.append(seconds)
        self.slowest = max(self.slowest, (seconds, name))
        if status >= 500:
            self.failed.append(f"{status} {name}")


def hostile(stage: Stage) -> Outcome:
    """Hundreds of crafted files and requests, then thousands of files with a few damaged bytes."""
    with stage.running() as (fleet, address):
        good = stage.pictures(0)
        crafted = [
            *((name, request(address, "/predict", content, 30)) for name, content in files.pictures()),
            *requests.requests(good.content),
        ]
        mutated = files.mutated(_originals(good.content), stage.size(20_000, 1_000), seed=1)
        before = fleet.pids("worker-1")
        pids = [*before, *fleet.pids("gateway")]
        asyncio.run(_send(address, crafted[: stage.size(len(crafted), 60)], Answers()))  # warm up
        resident = memory_mib(pids)
        answers, from_mutated = Answers(), Answers()
        asyncio.run(_send(address, crafted, answers))
        mutants = [
            (f"mutant {number}", request(address, _path(number), content, 30))
            for number, content in enumerate(mutated)
        ]
        asyncio.run(_send(address, mutants, from_mutated))
        grown = memory_mib(pids) - resident
        restarts = len(before.keys() - fleet.pids("worker-1").keys())
        client = Client(PATIENCE_S)
        asyncio.run(client.drive(in_turn([address]), [good], rate=1))
    return outcome(
        [
            least("crafted", len(crafted), 300),
            least("mutated", len(mutants), stage.size(20_000, 1_000)),
            none("answered 5xx", len(answers.failed) + len(from_mutated.failed)),
            none("not answered and not closed", answers.statuses[-1] + from_mutated.statuses[-1]),
            within_s("crafted: slowest answer", answers.slowest[0], 1.0),
            within_s("mutated: slowest answer", from_mutated.slowest[0], 1.0),
            none("processes of the worker that ended", restarts),
            most("memory grown, MiB", grown, 64),
            least("a good picture afterwards", sum(entry.right for entry in client.entries), 1),
        ],
        {
            "crafted": by_status(answers.statuses),
            "mutated": by_status(from_mutated.statuses),
            "crafted_slowest": answers.slowest[1],
            "failed": answers.failed + from_mutated.failed,
            "mutated_p99_ms": round(percentile(from_mutated.seconds, 0.99) * 1000, 1),
        },
    )


def _path(number: int) -> str:
    return f"/predict?mode={('auto', 'photo', 'product', 'raw28')[number % 4]}"


def _originals(good: bytes) -> list[bytes]:
    garment = Image.open(io.BytesIO(good)).resize((60, 60))
    forms = [files.encoded(garment, kind) for kind in files.ACCEPTED]
    progressive = files.encoded(garment, "JPEG", progressive=True)
    palette = files.encoded(garment.convert("P"), "PNG")
    return [good, *(file for file in (*forms, progressive, palette) if file)]


async def _send(address: Address, messages: list[tuple[str, bytes]], into: Answers) -> None:
    waiting = iter(messages)

    async def send_in_sequence() -> None:
        for name, message in waiting:
            began = time.monotonic()
            try:
                status = await asyncio.wait_for(_status(address, message), PATIENCE_S)
            except TimeoutError:
                status = -1
            into.add(name, status, time.monotonic() - began)

    await asyncio.gather(*(send_in_sequence() for _ in range(AT_ONCE)))


async def _status(address: Address, message: bytes) -> int:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(message)
        line = await reader.readline()
        return int(line.split(b" ", 2)[1]) if line.startswith(b"HTTP/") else 0
    except (ConnectionError, ValueError):
        return 0
    finally:
        writer.close()


@dataclass(slots=True)
class Found:
    """The answers to an attack, and those to the normal client meanwhile."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    memory_mib: float = 0.0
    client: Client = field(default_factory=lambda: Client(TIMEOUT_S))

    @property
    def silence_s(self) -> float:
        """The longest time without an answer, between the first and the last request due."""
        dues = [entry.due for entry in self.client.entries]
        return longest_gap([min(dues), *self.client.answered_at, max(dues)])


def expensive_pictures(stage: Stage) -> Outcome:
    """Repeat each attack beside a normal client, whose p99 must stay near what it is without an attack."""
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
    with stage.running() as (fleet, address):
        before = fleet.pids("worker-1")
        beside(stage, fleet, address, nothing, [])  # warm up
        alone = beside(stage, fleet, address, nothing, [])
        found = {name: beside(stage, fleet, address, *attack) for name, attack in attacks.items()}
        ended = len(before.keys() - fleet.pids("worker-1").keys())
    alone_p99_s = _p99_s(alone.client)
    return outcome(
        [
            *itertools.chain.from_iterable(_checks(name, each, alone_p99_s) for name, each in found.items()),
            none("processes of the worker that ended", ended),
            most("memory of the worker, MiB", max(each.memory_mib for each in found.values()), MOST_MIB),
        ],
        {"alone": _numbers(alone)} | {name: _numbers(each) for name, each in found.items()},
    )


def beside(stage: Stage, fleet: Fleet, address: Address, attack: Attack, pictures: Sequence[bytes]) -> Found:
    """Run the normal client until the attack is over, which takes ten seconds in the long form."""
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
        pids, until = fleet.pids("worker-1"), time.monotonic() + 0.5
        while not ended.wait(0.02):
            found.memory_mib = max(found.memory_mib, memory_mib(pids))
            if time.monotonic() > until:
                pids, until = fleet.pids("worker-1"), time.monotonic() + 0.5

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
        none(
            f"{name}: answered otherwise",
            sum(count for status, count in found.statuses.items() if status not in ANSWERS),
        ),
        none(f"{name}: normal client, not answered 200", judged.requests - judged.statuses.get(200, 0)),
        none(f"{name}: normal client, wrong", judged.wrong),
        least(f"{name}: normal client, asked", judged.requests, 20),
        within_s(f"{name}: p99", judged.p99_s, 3 * alone_p99_s),
        within_s(f"{name}: longest silence", found.silence_s, 0.5),
    ]


def _p99_s(client: Client) -> float:
    return percentile((entry.seconds for entry in client.entries if entry.status == 200), 0.99)


def _numbers(found: Found) -> dict[str, object]:
    judged = judge(found.client.entries)
    return {
        "attack_answers": by_status(found.statuses),
        "attack_s": round(found.seconds, 1),
        "p50_ms": round(judged.p50_s * 1000, 1),
        "p99_ms": round(judged.p99_s * 1000, 1),
        "longest_ms": round(judged.longest_s * 1000, 1),
        "silence_ms": round(found.silence_s * 1000),
        "answers": by_status(judged.statuses),
        "memory_mib": round(found.memory_mib),
    }
