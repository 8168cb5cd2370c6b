"""dlq: list, show, replay and delete dead letters."""

import json
import os
import re
import sys
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

import click

from messaging import codec, dead_letters
from messaging.broker import Broker, BrokerUnavailable, Delivery, Records
from messaging.contract import ContractError, ErrorCode, Failure, Reply, sha256_of
from messaging.dead_letters import Letter, Origin, decode_letter
from mlaas.commands import BROKER, JSON, Chosen, aligned, harmless, is_json, pass_chosen, utf8
from mlaas.commands.broker import Requester, connected, deadline_ms
from mlaas.errors import UserError

if TYPE_CHECKING:
    from mlaas.settings import Settings

_WIDEST = 60
_TITLES = ("LETTER", "WHEN (UTC)", "BYTES", "MODEL", "REQUEST", "ORIGINAL", "REASON")


class Place(NamedTuple):
    """The partition and offset of a letter in the dead-letter topic."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses PARTITION:OFFSET. Raises click.BadParameter."""
        found = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", text)
        if found is None:
            raise click.BadParameter(f"{text!r} is not PARTITION:OFFSET, such as 3:12")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of(cls, letter: Delivery | Letter) -> Self:
        return cls.parse(str(letter.position).replace("/", ":"))

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@click.group()
def dlq() -> None:
    """Manage dead letters: requests that no worker could process, kept with the reason."""


@dlq.command()
@JSON
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="List only the N newest.")
@BROKER
@pass_chosen
def ls(chosen: Chosen, as_json: bool, limit: int | None) -> None:
    """List dead letters, oldest first.

    Prints a table on a terminal, and one JSON object per line otherwise.
    """
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
@click.argument("place", type=Place.parse, metavar="PARTITION:OFFSET")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture to this file."
)
@JSON
@BROKER
@pass_chosen
def show(chosen: Chosen, place: Place, picture: Path | None, as_json: bool) -> None:
    """Show a dead letter with its headers and the full reason."""
    with opened(chosen.load("dlq")) as (_, records):
        (letter,) = find(records, [place])
    click.echo(json.dumps(details(letter)) if is_json(as_json) else as_text(details(letter)))
    if picture is not None:
        _write(picture, letter.message.body)
        click.echo(f"wrote {picture}, {len(letter.message.body)} bytes", err=True)


@dlq.command()
@click.argument("places", type=Place.parse, nargs=-1, metavar="[PARTITION:OFFSET]...")
@click.option("--all", "take_all", is_flag=True, help="Replay all dead letters.")
@click.option("--purge", is_flag=True, help="Delete answered letters, where the broker can.")
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
    """Send dead letters again and print the results.

    Workers get them one at a time. Letters stay in the topic unless you give --purge. A broker can only
    delete the oldest records of a partition, so an answered letter is kept if an older one was not answered.
    """
    if take_all == bool(places):
        raise click.UsageError("name letters as PARTITION:OFFSET, or give --all")
    settings = chosen.load("dlq")
    with opened(settings) as (connection, records):
        bounds = records.bounds()
        wanted = list(dict.fromkeys(places))
        letters = every(records, bounds) if take_all else find(records, wanted)
        total = count(bounds) if take_all else len(wanted)
        if total and (take_all or purge):
            _confirm(f"Replay {_letters(total)}{' and delete those answered' if purge else ''}?", yes)
        done, replies = set[Place](), 0
        with Requester(connection, settings.topics, uuid.uuid4().hex) as requester:
            answers = replayed(requester, letters, timeout_s or settings.gateway.reply_timeout_ms / 1000)
            for letter, reply in answers:
                replies += 1
                click.echo(f"{Place.of(letter)}  {outcome(reply)}")
                if reply.error is None:
                    done.add(Place.of(letter))
        click.echo(f"{_letters(replies)} replayed, {len(done)} answered", err=True)
        if purge:
            deletable = up_to_first_kept(bounds, done)
            _delete(records, deletable)
            if kept := len(done) - count(deletable):
                click.echo(f"{_letters(kept)} answered, but kept because an older one was not", err=True)
    if len(done) < replies:
        sys.exit(1)


@dlq.command()
@click.option(
    "--before", type=Place.parse, metavar="PARTITION:OFFSET",
    help="Delete only older letters in the partition of this one.",
)  # fmt: skip
@YES
@BROKER
@pass_chosen
def purge(chosen: Chosen, before: Place | None, yes: bool) -> None:
    """Delete dead letters permanently."""
    with opened(chosen.load("dlq")) as (_, records):
        bounds = records.bounds()
        deletable = up_to(bounds, before) if before else bounds
        if total := count(deletable):
            _confirm(f"Delete {_letters(total)} permanently?", yes)
        _delete(records, deletable)


def _delete(records: Records, deletable: Mapping[int, range]) -> None:
    records.delete_before({partition: held.stop for partition, held in deletable.items() if held})
    click.echo(f"{_letters(count(deletable))} deleted", err=True)


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Standard input is not a terminal: confirm with --yes")
    if not click.confirm(question, err=True):
        raise UserError("cancelled; nothing was changed")


def _letters(count: int) -> str:
    return f"{count} letter{'' if count == 1 else 's'}"


def _write(file: Path, content: bytes) -> None:
    try:
        with file.open("wb", buffering=0) as target:
            if target.isatty():
                raise UserError(f"{file} is a terminal: give --picture the name of a file")
            target.write(content)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error


# Reading.


@contextmanager
def opened(settings: "Settings") -> Iterator[tuple[Broker, Records]]:
    """Opens the broker and its dead letters for the duration of the block. Turns errors into UserError."""
    url = urlsplit(settings.broker.url)
    if url.scheme in ("embedded", "memory"):
        raise UserError(
            f"{url.scheme}:// keeps dead letters inside the process that started it",
            "while `mlaas up` runs, pass the broker URL that it printed at startup to --broker",
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
    """The newest letters, up to the limit, in order of age from the oldest."""
    letters = [
        decode_letter(delivery)
        for partition, offsets in records.bounds().items()
        for delivery in records.read(partition, offsets if limit is None else offsets[-limit:])
    ]
    letters.sort(key=lambda letter: (letter.buried_at_ms, letter.position))
    return letters if limit is None else letters[-limit:]


def find(records: Records, places: Collection[Place]) -> Iterator[Delivery]:
    """Reads these letters in this order. Raises UserError before the first if one does not exist."""
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
    """Reads all letters within these bounds, partition by partition."""
    for partition, offsets in bounds.items():
        yield from records.read(partition, offsets)


# Replaying.


def replayed(
    requester: Requester, letters: Iterable[Delivery], timeout_s: float
) -> Iterator[tuple[Delivery, Reply]]:
    """Sends each letter with a new ID and deadline, and yields it with its reply.

    Workers remember the IDs of recent requests, so with its old one a letter might be taken for a duplicate.
    Raises UserError at the first letter that is not answered within timeout_s.
    """
    for letter in letters:
        request = dead_letters.revive(
            letter.message,
            correlation_id=f"replay.{uuid.uuid4().hex}",
            reply_to=requester.address,
            deadline_ms=deadline_ms(timeout_s),
        )
        try:
            codec.return_address(request)
        except ContractError as error:  # a worker would bury it again, without a reply
            yield letter, Reply(sha256="", error=Failure(error.code, str(error)))
            continue
        decode = partial(codec.decode_prediction, sha256=sha256_of(letter.message.body))
        reply = requester.ask(request, decode, timeout_s)
        if reply is None:
            raise UserError(
                f"{Place.of(letter)} was not answered within {timeout_s:g} s; later ones were not replayed",
                "is a worker running? Use --timeout to wait longer",
                os.EX_UNAVAILABLE,
            )
        yield letter, reply


# Deleting. A broker deletes the oldest records of a partition: offsets from the start of its bounds.


def up_to(bounds: Mapping[int, range], place: Place) -> dict[int, range]:
    """The offsets before this letter in its partition. Raises UserError if there is no such partition."""
    if place.partition not in bounds:
        raise _no_such_letter(place, bounds)
    held = bounds[place.partition]
    return {place.partition: range(held.start, min(place.offset, held.stop))}


def up_to_first_kept(bounds: Mapping[int, range], done: Collection[Place]) -> dict[int, range]:
    """The offsets before the first letter in each partition that is not done."""
    return {
        partition: range(held.start, next((at for at in held if (partition, at) not in done), held.stop))
        for partition, held in bounds.items()
    }


def count(offsets: Mapping[int, range]) -> int:
    """The number of letters at these offsets."""
    return sum(map(len, offsets.values()))


# Printing. Anyone can write headers, so control characters are escaped.


def table(letters: Sequence[Letter]) -> Iterable[str]:
    """The letters as a table with titles; long cells are truncated."""
    return aligned([_TITLES, *(_row(letter) for letter in letters)])


def details(delivery: Delivery) -> dict[str, Any]:
    """The facts about a letter, its headers, and the SHA-256 digest of its body, by JSON key."""
    headers = {utf8(name): utf8(value) for name, value in sorted(delivery.message.headers.items())}
    sha256 = sha256_of(delivery.message.body)
    return {**facts(decode_letter(delivery)), "sha256": sha256, "headers": headers}


def as_text(its: dict[str, Any]) -> str:
    """The details of a letter, one per line."""
    original = its["original"] and "{topic}/{position}".format(**its["original"])
    shown = {name.replace("_", " "): value for name, value in its.items() if name != "headers"}
    lines = [f"{name:12} {_line(value)}".rstrip() for name, value in {**shown, "original": original}.items()]
    return "\n".join([*lines, "headers", *(f"  {_line(k)}: {_line(v)}" for k, v in its["headers"].items())])


def outcome(reply: Reply) -> str:
    """The result of a replay, on one line."""
    if reply.error is None:
        label, share = max(reply.probabilities.items(), key=lambda entry: entry[1])
        return f"answered: {_line(label)} ({share:.1%})"
    if reply.error.code is ErrorCode.INTERNAL:
        return "failed again; it is a new dead letter"
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
    """The facts about a letter that `mlaas dlq ls` prints, by JSON key."""
    its = letter.original
    return {
        "letter": str(Place.of(letter)),
        "at": _when(letter),
        "reason": utf8(letter.reason),
        "model": utf8(letter.model),
        "request_id": utf8(letter.request_id),
        "size_bytes": letter.size_bytes,
        "original": its and {"topic": utf8(its.topic), "position": utf8(its.position)},
    }


def _when(letter: Letter) -> str:
    """When the letter was written: ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(letter.buried_at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _where(origin: Origin) -> str:
    """The original place, as the worker's log writes it."""
    return f"{origin.topic}/{origin.position}"


def _cell(text: str) -> str:
    line = _line(text)
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"


def _line(value: object) -> str:
    """The value on one line; - if it is empty."""
    return harmless("" if value is None else str(value)) or "-"
