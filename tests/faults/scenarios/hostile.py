"""Files and requests that no honest client sends."""

import asyncio
import io
import time
from collections import Counter
from dataclasses import dataclass, field

from PIL import Image

from tests.faults.asking import Address, Client, in_turn, request
from tests.faults.corpus import mutations, others, png, requests
from tests.faults.ledger import percentile
from tests.faults.outcome import Outcome, least, most, none, outcome, within_s
from tests.faults.pictures import Picture
from tests.faults.processes import memory_mib
from tests.faults.stage import Stage

AT_ONCE = 8
PATIENCE_S = 10.0


@dataclass(slots=True)
class Answers:
    """status 0: the server closed the connection without one, as it may over what is not HTTP."""

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
    """Hundreds of crafted files and requests, then thousands of files with a few bytes wrong."""
    with stage.fleet() as fleet:
        address = fleet.gateway("gateway")
        fleet.worker("worker")
        fleet.wait_until_ready()
        good = stage.pictures(0)
        crafted = [
            *((name, request(address, "/predict", content, 30)) for name, content in _files()),
            *requests.requests(good.content),
        ]
        files = mutations.mutated(_originals(good.content), stage.size(20_000, 1_000), seed=1)
        before = fleet.pids("worker")
        gateway = fleet.pids("gateway")
        asyncio.run(_send(address, crafted[: stage.size(len(crafted), 60)], Answers()))  # decoders are warm
        resident = memory_mib([*before, *gateway])
        answers, from_mutated = Answers(), Answers()
        asyncio.run(_send(address, crafted, answers))
        mutants = [
            (f"mutant {number}", request(address, _path(number), content, 30))
            for number, content in enumerate(files)
        ]
        asyncio.run(_send(address, mutants, from_mutated))
        grown = memory_mib([*before, *gateway]) - resident
        restarts = len(before) - len(before.keys() & fleet.pids("worker").keys())
        client = Client(PATIENCE_S)
        asyncio.run(_ask(client, address, good))
    return outcome(
        "hostile",
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
            "crafted": {str(status): count for status, count in sorted(answers.statuses.items())},
            "mutated": {str(status): count for status, count in sorted(from_mutated.statuses.items())},
            "crafted_slowest": answers.slowest[1],
            "failed": answers.failed + from_mutated.failed,
            "mutated_p99_ms": round(percentile(sorted(from_mutated.seconds), 0.99) * 1000, 1),
        },
    )


async def _ask(client: Client, address: Address, picture: Picture) -> None:
    async with client:
        await client.ask(in_turn([address]), picture)


def _files() -> list[tuple[str, bytes]]:
    return [*png.pictures(), *others.pictures()]


def _path(number: int) -> str:
    return f"/predict?mode={('auto', 'photo', 'product', 'raw28')[number % 4]}"


def _originals(good: bytes) -> list[bytes]:
    garment = Image.open(io.BytesIO(good)).resize((60, 60))
    forms = [others.encoded(garment, kind) for kind in others.ACCEPTED]
    progressive = others.encoded(garment, "JPEG", progressive=True)
    palette = others.encoded(garment.convert("P"), "PNG")
    return [good, *(file for file in (*forms, progressive, palette) if file)]


async def _send(address: Address, messages: list[tuple[str, bytes]], into: Answers) -> None:
    waiting = iter(messages)

    async def send_one_after_the_other() -> None:
        for name, message in waiting:
            began = time.monotonic()
            try:
                status = await asyncio.wait_for(_status(address, message), PATIENCE_S)
            except TimeoutError:
                status = -1
            into.add(name, status, time.monotonic() - began)

    await asyncio.gather(*(send_one_after_the_other() for _ in range(AT_ONCE)))


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
