"""Who is measured, with what loads."""

from collections.abc import Callable, Container
from contextlib import AbstractContextManager

import msgspec

from bench import names
from bench.asking import AskingFailed, ask, warm_up
from bench.figures import CLIENTS
from bench.measured import Measured, say, words
from bench.peers.catalogue import PEERS, peer
from bench.report import BARE, EMBEDDED, KAFKA, Case
from bench.systems import CONSUMER, GATEWAY, MODEL, System, bare, mlaas
from deploy.kafka.local_kafka import LocalKafka

LOW_RATE_PER_S = 50.0
HIGH_RATE_PER_S = 500.0
WITH_TWO_WORKERS = ("Mosec", "LitServe", "FastAPI")
WITH_HIGH_RATE = (KAFKA, EMBEDDED, "Mosec")

_WARM_UP_S = 2.0


class Contender(msgspec.Struct, frozen=True):
    """group: by which --only chooses it."""

    group: str
    system: str
    workers: int
    start: Callable[[], AbstractContextManager[System]]


def contenders(kafka: LocalKafka) -> list[Contender]:
    """The embedded broker is part of mlaas's own group."""
    url = f"kafka://{kafka.bootstrap_servers}"
    found = [Contender("limits", BARE, 1, bare)]
    for workers in (1, 2):
        found += [
            Contender("mlaas", KAFKA, workers, lambda n=workers: mlaas(url, n, kafka.pid)),  # type: ignore[misc]
            Contender("mlaas", EMBEDDED, workers, lambda n=workers: mlaas("embedded://", n)),  # type: ignore[misc]
        ]
    for name in PEERS:
        for workers in (1, 2) if name in WITH_TWO_WORKERS else (1,):
            found.append(Contender("peers", name, workers, lambda n=name, w=workers: peer(n, w)))  # type: ignore[misc]
    return found


def cases(contender: Contender, system: System) -> list[Case]:
    """With two workers, only the loads that could need them."""
    several = contender.workers > 1
    plain = Case(system=contender.system, workers=contender.workers, body=system.body)
    found = [_at(plain, clients=clients) for clients in (CLIENTS[2:] if several else CLIENTS)]
    if "form" in system.urls and not several:
        found.append(_at(plain, clients=64, body="form"))
    if contender.system == BARE:
        found.append(_at(plain, clients=64, generator="mlaas.load"))
    elif not several:
        rates = [LOW_RATE_PER_S, *([HIGH_RATE_PER_S] if contender.system in WITH_HIGH_RATE else [])]
        found += [_at(plain, rate_per_s=rate, generator="mlaas.load") for rate in rates]
    return found


def measure(contender: Contender, seconds: float, into: Measured) -> None:
    """Start it, go through all its loads, end it. A load that gets no answer is noted.

    Raises PeerFailed, AskingFailed where it does not even answer rightly, AssertionError.
    """
    say(f"{contender.system}, workers: {contender.workers}")
    with contender.start() as system:
        warm_up(system, min(_WARM_UP_S, seconds))
        for case in cases(contender, system):
            try:
                into.cell(case, ask(system, case, seconds))
            except AskingFailed as error:
                into.fails(contender.system, f"{words(case)}: {error}")
        if contender.workers == 1:
            _note_footprint(contender.system, system, into)


def _note_footprint(name: str, system: System, into: Measured) -> None:
    taken = system.memory_mb()
    into.value(f"{name}, all processes resident, MB", sum(taken.values()))
    if name == KAFKA:
        into.value(names.GATEWAY_MB, taken[GATEWAY])
        into.value(names.WORKER_MB, taken[CONSUMER] + taken[MODEL])
    if name == EMBEDDED:
        into.value(names.UP_READY_S, system.ready_s)


def _at(case: Case, **changed: object) -> Case:
    return msgspec.structs.replace(case, **changed)


def chosen(groups: Container[str], absent: Container[str], kafka: LocalKafka) -> list[Contender]:
    """Of these groups, but for the absent systems."""
    return [each for each in contenders(kafka) if each.group in groups and each.system not in absent]
