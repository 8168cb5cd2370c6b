"""dlq replay and purge."""

import sys
import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import click

from mlaas.chosen import Chosen, pass_chosen
from mlaas.commands.place import PLACE
from mlaas.commands.serve import BROKER

if TYPE_CHECKING:
    from messaging.broker import Broker, Delivery, Records
    from mlaas.dlq import Place
    from mlaas.settings import Settings

YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command()
@click.argument("places", type=PLACE, nargs=-1, metavar="[PARTITION:OFFSET]...")
@click.option("--all", "take_all", is_flag=True, help="All that are there.")
@click.option("--purge", is_flag=True, help="Delete what was answered, as far as the broker can.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long to wait for each answer.  [default: gateway.reply_timeout_ms]",
)
@YES
@BROKER
@pass_chosen
def replay(
    chosen: Chosen,
    places: tuple["Place", ...],
    take_all: bool,
    purge: bool,
    timeout_s: float | None,
    yes: bool,
    broker: str | None,
) -> None:
    """Send the requests once more, one by one, and print what the workers answer.

    The letters stay, unless --purge. A broker deletes from a partition's old end only: what lies behind a
    letter that was not answered stays, too.
    """
    from mlaas import dlq

    if take_all == bool(places):
        raise click.UsageError("name letters as PARTITION:OFFSET, or --all")
    settings = chosen.load("dlq", broker__url=broker)
    with dlq.opened(settings) as (connection, records):
        bounds = records.bounds()
        if take_all:
            total = dlq.count(bounds, dlq.up_to_end(bounds))
            taken = dlq.every(records, bounds)
        else:
            total = len(wanted := list(dict.fromkeys(places)))
            taken = dlq.find(records, wanted)
        if total and (take_all or purge):
            _ask(f"Replay {_letters(total)}{' and delete what is answered' if purge else ''}?", yes)
        waited_s = timeout_s or settings.gateway.reply_timeout_ms / 1000
        done, failed = _replay(settings, connection, taken, waited_s)
        click.echo(f"{_letters(len(done) + failed)} replayed, {len(done)} answered", err=True)
        if purge:
            ends = dlq.up_to_first_kept(bounds, done)
            _delete(records, bounds, ends)
            if kept := len(done) - dlq.count(bounds, ends):
                click.echo(f"{_letters(kept)} answered, but kept behind an older one that was not", err=True)
    if failed:
        sys.exit(1)


def _replay(
    settings: "Settings", broker: "Broker", letters: Iterable["Delivery"], timeout_s: float
) -> tuple[Collection["Place"], int]:
    """Which were answered, and how many were not."""
    from mlaas import dlq
    from mlaas.letters import outcome

    done, failed = set(), 0
    inbox = broker.open_inbox(settings.topics.replies, uuid.uuid4().hex)
    try:
        for letter, reply in dlq.replay(
            broker, inbox, settings.topics.requests, letters, timeout_s=timeout_s
        ):
            place = dlq.Place.of(letter)
            click.echo(f"{place}  {outcome(reply)}")
            if reply.error is None:
                done.add(place)
            else:
                failed += 1
    finally:
        inbox.close()
    return done, failed


@click.command()
@click.option("--before", type=PLACE, help="Only those of this partition that are older than this one.")
@YES
@BROKER
@pass_chosen
def purge(chosen: Chosen, before: "Place | None", yes: bool, broker: str | None) -> None:
    """Delete them for good."""
    from mlaas import dlq

    with dlq.opened(chosen.load("dlq", broker__url=broker)) as (_, records):
        bounds = records.bounds()
        ends = dlq.up_to(bounds, before) if before else dlq.up_to_end(bounds)
        if ends:
            _ask(f"Delete {_letters(dlq.count(bounds, ends))} for good?", yes)
        _delete(records, bounds, ends)


def _delete(records: "Records", bounds: Mapping[int, range], ends: Mapping[int, int]) -> None:
    from mlaas.dlq import count

    records.delete_before(ends)
    click.echo(f"{_letters(count(bounds, ends))} deleted", err=True)


def _ask(question: str, yes: bool) -> None:
    """Who cannot be asked must have said --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here: say --yes")
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was done")


def _letters(count: int) -> str:
    return f"{count} letter{'' if count == 1 else 's'}"
