"""Measure mlaas beside its peers, print a table: `python -m bench.run`. See bench/README.md."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from bench import aims, contenders, groups, pages, tables
from bench.asking import AskingFailed
from bench.environments import CACHE, PeerFailed, python_of
from bench.measured import Measured, say
from bench.peers.catalogue import PEERS
from bench.scale import scale
from bench.wrk import is_there
from deploy.kafka.jars import missing_tools
from deploy.kafka.local_kafka import LocalKafka

GROUPS = ("mlaas", "peers", "limits", "batch", "large", "start", "scale")
PARTIAL = CACHE / "partial.json"

Step = tuple[str, Callable[[], None]]


class Plan(msgspec.Struct, frozen=True):
    """absent: peers that could not be installed."""

    only: Sequence[str]
    absent: Sequence[str]
    rounds: int
    seconds: float
    minutes: float


def measure(measured: Measured, plan: Plan) -> None:
    """All in turn, next time in the opposite order, so that a drift of the machine cancels out.

    A round that would not end within the minutes is not begun.
    """
    with LocalKafka() as kafka:
        if "scale" in plan.only:
            _try("simulated workers", lambda: scale(kafka, 4 * plan.seconds, measured), measured)
            measured.keep()
        began_s = measured.took_s
        for turn in range(plan.rounds):
            left_s = plan.minutes * 60 - measured.took_s
            if turn and (measured.took_s - began_s) / turn > left_s:
                measured.notes.append(f"{turn} rounds: more do not fit into {plan.minutes:g} minutes.")
                break
            measured.round = turn + 1
            say(f"round {turn + 1} of {plan.rounds}, after {measured.took_s:.0f} s")
            steps = _steps(plan, kafka, measured)
            for name, step in steps if turn % 2 == 0 else reversed(steps):
                _try(name, step, measured)
                measured.keep()


def _steps(plan: Plan, kafka: LocalKafka, into: Measured) -> list[Step]:
    loads: list[Step] = [
        (one.system, partial(contenders.measure, one, plan.seconds, into))
        for one in contenders.chosen(plan.only, plan.absent, kafka)
    ]
    parts: list[Step] = [
        (name, partial(part, kafka, plan.seconds, into))
        for name, part in groups.PARTS.items()
        if name in plan.only
    ]
    return loads + parts


def _try(name: str, step: Callable[[], None], into: Measured) -> None:
    """What fails is noted with its reason, and the rest goes on."""
    try:
        step()
    except (PeerFailed, AskingFailed) as error:
        into.fails(name, str(error))
    except Exception as error:
        (last, *_) = reversed(str(error).strip().splitlines() or [""])
        into.fails(name, f"{type(error).__name__}: {last[:200]}")


def _absent(only: Sequence[str], into: Measured) -> list[str]:
    """Make the environments that are not there yet; which peers cannot be had."""
    found = []
    for name, peer in PEERS.items() if "peers" in only else ():
        try:
            say(f"{name}: {python_of(peer.environment).parents[1].name}")
        except PeerFailed as error:
            into.fails(name, str(error))
            found.append(name)
    return found


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure mlaas and its peers on a machine that is quiet.")
    add = parser.add_argument
    add("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    add("--quick", action="store_true", help="one round of a second for each load; writes nothing")
    add("--rounds", type=int, default=3)
    add("--seconds", type=int, default=3, help="for each load; whole ones, as wrk wants them")
    add("--minutes", type=float, default=25, help="no round is begun that would end later")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    chosen = _arguments(given)
    if problem := missing_tools():
        sys.exit(problem)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing that was started stays
    rounds, seconds = (1, 1) if chosen.quick else (chosen.rounds, chosen.seconds)
    measured = Measured(rounds, seconds, PARTIAL)
    if not is_there():
        measured.notes.append(
            "wrk is not installed: mlaas.load asked instead, and took more of the processor."
        )
    measure(measured, Plan(chosen.only, _absent(chosen.only, measured), rounds, seconds, chosen.minutes))
    whole = set(chosen.only) == set(GROUPS)
    found = measured.report() if whole else measured.report().measured()
    print(tables.markdown(found))
    if whole and not chosen.quick:
        pages.write(found, Path(__file__).parents[1])
    missed = aims.missed(found.aims)
    say(f"{len(found.aims) - len(missed)} of {len(found.aims)} aims met, in {found.took_s / 60:.1f} minutes.")
    for name in missed:
        say(f"Missed: {name}")


if __name__ == "__main__":
    main()
