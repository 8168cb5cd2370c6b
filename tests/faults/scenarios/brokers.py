"""Brokers that are killed: one of three again and again, or the only one."""

import threading
import time

from deploy.kafka.local_cluster import LocalCluster
from deploy.kafka.local_kafka import LocalKafka
from tests.faults.asking import Client, in_turn
from tests.faults.ledger import judge, percentile
from tests.faults.outcome import Outcome, least, none, one_right_answer_each, outcome, within_s
from tests.faults.stage import TIMEOUT_S, Stage, under_load

AWAY_S = 10.0


def broker_kill(stage: Stage) -> Outcome:
    """kill -9 one of three brokers every twenty seconds; every topic is on all three."""
    requests, rate = stage.size(10_000, 1_500), 50
    client = Client(TIMEOUT_S)
    kills = 0
    with LocalCluster(3) as cluster, stage.fleet(cluster.bootstrap_servers) as fleet:
        gateway = fleet.gateway("gateway")
        fleet.worker("worker-1")
        fleet.worker("worker-2")
        fleet.wait_until_ready()

        def kill_one_again_and_again(over: threading.Event) -> None:
            nonlocal kills
            while not over.wait(20):
                broker = cluster.brokers[kills % len(cluster.brokers)]
                broker.kill()
                broker.start()
                kills += 1

        load = client.drive(in_turn([gateway]), map(stage.pictures, range(requests)), rate)
        under_load(load, kill_one_again_and_again)
    judged = judge(client.entries)
    return outcome(
        "broker-kill",
        [*one_right_answer_each(judged), least("answered 200, share", judged.share(200), 0.999)],
        judged.numbers() | {"kills": kills, "brokers": 3, "requests_per_s": rate},
    )


def broker_outage(stage: Stage) -> Outcome:
    """The only broker is killed, and started again ten seconds later."""
    client = Client(TIMEOUT_S)
    with LocalKafka() as kafka, stage.fleet(kafka.bootstrap_servers) as fleet:
        gateway = fleet.gateway("gateway")
        fleet.workers(2)
        fleet.wait_until_ready()
        back_at = 0.0

        def away_for_a_while(over: threading.Event) -> None:
            nonlocal back_at
            over.wait(5)
            kafka.kill()
            time.sleep(AWAY_S)
            kafka.start()
            back_at = time.monotonic()

        load = client.drive(in_turn([gateway]), map(stage.pictures, range(2_000)), rate=50)
        under_load(load, away_for_a_while)
    judged = judge(client.entries)
    refused_s = sorted(entry.seconds for entry in client.entries if entry.status == 503)
    first_s = min((at - back_at for at in client.answered_at if at > back_at), default=TIMEOUT_S)
    return outcome(
        "broker-outage",
        [
            *one_right_answer_each(judged),
            none("connection errors", judged.statuses.get(0, 0)),
            least("answered 503 meanwhile", len(refused_s), 1),
            within_s("503s: p99", percentile(refused_s, 0.99), 0.1),
            within_s("first 200 after its return", first_s, 5.0),
        ],
        judged.numbers() | {"away_s": AWAY_S, "p50_of_503s_ms": round(percentile(refused_s, 0.5) * 1000, 1)},
    )
