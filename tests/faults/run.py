"""Break the running system and check every answer: `python -m tests.faults.run`."""

import argparse
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from deploy.kafka.local_kafka import LocalKafka, missing_tools
from tests.faults.outcome import RESULTS, Outcome, write
from tests.faults.scenarios import (
    brokers,
    gateways,
    hostile,
    jobs,
    load,
    models,
    pubsub,
    queues,
    rollout,
    upgrade,
    workers,
)
from tests.faults.stage import Pictures, Stage
from tests.pubsub import local_pubsub
from tests.pubsub.local_pubsub import LocalPubSub

SCENARIOS: dict[str, Callable[[Stage], Outcome]] = {
    "worker-kill": workers.worker_kill,
    "cross-talk": gateways.cross_talk,
    "broker-kill": brokers.broker_kill,
    "broker-outage": brokers.broker_outage,
    "more-partitions": brokers.more_partitions,
    "topics-again": brokers.topics_again,
    "gateway-rolling": gateways.gateway_rolling,
    "deadline": gateways.deadline,
    "poison-kill": models.poison_kill,
    "hang": models.hang,
    "overload": load.overload,
    "scaling": workers.scaling,
    "zombie": workers.zombie,
    "hang-up": load.hang_up,
    "jobs": jobs.jobs,
    "hostile": hostile.hostile,
    "expensive": hostile.expensive_pictures,
    "queues": queues.queues,
    "corrupted-models": models.corrupted_models,
    "rollout": rollout.rollout,
    "upgrade": upgrade.upgrade,
    "pubsub-worker-kill": pubsub.worker_kill,
    "pubsub-gateway-kill": pubsub.gateway_kill,
    "pubsub-outage": pubsub.outage,
    "pubsub-frozen": pubsub.frozen,
    "pubsub-poison": pubsub.poison,
    "pubsub-duplicates": pubsub.duplicates,
    "pubsub-slow-worker": pubsub.slow_worker,
    "pubsub-stopped-worker": pubsub.stopped_worker,
    "pubsub-cost": pubsub.cost,
    "soak": load.soak,
}


@contextmanager
def no_collections() -> Iterator[None]:
    """Collecting garbage in the clients' long lists of entries would delay the clients."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def play(name: str, stage: Stage) -> Outcome:
    """Raises AssertionError if the system does not become ready."""
    began = time.monotonic()
    with no_collections():
        found = SCENARIOS[name](stage)
    return msgspec.structs.replace(found, name=name, seconds=round(time.monotonic() - began, 1))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Break the running system. Keep the machine quiet meanwhile."
    )
    over_kafka = [name for name in SCENARIOS if not name.startswith("pubsub")]
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=over_kafka, metavar="NAME")
    parser.add_argument("--to", type=Path, default=RESULTS, metavar="FILE", help="write the outcomes here")
    parser.add_argument("--quick", action="store_true", help="short forms; writes nothing")
    parser.add_argument("--list", action="store_true", help="the names of the scenarios")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        print("\n".join(SCENARIOS))
        return
    over_pubsub = any(name.startswith("pubsub") for name in chosen.only)
    if problem := missing_tools() or (local_pubsub.missing_tools() if over_pubsub else None):
        sys.exit(problem)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # runs the context managers' exits
    outcomes = []
    with LocalKafka() as kafka, ExitStack() as opened:
        fake = opened.enter_context(LocalPubSub()) if over_pubsub else None
        if fake is not None:
            os.environ["PUBSUB_EMULATOR_HOST"] = fake.host  # for all processes
        stage = Stage(
            kafka.bootstrap_servers, Pictures(), chosen.quick, running_pubsub=fake, kafka_pid=kafka.pid
        )
        for name in chosen.only:
            outcomes.append(play(name, stage))
            print(outcomes[-1], flush=True)
            if not outcomes[-1].passed:
                print(f"      {outcomes[-1].numbers}", flush=True)
            if not chosen.quick:
                whole = chosen.only == over_kafka and chosen.to == RESULTS
                write(outcomes, "make faults" if whole else _command(chosen), chosen.to)
    sys.exit(0 if all(each.passed for each in outcomes) else 1)


def _command(chosen: argparse.Namespace) -> str:
    again = f"python -m tests.faults.run --only {' '.join(chosen.only)}"
    return f"make faults, and some again: {again}" if chosen.to == RESULTS else f"{again} --to {chosen.to}"


if __name__ == "__main__":
    main()
