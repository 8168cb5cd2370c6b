"""Brokers that are killed, and topics that change while they are in use."""

import asyncio
import itertools
import shutil
import threading
import time
from collections.abc import Callable

from deploy.kafka.local_kafka import LocalCluster, LocalKafka
from tests.e2e.services import until
from tests.faults.asking import Client, in_turn, judge, percentile
from tests.faults.fleet import Address, Fleet
from tests.faults.outcome import Outcome, least, none, one_right_answer_each, outcome, within_s
from tests.faults.scenarios.jobs import GATEWAYS, JobClient
from tests.faults.stage import TIMEOUT_S, Stage, under_load

AWAY_S = 10.0
PATIENCE_S = 60.0
SHARED = ("requests", "replies", "jobs", "job_replies", "dead_letters")


def broker_kill(stage: Stage) -> Outcome:
    """kill -9 one of three brokers every twenty seconds; every topic is replicated to all three."""
    requests, rate = stage.size(10_000, 1_500), 50
    client = Client(TIMEOUT_S)
    kills = 0
    with LocalCluster(3) as cluster, stage.running(2, kafka=cluster.bootstrap_servers) as (_, gateway):

        def kill_one_repeatedly(over: threading.Event) -> None:
            nonlocal kills
            while not over.wait(20):
                broker = cluster.brokers[kills % len(cluster.brokers)]
                broker.kill()
                broker.start()
                kills += 1

        load = client.drive(in_turn([gateway]), map(stage.pictures, range(requests)), rate)
        under_load(load, kill_one_repeatedly)
    judged = judge(client.entries)
    return outcome(
        one_right_answer_each(judged, 0.999),
        judged.numbers() | {"kills": kills, "brokers": 3, "requests_per_s": rate},
    )


def broker_outage(stage: Stage) -> Outcome:
    """kill -9 the only broker and start it again ten seconds later."""
    client = Client(TIMEOUT_S)
    with LocalKafka() as kafka, stage.running(2, kafka=kafka.bootstrap_servers) as (_, gateway):
        back_at = 0.0

        def kill_for_a_while(over: threading.Event) -> None:
            nonlocal back_at
            over.wait(5)
            kafka.kill()
            time.sleep(AWAY_S)
            kafka.start()
            back_at = time.monotonic()

        load = client.drive(in_turn([gateway]), map(stage.pictures, range(2_000)), rate=50)
        under_load(load, kill_for_a_while)
    judged = judge(client.entries)
    refused_s = [entry.seconds for entry in client.entries if entry.status == 503]
    first_s = min((at - back_at for at in client.answered_at if at > back_at), default=TIMEOUT_S)
    return outcome(
        [
            *one_right_answer_each(judged),
            none("connection errors", judged.statuses.get(0, 0)),
            least("answered 503 meanwhile", len(refused_s), 1),
            within_s("503s: p99", percentile(refused_s, 0.99), 0.1),
            within_s("first 200 after its return", first_s, 5.0),
        ],
        judged.numbers() | {"away_s": AWAY_S, "p50_of_503s_ms": round(percentile(refused_s, 0.5) * 1000, 1)},
    )


def more_partitions(stage: Stage) -> Outcome:
    """12 partitions become 18, then 30, under requests and jobs; then a gateway is added."""
    rate, steps = stage.size(100, 20), (30,) if stage.quick else (18, 30)
    client, newcomer = Client(TIMEOUT_S), Client(TIMEOUT_S)
    done = threading.Event()
    with stage.fleet() as fleet:
        addresses = [fleet.gateway(name) for name in GATEWAYS]
        fleet.workers(2)
        fleet.wait_until_ready()
        submitted = JobClient(fleet)

        def add_and_use_them(over: threading.Event) -> None:
            over.wait(3)
            try:
                for count in steps:
                    fleet.add_partitions(count, *SHARED)
                    until(lambda count=count: used(fleet) == count, f"using {count}")  # type: ignore[misc]
            finally:
                done.set()

        async def load() -> None:
            async with asyncio.TaskGroup() as both:
                pictures = map(stage.pictures, itertools.count())
                both.create_task(client.drive(in_turn(addresses), pictures, rate, stop=done.is_set))
                jobs = [[stage.pictures(number) for number in range(5)] for _ in range(stage.size(40, 15))]
                both.create_task(submitted.drive(jobs, 1))

        under_load(load(), add_and_use_them)
        asyncio.run(submitted.collect())
        another = fleet.gateway("gateway-3")
        fleet.wait_until_ready("gateway-3")
        asyncio.run(newcomer.drive(in_turn([another]), map(stage.pictures, range(50)), 50))
    judged = judge([*client.entries, *newcomer.entries])
    verdicts = [verdict for job in submitted.jobs for verdict in job.verdicts()]
    return outcome(
        [
            *one_right_answer_each(judged, 1.0),
            none("pictures of jobs lost, wrong or double", len(verdicts) - verdicts.count("right")),
            within_s("longest wait", judged.longest_s, 3.0),
        ],
        judged.numbers()
        | {"partitions": [12, *steps], "requests_per_s": rate, "pictures_of_jobs": len(verdicts)},
    )


def used(fleet: Fleet) -> int:
    """The number of partitions of the requests topic that have had messages."""
    return sum(end > 0 for end in fleet.ends("requests").values())


def topics_again(stage: Stage) -> Outcome:
    """Delete and recreate each topic after restarts of the broker; at last, lose its disk."""
    with LocalKafka() as kafka, stage.running(2, kafka=kafka.bootstrap_servers) as (fleet, gateway):
        answers = Answers(stage, gateway)

        def restart(end: Callable[[], None]) -> None:
            for _ in range(stage.size(2, 1)):
                end()
                kafka.start()
            answers.wait()

        def recreate(*names: str) -> None:
            fleet.delete_topics(*names)
            fleet.create_topics()

        took_s: dict[str, float] = {}
        for name in [] if stage.quick else fleet.topics:
            restart(kafka.stop)
            recreate(name)
            took_s[name] = answers.wait()
        restart(kafka.kill)
        recreate(*fleet.topics)
        took_s["all"] = answers.wait()
        kafka.kill()
        shutil.rmtree(kafka.data)
        kafka.start()
        fleet.create_topics()
        took_s["the disk"] = answers.wait()
        ended = fleet.ended()
    judged = judge(answers.client.entries)
    return outcome(
        [
            none("wrong", judged.wrong),
            none("double", judged.double),
            none("processes ended", len(ended)),
            within_s("longest until the next 200", max(took_s.values()), 15.0),
        ],
        judged.numbers() | {"s_until_the_next_200": {what: round(s, 1) for what, s in took_s.items()}},
    )


class Answers:
    """Sends one request after the other until the service answers again."""

    def __init__(self, stage: Stage, gateway: Address) -> None:
        self.client = Client(TIMEOUT_S)
        self._choose = in_turn([gateway])
        self._pictures = map(stage.pictures, itertools.count())

    def wait(self) -> float:
        """Wait for twenty answers in a row. Returns the seconds until the first."""
        began = time.monotonic()
        asyncio.run(self._wait())
        return next(at for at in self.client.answered_at if at > began) - began

    async def _wait(self) -> None:
        in_a_row, end = 0, time.monotonic() + PATIENCE_S
        async with self.client:
            while in_a_row < 20:
                assert time.monotonic() < end, f"not answered within {PATIENCE_S:g} s"
                entry = await self.client.ask(self._choose, next(self._pictures))
                in_a_row = in_a_row + 1 if entry.status == 200 else 0
                await asyncio.sleep(0.0 if in_a_row else 0.1)
