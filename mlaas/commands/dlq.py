"""dlq: the dead letters. Listing and showing them, asking the workers once more, deleting them."""

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlsplit

import click

from messaging import codec, dead_letters
from messaging.broker import Broker, BrokerUnavailable, Delivery, Records
from messaging.contract import ErrorCode, Reply, sha256_of
from messaging.dead_letters import Letter, Origin, decode_letter
from mlaas.commands import BROKER, JSON, Chosen, aligned, harmless, is_json, pass_chosen, utf8
from mlaas.commands.broker import Requester, connected, deadline_ms
from mlaas.errors import UserError

if TYPE_CHECKING:
    from mlaas.settings import Settings

_WIDEST = 60
_TITLES = ("LETTER", "WHEN (UTC)", "BYTES", "MODEL", "REQUEST", "ORIGINAL", "REASON")


class Place(NamedTuple):
    """Where a letter is in the dead-letter topic."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads PARTITION:OFFSET. Raises ValueError."""
        partition, colon, offset = text.partition(":")
        if not (colon and _is_number(partition) and _is_number(offset)):
            raise ValueError(f"{text!r} is not PARTITION:OFFSET, such as 3:12")
        return cls(int(partition), int(offset))

    @classmethod
    def of(cls, letter: Delivery | Letter) -> Self:
        return cls(letter.partition, letter.offset)

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


class _PlaceType(click.ParamType[Place]):
    name = "PARTITION:OFFSET"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> Place:
        try:
            return Place.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, context)


PLACE = _PlaceType()
YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@click.group(short_help="Inspect, replay and delete dead letters.")
def dlq() -> None:
    """Dead letters: the requests that no worker could process, kept with the reason."""


@dlq.command()
@JSON
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the N newest.")
@BROKER
@pass_chosen
def ls(chosen: Chosen, as_json: bool, limit: int | None) -> None:
    """List them, oldest first: as a table on a terminal, as one JSON object per line in a pipe."""
    settings = chosen.load("dlq")
    with opened(settings) as (_, records):
        letters = summaries(records, limit)
    if not letters:
        click.echo(f"no letters in {settings.topics.dead_letters}", err=True)
        return
    lines = (json.dumps(facts(letter)) for letter in letters) if is_json(as_json) else table(letters)
    for line in lines:
        click.echo(line)


@dlq.command()
@click.argument("place", type=PLACE, metavar="PARTITION:OFFSET")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture to this file."
)
@JSON
@BROKER
@pass_chosen
def show(chosen: Chosen, place: Place, picture: Path | None, as_json: bool) -> None:
    """Show one with its headers and the whole reason."""
    with opened(chosen.load("dlq")) as (_, records):
        (letter,) = find(records, [place])
    click.echo(details_as_json(letter) if is_json(as_json) else details(letter))
    if picture is not None:
        _write(picture, letter.message.body)
        click.echo(f"wrote {picture}, {len(letter.message.body)} bytes", err=True)


@dlq.command()
@click.argument("places", type=PLACE, nargs=-1, metavar="[PARTITION:OFFSET]...")
@click.option("--all", "take_all", is_flag=True, help="Replay all of them.")
@click.option("--purge", is_flag=True, help="Delete those that are answered, as far as the broker can.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="How long to wait for each answer.  [default: gateway.reply_timeout_ms]",
)  # fmt: skip
@YES
@BROKER
@pass_chosen
def replay(
    chosen: Chosen,
    places: tuple[Place, ...],
    take_all: bool,
    purge: bool,
    timeout_s: float | None,
    yes: bool,
) -> None:
    """Send the requests again, one by one, and print what the workers answer.

    The letters stay, unless --purge is given. A broker deletes a partition from its oldest end only, so
    letters behind one that was not answered stay, too.
    """
    if take_all == bool(places):
        raise click.UsageError("name letters as PARTITION:OFFSET, or give --all")
    settings = chosen.load("dlq")
    with opened(settings) as (connection, records):
        bounds = records.bounds()
        if take_all:
            total = count(bounds, up_to_end(bounds))
            letters = every(records, bounds)
        else:
            total = len(wanted := list(dict.fromkeys(places)))
            letters = find(records, wanted)
        if total and (take_all or purge):
            _confirm(
                f"Replay {_letters(total)}{' and delete those that are answered' if purge else ''}?", yes
            )
        done, failed = set[Place](), 0
        with Requester(connection, settings.topics, uuid.uuid4().hex) as requester:
            answers = replayed(requester, letters, timeout_s or settings.gateway.reply_timeout_ms / 1000)
            for letter, reply in answers:
                place = Place.of(letter)
                click.echo(f"{place}  {outcome(reply)}")
                if reply.error is None:
                    done.add(place)
                else:
                    failed += 1
        click.echo(f"{_letters(len(done) + failed)} replayed, {len(done)} answered", err=True)
        if purge:
            ends = up_to_first_kept(bounds, done)
            _delete(records, bounds, ends)
            if kept := len(done) - count(bounds, ends):
                click.echo(f"{_letters(kept)} answered, but kept behind an older one that was not", err=True)
    if failed:
        sys.exit(1)


@dlq.command()
@click.option("--before", type=PLACE, help="Only the letters of this partition before this one.")
@YES
@BROKER
@pass_chosen
def purge(chosen: Chosen, before: Place | None, yes: bool) -> None:
    """Delete them for good."""
    with opened(chosen.load("dlq")) as (_, records):
        bounds = records.bounds()
        ends = up_to(bounds, before) if before else up_to_end(bounds)
        if ends:
            _confirm(f"Delete {_letters(count(bounds, ends))} for good?", yes)
        _delete(records, bounds, ends)


def _delete(records: Records, bounds: Mapping[int, range], ends: Mapping[int, int]) -> None:
    records.delete_before(ends)
    click.echo(f"{_letters(count(bounds, ends))} deleted", err=True)


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask on: add --yes")
    if not click.confirm(question, err=True):
        raise UserError("nothing was done")


def _letters(count: int) -> str:
    return f"{count} letter{'' if count == 1 else 's'}"


def _write(file: Path, content: bytes) -> None:
    try:
        with file.open("wb", buffering=0) as target:
            if target.isatty():
                raise UserError(f"{file} is a terminal: name a file for the picture")
            target.write(content)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error


# Reading.


@contextmanager
def opened(settings: "Settings") -> Iterator[tuple[Broker, Records]]:
    """The broker and its dead letters, until the end of the block."""
    url = urlsplit(settings.broker.url)
    if url.scheme in ("embedded", "memory"):
        raise UserError(
            f"{url.scheme}:// keeps dead letters in the process that started it",
            "while `mlaas up` runs, pass the URL of the broker that it printed at its start to --broker",
            os.EX_UNAVAILABLE,
        )
    with connected(settings.broker) as broker:
        try:
            with closing(broker.records(settings.topics.dead_letters)) as records:
                yield broker, records
        except BrokerUnavailable as error:
            servers = url.netloc.rpartition("@")[2]
            raise BrokerUnavailable(f"no broker answers at {servers} ({error})") from error


def summaries(records: Records, limit: int | None) -> list[Letter]:
    """The newest letters, at most as many as the limit, oldest first."""
    letters = [
        decode_letter(delivery)
        for partition, offsets in records.bounds().items()
        for delivery in records.read(partition, offsets if limit is None else offsets[-limit:])
    ]
    letters.sort(key=lambda letter: (letter.buried_at_ms, letter.partition, letter.offset))
    return letters if limit is None else letters[-limit:]


def find(records: Records, places: Collection[Place]) -> Iterator[Delivery]:
    """Reads these letters in this order. Raises UserError at once if one is known not to exist."""
    bounds = records.bounds()
    for place in places:
        if place.offset not in bounds.get(place.partition, ()):
            raise _no_such_letter(place, bounds)
    return (_one(records, place, bounds) for place in places)


def _one(records: Records, place: Place, bounds: Mapping[int, range]) -> Delivery:
    for delivery in records.read(place.partition, range(place.offset, place.offset + 1)):
        return delivery
    raise _no_such_letter(place, bounds)


def _no_such_letter(place: Place, bounds: Mapping[int, range]) -> UserError:
    held = bounds.get(place.partition)
    if held is None:
        has = f"partitions are 0 to {max(bounds)}"
    else:
        has = f"partition {place.partition} has {f'{held[0]} to {held[-1]}' if held else 'none'}"
    return UserError(f"no letter {place}: {has}", "`mlaas dlq ls` lists them all", os.EX_NOINPUT)


def every(records: Records, bounds: Mapping[int, range]) -> Iterator[Delivery]:
    for partition, offsets in bounds.items():
        yield from records.read(partition, offsets)


# Replaying.


def replayed(
    requester: Requester, letters: Iterable[Delivery], timeout_s: float
) -> Iterator[tuple[Delivery, Reply]]:
    """Asks the workers for one letter after the other, each under a new id and with a new deadline.

    Under its old id, a letter could pass for one that was answered or cancelled lately. Raises UserError for
    the first that is not answered, since the others would not be answered either.
    """
    for letter in letters:
        request = dead_letters.revive(
            letter.message,
            correlation_id=f"replay.{uuid.uuid4().hex}",
            reply_to=requester.address,
            deadline_ms=deadline_ms(timeout_s),
        )
        decode = partial(codec.decode_prediction, sha256=sha256_of(letter.message.body))
        reply = requester.ask(request, decode, timeout_s)
        if reply is None:
            raise UserError(
                f"{Place.of(letter)} was not answered within {timeout_s:g} s, and none after it was replayed",
                "is a worker running? --timeout waits longer",
                os.EX_UNAVAILABLE,
            )
        yield letter, reply


# Deleting: how far in each partition.


def up_to(bounds: Mapping[int, range], place: Place) -> dict[int, int]:
    """Deletes the letters before this one in its partition. Raises UserError."""
    if place.partition not in bounds:
        raise _no_such_letter(place, bounds)
    held = bounds[place.partition]
    end = min(place.offset, held.stop)
    return {place.partition: end} if end > held.start else {}


def up_to_end(bounds: Mapping[int, range]) -> dict[int, int]:
    """Deletes all of them."""
    return {partition: held.stop for partition, held in bounds.items() if held}


def up_to_first_kept(bounds: Mapping[int, range], done: Collection[Place]) -> dict[int, int]:
    """Deletes those that are done, up to the first in each partition that is not."""
    ends = {}
    for partition, held in bounds.items():
        end = next((offset for offset in held if (partition, offset) not in done), held.stop)
        if end > held.start:
            ends[partition] = end
    return ends


def count(bounds: Mapping[int, range], ends: Mapping[int, int]) -> int:
    """How many letters are before these ends."""
    return sum(end - bounds[partition].start for partition, end in ends.items())


# Printing. Headers come from strangers, so no control character may pass.


def table(letters: Sequence[Letter]) -> Iterable[str]:
    """A line of titles, and one for each letter; long cells are cut off."""
    return aligned([_TITLES, *(_row(letter) for letter in letters)])


def details(delivery: Delivery) -> str:
    """All that is known of a letter but the picture itself, one fact per line."""
    letter = decode_letter(delivery)
    shown = {name.replace("_", " "): value for name, value in facts(letter).items()}
    shown |= {"original": letter.original and _where(letter.original), "sha256": _sha256(delivery)}
    lines = [f"{name:12} {_line(value)}".rstrip() for name, value in shown.items()]
    lines += ["headers", *(f"  {_line(name)}: {_line(value)}" for name, value in _headers(delivery).items())]
    return "\n".join(lines)


def details_as_json(delivery: Delivery) -> str:
    known = facts(decode_letter(delivery))
    return json.dumps({**known, "sha256": _sha256(delivery), "headers": _headers(delivery)})


def outcome(reply: Reply) -> str:
    """What became of a replayed letter."""
    if reply.error is None:
        label, share = max(reply.probabilities.items(), key=lambda entry: entry[1])
        return f"answered: {_line(label)} ({share:.1%})"
    if reply.error.code is ErrorCode.INTERNAL:
        return "failed again, and is among the dead letters once more"
    return f"refused, {reply.error.code}: {_line(reply.error.detail)}"


def _row(letter: Letter) -> Sequence[str]:
    return (
        str(Place.of(letter)),
        _when(letter).replace("T", " ").removesuffix("Z"),
        str(letter.size_bytes),
        _cell(letter.model),
        _cell(letter.request_id),
        _cell(_where(letter.original)) if letter.original else "-",
        _cell(letter.reason),
    )


def facts(letter: Letter) -> dict[str, object]:
    its = letter.original
    return {
        "letter": str(Place.of(letter)),
        "at": _when(letter),
        "reason": utf8(letter.reason),
        "model": utf8(letter.model),
        "request_id": utf8(letter.request_id),
        "size_bytes": letter.size_bytes,
        "original": its and {"topic": utf8(its.topic), "partition": its.partition, "offset": its.offset},
    }


def _when(letter: Letter) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(letter.buried_at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _where(origin: Origin) -> str:
    """In the notation of the worker's log."""
    return f"{origin.topic}/{origin.partition}@{origin.offset}"


def _headers(delivery: Delivery) -> dict[str, str]:
    return {utf8(name): utf8(value) for name, value in sorted(delivery.message.headers.items())}


def _sha256(delivery: Delivery) -> str:
    return hashlib.sha256(delivery.message.body).hexdigest()


def _cell(text: str) -> str:
    line = _line(text)
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"


def _line(value: object) -> str:
    """On one line, - if it is empty."""
    return harmless("" if value is None else str(value)) or "-"


COMMANDS = (dlq,)
