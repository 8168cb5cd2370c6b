"""A model that takes long under full load, beside a fast one: on queues of their own, and on one."""

import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.request import urlopen

from tests import second_model
from tests.e2e.services import until
from tests.faults.asking import Client, Entry, in_turn, judge
from tests.faults.fleet import Address, Fleet
from tests.faults.outcome import Outcome, least, most, none, outcome
from tests.faults.stage import TIMEOUT_S, Picture, Stage, under_load

FAST, SLOW = second_model.NAME, "slow"
PICTURE_S = 0.02
FAST_PER_S = 100
SLOW_CALLERS = 64
BATCH = 4


def queues(stage: Stage) -> Outcome:
    """A model's p99 alone, and beside 64 callers of one that takes 20 ms a picture; the same on one queue.

    The slow model sleeps, so that it takes time but no processor: with two, it would slow down whatever runs.
    Both have a worker: on queues of their own, one each; on one queue, each of the two serves both. Batches
    are small: the gateway would be busy for longer with the answers of a large one, which come at once.
    """
    with _two_models() as weights:
        own = _measure(stage, weights, {FAST: [FAST], SLOW: [SLOW]})
        shared = _measure(stage, weights, {"worker-1": [FAST, SLOW], "worker-2": [FAST, SLOW]})
    return outcome(
        [
            none("fast, wrong or without an answer", own.without_answer()),
            least("slow, answers per second over what one worker can do", own.slow_per_s * PICTURE_S, 0.9),
            most("fast, p99 beside the slow one over alone", own.ratio(), 2.0),
            least("the same on one queue", shared.ratio(), 2.0),
        ],
        {
            "slow_picture_ms": PICTURE_S * 1000,
            "slow_callers": SLOW_CALLERS,
            "batch": BATCH,
            "fast_per_s": FAST_PER_S,
            "own_queues": own.numbers(),
            "one_queue": shared.numbers(),
        },
    )


@dataclass(frozen=True)
class Measured:
    """Requests for the fast model, alone and beside the slow one, and the slow one's answers per second."""

    alone: Sequence[Entry]
    beside: Sequence[Entry]
    slow_per_s: float

    def ratio(self) -> float:
        return judge(self.beside).p99_s / judge(self.alone).p99_s

    def without_answer(self) -> int:
        return sum(not entry.right for entry in [*self.alone, *self.beside])

    def numbers(self) -> dict[str, object]:
        return {
            "fast_alone": judge(self.alone).numbers(),
            "fast_beside": judge(self.beside).numbers(),
            "p99_ratio": round(self.ratio(), 2),
            "slow_per_s": round(self.slow_per_s, 1),
        }


@contextmanager
def _two_models() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        second_model.copy_shipped(Path(folder))
        second_model.add_mirrored(Path(folder), SLOW)
        yield folder


def _measure(stage: Stage, weights: str, workers: dict[str, list[str]]) -> Measured:
    """workers: by name, the models of each. With two lists of one, the models have queues of their own."""
    settings = {
        "MLAAS_MODEL__WEIGHTS_DIR": weights,
        "MLAAS_WORKER__MAX_BATCH_SIZE": str(BATCH),
        "PACED_MODEL": SLOW,
        "PACED_PICTURE_S": str(PICTURE_S),
    }
    if all(len(models) == 1 for models in workers.values()):
        settings["MLAAS_TOPICS__QUEUES"] = json.dumps({SLOW: SLOW})
    seconds = stage.size(30, 5)
    with stage.fleet(**settings) as fleet:
        address = fleet.gateway("gateway")
        for name, models in workers.items():
            fleet.worker(name, "one-slow-model", MLAAS_MODEL__NAMES=json.dumps(models))
        until(lambda: _are_ready(fleet, {FAST, SLOW}), "both models ready")
        _ask_fast(stage, address, stage.size(10, 2))  # until caches and clocks are warm
        alone = _ask_fast(stage, address, seconds)
        with _busy(stage, address) as answered_at:
            began = time.monotonic()
            beside = _ask_fast(stage, address, seconds)
            ended = time.monotonic()
    return Measured(alone, beside, sum(began <= at < ended for at in answered_at) / (ended - began))


def _are_ready(fleet: Fleet, models: set[str]) -> bool:
    try:
        with urlopen(f"{fleet.url('gateway')}/models", timeout=5) as response:
            listed = json.load(response)["models"]
    except OSError:
        return False
    return models <= {each["name"] for each in listed if each["ready"]}


def _ask_fast(stage: Stage, address: Address, seconds: float) -> list[Entry]:
    client = Client(TIMEOUT_S, f"/predict?model={FAST}")
    pictures = (stage.pictures(number) for number in range(int(FAST_PER_S * seconds)))
    under_load(client.drive(in_turn([address]), pictures, FAST_PER_S))
    return client.entries


@contextmanager
def _busy(stage: Stage, address: Address) -> Iterator[list[float]]:
    """Callers of the slow model in a process of their own, where they do not delay those of the fast one.

    Yields a list that has the time of each answer when the block has ended.
    """
    context, answered_at = multiprocessing.get_context("spawn"), list[float]()
    ours, theirs = context.Pipe()
    over = context.Event()
    pictures = [stage.pictures(number) for number in range(SLOW_CALLERS)]
    callers = context.Process(target=_call, args=[pictures, address, theirs, over])
    callers.start()
    try:
        ours.recv()
        yield answered_at
        over.set()
        answered_at += ours.recv()
    finally:
        over.set()
        callers.join()


def _call(pictures: Sequence[Picture], address: Address, parent: Connection, over: Event) -> None:
    """Each caller asks again when it is answered. Sends None once all have been, and the times at the end."""
    client, gateway = Client(TIMEOUT_S, f"/predict?model={SLOW}"), in_turn([address])

    async def ask_repeatedly(picture: Picture, first: asyncio.Barrier) -> None:
        await client.ask(gateway, picture)
        if await first.wait() == 0:
            parent.send(None)
        while not over.is_set():
            await client.ask(gateway, picture)

    async def ask_all() -> None:
        first = asyncio.Barrier(len(pictures))
        async with client:
            await asyncio.gather(*(ask_repeatedly(picture, first) for picture in pictures))

    asyncio.run(ask_all())
    parent.send(client.answered_at)
