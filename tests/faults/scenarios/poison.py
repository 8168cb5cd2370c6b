"""A picture that kills the model process, and one that hangs it."""

import threading
import time

from tests.faults.asking import Client, in_turn
from tests.faults.dead_letters import dead_letters
from tests.faults.fleet import Fleet
from tests.faults.ledger import Verdict, judge, longest_gap
from tests.faults.outcome import Check, Outcome, least, most, none, outcome, within_s
from tests.faults.pictures import Picture
from tests.faults.stage import TIMEOUT_S, Stage, under_load
from tests.fragile_model import HANG, KILL

PROCESS = "tests.fragile_model"


def poison_kill(stage: Stage) -> Outcome:
    """One of a thousand pictures kills the model process (SIGSEGV)."""
    client, pictures = Client(TIMEOUT_S), _with_one(stage, KILL)
    with stage.fleet() as fleet:
        gateway = fleet.gateway("gateway")
        fleet.worker("worker", "fragile-model")
        fleet.wait_until_ready()
        under_load(client.drive(in_turn([gateway]), pictures, rate=50))
        starts = fleet.metric("worker", "mlaas_worker_model_starts")
        buried = _buried(stage, fleet, pictures)
    judged = judge(client.entries)
    return outcome(
        "poison-kill",
        [
            *_one_error(judged, len(pictures), (200,)),
            *buried,
            most("model processes", starts, 2),
            within_s("longest pause", longest_gap(client.answered_at), 3.0),
        ],
        judged.numbers(),
    )


def hang(stage: Stage) -> Outcome:
    """A predict that never ends, on the only worker: gateways refuse at once what comes meanwhile."""
    limit_s = stage.size(10, 3)
    client, pictures = Client(TIMEOUT_S), _with_one(stage, HANG)
    with stage.fleet() as fleet:
        gateway = fleet.gateway("gateway")
        fleet.worker("worker", "fragile-model", MLAAS_WORKER__MODEL_TIMEOUT_MS=str(limit_s * 1000))
        fleet.wait_until_ready()
        watch = ModelProcesses(fleet, "worker")
        under_load(client.drive(in_turn([gateway]), pictures, rate=50), watch.look)
        buried = _buried(stage, fleet, pictures)
    judged = judge(client.entries)
    hung_at = next(entry.due for entry in client.entries if entry.status == 500)
    replaced_s = min((at - hung_at for at in watch.seen.values() if at > hung_at), default=TIMEOUT_S)
    return outcome(
        "hang",
        [
            *_one_error(judged, len(pictures), (200, 503)),
            *buried,
            within_s("model process replaced after", replaced_s, limit_s + 3),
        ],
        judged.numbers() | {"limit_s": limit_s},
    )


class ModelProcesses:
    """When each was first seen."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet, self._name = fleet, name
        self.seen: dict[int, float] = {}

    def look(self, over: threading.Event) -> None:
        while not over.wait(0.1):
            for pid, command in self._fleet.pids(self._name).items():
                if PROCESS in command:
                    self.seen.setdefault(pid, time.monotonic())


def _with_one(stage: Stage, mark: bytes) -> list[Picture]:
    count = stage.size(1_000, 200)
    return [stage.pictures(number, mark if number == count // 2 else b"") for number in range(count)]


def _one_error(judged: Verdict, count: int, others: tuple[int, ...]) -> list[Check]:
    return [
        none("lost", judged.lost),
        none("wrong", judged.wrong),
        least(
            f"answered {' or '.join(map(str, others))}",
            sum(judged.statuses.get(status, 0) for status in others),
            count - 1,
        ),
        least("answered 500", judged.statuses.get(500, 0), 1),
    ]


def _buried(stage: Stage, fleet: Fleet, pictures: list[Picture]) -> list[Check]:
    letters = dead_letters(stage.kafka, fleet.topics["dead_letters"])
    culprit = pictures[len(pictures) // 2]
    found = [letter for letter in letters if letter.body == culprit.content]
    named = [letter for letter in found if letter.headers.get("kafka_dlt-exception-message")]
    return [
        Check("dead letters", len(letters), "==", 1),
        Check("of them the picture, with its reason", len(named), "==", 1),
    ]
