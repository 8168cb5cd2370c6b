"""Measure mlaas beside its peers and print tables: `python -m bench.run`. See bench/README.md."""

import argparse
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from bench import aims, report, systems, tables
from bench.load import AskingFailed, ask, warm_up, wrk_is_installed
from bench.material import mobilenet_weights, usual_photo
from bench.parts import PARTS
from bench.report import (
    BARE,
    CLIENTS,
    EMBEDDED,
    GARMENTS,
    KAFKA,
    MOBILENET,
    ROOT,
    Case,
    Cell,
    Failed,
    Report,
    Scale,
)
from bench.scale import scale
from bench.systems import CACHE, CONSUMER, GATEWAY, MODEL, PEERS, PeerFailed, System
from bench.tables import LOW_RATE_PER_S
from deploy.kafka.local_kafka import LocalKafka, missing_tools
from tests.e2e.services import SAMPLES

GROUPS = ("mlaas", "peers", "mobilenet", "limits", "batch", "large", "start", "idle", "scale")
PARTIAL = CACHE / "partial.json"
PAGES = {Path("bench", "README.md"): tables.markdown, Path("docs", "scaling.md"): tables.scaling}
HIGH_RATE_PER_S = 500.0
WITH_TWO_WORKERS = ("Mosec", "LitServe", "FastAPI")
WITH_HIGH_RATE = (KAFKA, EMBEDDED, "Mosec")
QUIET_LOAD = 0.7
SHORTER = 0.6
"""The share of the time for loads that no aim is about."""

_WARM_UP_S = 2.0


class Contender(msgspec.Struct, frozen=True):
    """group is what --only selects."""

    group: str
    system: str
    workers: int
    start: Callable[[], AbstractContextManager[System]]
    model: str = GARMENTS


class Measured:
    """The results so far, also on disk, so that an interrupted run is not lost."""

    def __init__(self, asked_rounds: int, seconds: float, partial: Path) -> None:
        self.round = 0
        self.notes: list[str] = []
        self.scales: list[Scale] = []
        self._machine = report.machine()
        self._started = time.monotonic()
        self._rounds, self._seconds, self._partial = asked_rounds, seconds, partial
        self._cells: dict[Case, dict[int, Cell]] = defaultdict(dict)
        self._values: dict[str, dict[int, float]] = defaultdict(dict)
        self._failed: list[Failed] = []
        if os.getloadavg()[0] > QUIET_LOAD:
            self.notes.append("The machine was not idle before: other processes used the CPU.")

    def begins(self) -> None:
        """What was made before does not count as time of the run."""
        self._started = time.monotonic()

    @property
    def took_s(self) -> float:
        return time.monotonic() - self._started

    def cell(self, case: Case, cell: Cell) -> None:
        self._cells[case][self.round] = cell
        say(f"  {words(case)}: {cell.result.requests_per_s:.0f}/s, median {cell.result.p50_ms:.2f} ms")

    def value(self, name: str, value: float) -> None:
        self._values[name][self.round] = value
        say(f"  {name}: {value:.4g}")

    def scale(self, found: Scale) -> None:
        self.scales.append(found)
        say(f"  {found}")

    def fails(self, system: str, reason: str) -> None:
        self._failed.append(Failed(system, self.round, reason))
        say(f"  {system}: {reason}")

    def keep(self) -> None:
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        self._partial.write_bytes(report.encode(self.report()))

    def report(self, whole: bool = True) -> Report:
        """If whole is False, omit aims and ratios that were not measured."""
        found = Report(
            machine=self._machine,
            versions=report.versions(),
            command=" ".join(["python -m bench.run", *sys.argv[1:]]),
            date=datetime.now(UTC).date().isoformat(),
            rounds=self._rounds,
            seconds=self._seconds,
            shorter_s=shorter(self._seconds),
            took_s=round(self.took_s),
            notes=self.notes,
            rows=[report.row(case, cells) for case, cells in self._cells.items()],
            values={name: report.figure(values) for name, values in self._values.items()},
            scales=self.scales,
            failed=self._failed,
        )
        if least := aims.floor(found):
            found.values[aims.FLOOR_MS] = least
        return msgspec.structs.replace(
            found,
            ratios=[each for each in aims.ratios(found) if whole or each.at_64_clients or each.best_of_each],
            aims=[aim for aim in aims.aims(found) if whole or aim.value],
        )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def words(case: Case) -> str:
    load = f"{case.rate_per_s:g} a second" if case.rate_per_s else f"{case.clients} clients"
    return f"{case.system}, workers: {case.workers}, {case.model}, {case.body}, {load}, {case.generator}"


def shorter(seconds: float) -> int:
    """Whole seconds, since wrk takes no fractions."""
    return max(1, round(SHORTER * seconds))


def contenders(kafka: LocalKafka) -> Iterator[Contender]:
    url = f"kafka://{kafka.bootstrap_servers}"
    yield Contender("limits", BARE, 1, systems.bare)
    yield Contender("mlaas", EMBEDDED, 1, partial(systems.mlaas, "embedded://"))
    for workers in (1, 2):
        yield Contender("mlaas", KAFKA, workers, partial(systems.mlaas, url, workers, kafka.pid))
    for name in PEERS:
        for workers in (1, 2) if name in WITH_TWO_WORKERS else (1,):
            yield Contender("peers", name, workers, partial(systems.peer, name, workers))
    weights = str(CACHE / "weights")
    ours = {"MLAAS_MODEL__WEIGHTS_DIR": weights, "MLAAS_MODEL__DEFAULT": MOBILENET}
    theirs = {"BENCH_WEIGHTS": weights, "BENCH_MODEL": MOBILENET}
    yield Contender("mobilenet", KAFKA, 1, partial(systems.mlaas, url, 1, kafka.pid, **ours), MOBILENET)
    yield Contender("mobilenet", "Mosec", 1, partial(systems.peer, "Mosec", 1, **theirs), MOBILENET)


def cases(contender: Contender, system: System) -> list[Case]:
    """Two workers get only the loads that could need them."""
    if contender.model == MOBILENET:
        return [Case(system=contender.system, clients=64, model=MOBILENET)]
    several = contender.workers > 1
    plain = partial(Case, system=contender.system, workers=contender.workers)
    found = [plain(body=system.body, clients=clients) for clients in (CLIENTS[2:] if several else CLIENTS)]
    if "form" in system.urls and not several:
        found.append(plain(body="form", clients=64))
    if contender.system == BARE:
        found.append(plain(body=system.body, clients=64, generator="mlaas bench"))
    elif not several:
        rates = [LOW_RATE_PER_S, *([HIGH_RATE_PER_S] if contender.system in WITH_HIGH_RATE else [])]
        found += [plain(body=system.body, rate_per_s=rate, generator="mlaas bench") for rate in rates]
    return found


def measure_contender(contender: Contender, seconds: float, into: Measured) -> None:
    """Start a system, run every load on it, and stop it. Loads without answers are recorded as failed.

    Raises PeerFailed, or AskingFailed if a system gives no correct answers.
    """
    say(f"{contender.system}, workers: {contender.workers}, {contender.model}")
    pictures = [usual_photo()] if contender.model == MOBILENET else SAMPLES
    with contender.start() as system:
        warm_up(system, min(_WARM_UP_S, seconds), pictures)
        for case in cases(contender, system):
            try:
                lasting_s = seconds if aims.is_about(case) else shorter(seconds)
                into.cell(case, ask(system, case, lasting_s, pictures))
            except AskingFailed as error:
                into.fails(contender.system, f"{words(case)}: {error}")
        if contender.workers == 1 and contender.model == GARMENTS:
            _note_footprint(contender.system, system, into)


def _note_footprint(name: str, system: System, into: Measured) -> None:
    taken = system.memory_mb()
    into.value(f"{name}, all processes resident, MB", sum(taken.values()))
    if name == KAFKA:
        into.value(aims.GATEWAY_MB, taken[GATEWAY])
        into.value(aims.WORKER_MB, taken[CONSUMER] + taken[MODEL])
    if name == EMBEDDED:
        into.value(aims.UP_READY_S, system.ready_s)


def measure(measured: Measured, only: Sequence[str], rounds: int, seconds: float, minutes: float) -> None:
    """Measure all in turn, in alternating order, so that drift cancels out.

    Starts no round that would exceed the minutes.
    """
    absent = _absent(measured, only)
    measured.begins()
    with LocalKafka(lasting=True) as kafka:
        if "scale" in only:
            attempt(
                "simulated workers", partial(scale, kafka, 4 * shorter(seconds), measured.scale), measured
            )
        steps: list[tuple[str, Callable[[], None]]] = [
            (one.system, partial(measure_contender, one, seconds, measured))
            for one in contenders(kafka)
            if one.group in only and not {one.system, one.model} & set(absent)
        ]
        steps += [
            (n, partial(part, kafka, shorter(seconds), measured)) for n, part in PARTS.items() if n in only
        ]
        began_s = measured.took_s
        for turn in range(rounds):
            if turn and (measured.took_s - began_s) / turn > minutes * 60 - measured.took_s:
                measured.notes.append(f"{turn} rounds: more do not fit into {minutes:g} minutes.")
                break
            measured.round = turn + 1
            say(f"round {turn + 1} of {rounds}, after {measured.took_s:.0f} s")
            for name, step in steps if turn % 2 == 0 else reversed(steps):
                attempt(name, step, measured)


def attempt(name: str, step: Callable[[], None], into: Measured) -> None:
    """Run a step, recording a failure instead of raising it."""
    try:
        step()
    except (PeerFailed, AskingFailed) as error:
        into.fails(name, str(error))
    except Exception as error:
        (last, *_) = reversed(str(error).strip().splitlines() or [""])
        into.fails(name, f"{type(error).__name__}: {last[:200]}")
    into.keep()


def _absent(into: Measured, only: Sequence[str]) -> list[str]:
    """Make missing environments and models. Returns the peers and models that could not be made."""
    needed = {
        name: partial(systems.python_of, peer.environment)
        for name, peer in PEERS.items()
        if "peers" in only or ("mobilenet" in only and name == "Mosec")
    }
    if "mobilenet" in only:
        needed[MOBILENET] = mobilenet_weights
    found = []
    for name, make in needed.items():
        try:
            say(f"{name}: {make().relative_to(CACHE).parts[0]}")
        except PeerFailed as error:
            into.fails(name, str(error))
            found.append(name)
    return found


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure mlaas and its peers on a quiet machine.")
    add = parser.add_argument
    add("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    add("--quick", action="store_true", help="one round, one second for each load; writes nothing")
    add("--rounds", type=int, default=3)
    add("--seconds", type=int, default=5, help="for each load that an aim is about; three fifths for others")
    add("--minutes", type=float, default=25, help="start no round that would end later")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    chosen = arguments(given)
    if problem := missing_tools():
        sys.exit(problem)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # runs the context managers' exits
    rounds, seconds = (1, 1) if chosen.quick else (chosen.rounds, chosen.seconds)
    measured = Measured(rounds, seconds, PARTIAL)
    if not wrk_is_installed():
        measured.notes.append(
            "wrk is not installed: `mlaas bench` generated the load, and used more CPU time."
        )
    measure(measured, chosen.only, rounds, seconds, chosen.minutes)
    whole = set(chosen.only) == set(GROUPS)
    found = measured.report(whole)
    print(tables.markdown(found))
    if whole and not chosen.quick:
        from bench.plots import PLOTS

        report.write(found, ROOT, PLOTS, PAGES)
    missed = aims.missed(found.aims)
    say(f"{len(found.aims) - len(missed)} of {len(found.aims)} aims met, in {found.took_s / 60:.1f} minutes.")
    for name in missed:
        say(f"Missed: {name}")


if __name__ == "__main__":
    main()
