"""Break the running system and see what becomes of the requests: `python -m tests.faults.run`."""

import argparse
import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from deploy.kafka.jars import missing_tools
from deploy.kafka.local_kafka import LocalKafka
from tests.faults import report
from tests.faults.outcome import Outcome
from tests.faults.pictures import Pictures
from tests.faults.scenarios import (
    brokers,
    expensive,
    gateways,
    hostile,
    jobs,
    load,
    models,
    poison,
    soak,
    topics,
    workers,
)
from tests.faults.stage import Stage

SCENARIOS: dict[str, Callable[[Stage], Outcome]] = {
    "worker-kill": workers.worker_kill,
    "cross-talk": gateways.cross_talk,
    "broker-kill": brokers.broker_kill,
    "broker-outage": brokers.broker_outage,
    "more-partitions": topics.more_partitions,
    "topics-again": topics.topics_again,
    "gateway-rolling": gateways.gateway_rolling,
    "deadline": gateways.deadline,
    "poison-kill": poison.poison_kill,
    "hang": poison.hang,
    "overload": load.overload,
    "scaling": workers.scaling,
    "zombie": workers.zombie,
    "hang-up": load.hang_up,
    "jobs": jobs.jobs,
    "hostile": hostile.hostile,
    "expensive": expensive.expensive_pictures,
    "corrupted-models": models.corrupted_models,
    "soak": soak.soak,
}


@contextmanager
def no_collections() -> Iterator[None]:
    """The longer the client's ledger, the longer would looking through it for garbage hold up the client."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def play(name: str, stage: Stage) -> Outcome:
    """Raises AssertionError where the system does not even become ready."""
    began = time.monotonic()
    with no_collections():
        found = SCENARIOS[name](stage)
    return msgspec.structs.replace(found, seconds=round(time.monotonic() - began, 1))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Break the running system. Keep the machine quiet meanwhile."
    )
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="short forms; writes nothing")
    parser.add_argument("--list", action="store_true", help="the names of the scenarios")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        print("\n".join(SCENARIOS))
        return
    if problem := missing_tools():
        sys.exit(problem)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends what was started, too
    outcomes = []
    with LocalKafka() as kafka:
        stage = Stage(kafka.bootstrap_servers, Pictures(), chosen.quick)
        for name in chosen.only:
            outcomes.append(play(name, stage))
            print(report.line(outcomes[-1]), flush=True)
            if not outcomes[-1].passed:
                print(f"      {outcomes[-1].numbers}", flush=True)
            if not chosen.quick:
                report.write(outcomes, "make faults")
    sys.exit(0 if all(each.passed for each in outcomes) else 1)


if __name__ == "__main__":
    main()
