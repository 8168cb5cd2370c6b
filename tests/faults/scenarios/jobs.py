"""Jobs while gateways and workers are killed."""

import asyncio
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import cycle

import httpx

from tests.faults.fleet import Fleet
from tests.faults.outcome import Outcome, least, none, outcome, within_s
from tests.faults.stage import Picture, Stage, under_load

PICTURES_EACH = 10
PATIENCE_S = 120.0
GATEWAYS = ["gateway-1", "gateway-2"]
RETRIABLE = (429, 500, 502, 503, 504)


def jobs(stage: Stage) -> Outcome:
    """kill -9 a gateway and a worker every ten seconds; clients repeat submissions with the same key."""
    count, rate, pause_s = stage.size(1_000, 24), stage.size(10, 3), stage.size(10, 8)
    pictures = [
        [stage.pictures(job * PICTURES_EACH + number) for number in range(PICTURES_EACH)]
        for job in range(count)
    ]
    with stage.fleet() as fleet:
        for name in GATEWAYS:
            fleet.gateway(name, MLAAS_GATEWAY__INSTANCE_ID=name)
        workers = fleet.workers(2, "slow-model" if stage.quick else "")
        fleet.wait_until_ready()
        client = JobClient(fleet)
        kills = 0

        def kill_one_of_each_repeatedly(over: threading.Event) -> None:
            nonlocal kills
            chance, turn = random.Random(1), cycle(GATEWAYS)
            while not over.wait(pause_s):
                for name in (next(turn), chance.choice(workers)):
                    fleet.kill(name)
                    fleet.again(name)
                kills += 1

        under_load(client.drive(pictures, rate), kill_one_of_each_repeatedly)
        fleet.wait_until_ready()
        asyncio.run(client.collect())
        in_store = accepted_in(fleet.job_store)
    found = Counter(verdict for each in client.jobs for verdict in each.verdicts())
    longest_s = max(each.seconds for each in client.jobs)
    return outcome(
        [
            none("lost", found["lost"]),
            none("wrong", found["wrong"]),
            none("double", found["double"]),
            none("taken twice", in_store - count),
            least("kills", kills, 1),
            within_s("longest", longest_s, PATIENCE_S / 2),
        ],
        {
            "jobs": count,
            "pictures": count * PICTURES_EACH,
            "verdicts": dict(found),
            "asked_again": client.asked_again,
            "kills": kills,
            "longest_s": round(longest_s, 1),
        },
    )


class SubmittedJob:
    """A job, its results, and how long it took."""

    def __init__(self, number: int, pictures: list[Picture]) -> None:
        self.key = f"job-{number}"
        self.pictures = pictures
        self.path = ""
        self.began = time.monotonic()
        self.seconds = 0.0
        self.entries: list[dict[str, object]] = []

    def verdicts(self) -> Iterator[str]:
        """right, wrong, lost or double for each picture."""
        by_index: dict[object, list[object]] = {index: [] for index in range(len(self.pictures))}
        for entry in self.entries:
            by_index.setdefault(entry["index"], []).append(entry.get("prediction"))
        for index, predictions in by_index.items():
            if len(predictions) > 1:
                yield "double"
            elif not predictions or not isinstance(predictions[0], dict):
                yield "lost"
            else:
                picture = self.pictures[index]  # type: ignore[call-overload]
                answer = (predictions[0]["sha256"], predictions[0]["label"])
                yield "right" if answer == (picture.sha256, picture.label) else "wrong"


class JobClient:
    """Alternates between the gateways until one answers."""

    def __init__(self, fleet: Fleet) -> None:
        self._turn = cycle([fleet.url(name) for name in GATEWAYS])
        self.jobs: list[SubmittedJob] = []
        self.asked_again = 0

    async def drive(self, pictures: list[list[Picture]], rate: float) -> None:
        """Submit `rate` jobs a second and wait until each is over, for at most PATIENCE_S."""
        started = time.monotonic()
        async with self._http() as http, asyncio.TaskGroup() as asking:
            for number, each in enumerate(pictures):
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                self.jobs.append(SubmittedJob(number, each))
                asking.create_task(self._see_through(http, self.jobs[-1]))

    async def collect(self) -> None:
        """Fetch all results that are stored."""
        async with self._http() as http:
            for job in self.jobs:
                job.entries = (await self._ask(http, "GET", job.path)).json()["results"]

    async def _see_through(self, http: httpx.AsyncClient, job: SubmittedJob) -> None:
        files = [("file", (str(index), each.content)) for index, each in enumerate(job.pictures)]
        while not job.path:
            taken = await self._ask(http, "POST", "/jobs", files=files, headers={"Idempotency-Key": job.key})
            job.path = taken.headers.get("location", "")
        status = "accepted"
        while status in ("accepted", "running") and job.seconds < PATIENCE_S:
            status = (await self._ask(http, "GET", f"{job.path}?wait=5s")).json()["status"]
            job.seconds = time.monotonic() - job.began

    async def _ask(self, http: httpx.AsyncClient, method: str, path: str, **more: object) -> httpx.Response:
        """Repeat the request until a gateway answers it."""
        while True:
            try:
                response = await http.request(method, next(self._turn) + path, **more)  # type: ignore[arg-type]
                if response.status_code not in RETRIABLE:
                    return response.raise_for_status()
            except httpx.TransportError:
                pass
            self.asked_again += 1
            await asyncio.sleep(0.1)

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=40, limits=httpx.Limits(max_connections=None))


def accepted_in(path: str) -> int:
    """The number of accepted jobs in the store."""
    with closing(sqlite3.connect(path)) as store:
        return int(store.execute("SELECT count(*) FROM mlaas_jobs WHERE publish_until_ms = 0").fetchone()[0])
