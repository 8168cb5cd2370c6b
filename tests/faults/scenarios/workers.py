"""Workers that are killed, paused, added and removed."""

import random
import signal
import threading
import time

from tests.faults.asking import Client, in_turn, judge, longest_gap
from tests.faults.fleet import Fleet
from tests.faults.outcome import Outcome, least, one_right_answer_each, outcome, within_s
from tests.faults.stage import TIMEOUT_S, Stage, under_load

SESSION_TIMEOUT_S = 6.0  # librdkafka's setting in messaging/kafka_config.py


class Killer:
    """kill -9 one of three workers at random every five seconds, once the last one killed works again."""

    def __init__(self, fleet: Fleet, works_again: str) -> None:
        """works_again: what a worker logs then, as a pattern."""
        self.kills = 0
        self._fleet = fleet
        self._works_again = works_again

    def __call__(self, over: threading.Event) -> None:
        chance = random.Random(1)
        while not over.wait(5):
            name = chance.choice(["worker-1", "worker-2", "worker-3"])
            self._fleet.kill(name)
            self._fleet.again(name)
            self.kills += 1
            self._fleet.wait_for(name, self._works_again)


def worker_kill(stage: Stage) -> Outcome:
    """kill -9 a worker every five seconds."""
    requests, rate = stage.size(10_000, 360), stage.size(50, 12)
    client = Client(TIMEOUT_S)
    with stage.running(3, "slow-model" if stage.quick else "") as (fleet, gateway):
        killer = Killer(fleet, "assigned partitions")
        under_load(client.drive(in_turn([gateway]), map(stage.pictures, range(requests)), rate), killer)
    judged = judge(client.entries)
    return outcome(
        [
            *one_right_answer_each(judged, 0.999),
            within_s("longest wait", judged.longest_s, SESSION_TIMEOUT_S + 5),
        ],
        judged.numbers() | {"kills": killer.kills, "requests_per_s": rate},
    )


def zombie(stage: Stage) -> Outcome:
    """SIGSTOP one of two workers for longer than max.poll.interval.ms, then SIGCONT."""
    stopped_s = 25.0
    client = Client(TIMEOUT_S)
    with stage.running(2, query="?max.poll.interval.ms=10000") as (fleet, gateway):

        def stop_and_continue(over: threading.Event) -> None:
            over.wait(5)
            fleet.signal_all("worker-1", signal.SIGSTOP)
            over.wait(stopped_s)
            fleet.signal_all("worker-1", signal.SIGCONT)

        load = client.drive(in_turn([gateway]), map(stage.pictures, range(2000)), rate=40)
        under_load(load, stop_and_continue)
        dropped = fleet.metric("gateway", "mlaas_replies_dropped_total")
        back = fleet.metric("worker-1", r"mlaas_worker_requests_total\{outcome=\"answered\"\}")
    judged = judge(client.entries)
    return outcome(
        [
            *one_right_answer_each(judged, 0.999),
            within_s("longest wait", judged.longest_s, SESSION_TIMEOUT_S + 5),
            least("answered by it, before and after", back, 1),
        ],
        judged.numbers() | {"stopped_s": stopped_s, "replies_dropped": dropped},
    )


def scaling(stage: Stage) -> Outcome:
    """Scale from one worker to six and back, repeatedly."""
    cycles, rate = stage.size(10, 1), 30
    client = Client(TIMEOUT_S)
    most_workers = stage.size(6, 3)
    with stage.running() as (fleet, gateway):
        done = threading.Event()

        def up_and_down(over: threading.Event) -> None:
            more = [f"worker-{number}" for number in range(2, most_workers + 1)]
            for _ in range(cycles):
                for name in more:
                    fleet.worker(name)
                    fleet.wait_for(name, "is warm")
                time.sleep(3)
                for name in more:
                    fleet.stop(name)
            done.set()

        load = client.drive(in_turn([gateway]), map(stage.pictures, range(1_000_000)), rate, stop=done.is_set)
        under_load(load, up_and_down)
    judged = judge(client.entries)
    return outcome(
        [
            *one_right_answer_each(judged, 1.0),
            within_s("longest pause", longest_gap(client.answered_at), 3.0),
            within_s("longest wait", judged.longest_s, 3.0),
        ],
        judged.numbers() | {"cycles": cycles, "workers": most_workers, "requests_per_s": rate},
    )
