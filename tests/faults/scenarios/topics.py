"""Topics that change while they are in use: partitions are added, or topics are deleted and created again."""

import asyncio
import itertools
import shutil
import threading
import time
from collections.abc import Callable

from deploy.kafka.local_kafka import LocalKafka
from tests.e2e.services import until
from tests.faults.asking import Address, Client, in_turn
from tests.faults.fleet import Fleet
from tests.faults.ledger import judge
from tests.faults.outcome import Outcome, least, none, one_right_answer_each, outcome, within_s
from tests.faults.scenarios.jobs import GATEWAYS, JobClient
from tests.faults.stage import TIMEOUT_S, Stage, under_load

SHARED = ("requests", "replies", "jobs", "job_replies", "dead_letters")
PATIENCE_S = 60.0


def more_partitions(stage: Stage) -> Outcome:
    """12 partitions become 18 and then 30, with requests and jobs on their way; then a gateway is added."""
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
        "more-partitions",
        [
            *one_right_answer_each(judged),
            least("answered 200, share", judged.share(200), 1.0),
            none("pictures of jobs lost, wrong or double", len(verdicts) - verdicts.count("right")),
            within_s("longest wait", judged.longest_s, 3.0),
        ],
        judged.numbers()
        | {"partitions": [12, *steps], "requests_per_s": rate, "pictures_of_jobs": len(verdicts)},
    )


def used(fleet: Fleet) -> int:
    """How many partitions of the requests have had messages."""
    return sum(end > 0 for end in fleet.ends("requests").values())


def topics_again(stage: Stage) -> Outcome:
    """Each topic is deleted and created again, after restarts of the broker; then its disk is lost."""
    with LocalKafka() as kafka, stage.fleet(kafka.bootstrap_servers) as fleet:
        gateway = fleet.gateway("gateway")
        fleet.workers(2)
        fleet.wait_until_ready()
        answers = Answers(stage, gateway)

        def start_anew(end: Callable[[], None]) -> None:
            for _ in range(stage.size(2, 1)):
                end()
                kafka.start()
            answers.wait()

        def create_again(*names: str) -> None:
            fleet.delete_topics(*names)
            fleet.create_topics()

        took_s: dict[str, float] = {}
        for name in [] if stage.quick else fleet.topics:
            start_anew(kafka.stop)
            create_again(name)
            took_s[name] = answers.wait()
        start_anew(kafka.kill)
        create_again(*fleet.topics)
        took_s["all"] = answers.wait()
        kafka.kill()
        shutil.rmtree(kafka.data)
        kafka.start()
        fleet.create_topics()
        took_s["the disk"] = answers.wait()
        ended = fleet.ended()
    judged = judge(answers.client.entries)
    return outcome(
        "topics-again",
        [
            none("wrong", judged.wrong),
            none("double", judged.double),
            none("processes ended", len(ended)),
            within_s("longest until the next 200", max(took_s.values()), 15.0),
        ],
        judged.numbers() | {"s_until_the_next_200": {what: round(s, 1) for what, s in took_s.items()}},
    )


class Answers:
    """Whether requests are answered. One after the other is asked, and a few at once in the end."""

    def __init__(self, stage: Stage, gateway: Address) -> None:
        self.client = Client(TIMEOUT_S)
        self._choose = in_turn([gateway])
        self._pictures = map(stage.pictures, itertools.count())

    def wait(self) -> float:
        """Until twenty in a row are answered. Returns how long the first took."""
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
