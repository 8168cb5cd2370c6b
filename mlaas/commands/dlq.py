"""dlq: list, show, replay and delete dead letters."""

import json
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from messaging import address, codec, lives_inside
from messaging.broker import Broker, BrokerRefuses, BrokerUnavailable, Delivery, NoSuchRecord, Records
from messaging.codec import Letter, Origin, decode_letter
from messaging.contract import ContractError, ErrorCode, Failure, Reply, sha256_of
from mlaas.commands import BROKER, JSON, YES, Chosen, aligned, confirm, harmless, is_json, pass_chosen, utf8
from mlaas.commands.broker import Requester, connected, deadline_ms
from mlaas.errors import UserError

if TYPE_CHECKING:
    from mlaas.settings import Settings

_WIDEST = 60
_TITLES = ("LETTER", "WHEN (UTC)", "BYTES", "MODEL", "REQUEST", "ORIGINAL", "REASON")


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
@click.argument("letter")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture to this file."
)
@JSON
@BROKER
@pass_chosen
def show(chosen: Chosen, letter: str, picture: Path | None, as_json: bool) -> None:
    """Show a dead letter with its headers and the full reason."""
    with opened(chosen.load("dlq")) as (_, records):
        (found,) = find(records, [letter])
    click.echo(json.dumps(details(found)) if is_json(as_json) else as_text(details(found)))
    if picture is not None:
        _write(picture, found.message.body)
        click.echo(f"wrote {picture}, {len(found.message.body)} bytes", err=True)


@dlq.command()
@click.argument("letters", nargs=-1, metavar="[LETTER]...")
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
    letters: tuple[str, ...],
    take_all: bool,
    purge: bool,
    timeout_s: float | None,
    yes: bool,
) -> None:
    """Send dead letters again and print the results.

    Workers get them one at a time. Letters stay in the topic unless you give --purge. Kafka can only delete
    the oldest records of a partition, so an answered letter is kept if an older one was not answered.
    """
    if take_all == bool(letters):
        raise click.UsageError("name letters as `mlaas dlq ls` does, or give --all")
    settings = chosen.load("dlq")
    with opened(settings) as (connection, records):
        wanted = list(dict.fromkeys(letters))
        chosen_ones = records.read() if take_all else iter(find(records, wanted))
        total = records.count() if take_all else len(wanted)
        if total and (take_all or purge):
            confirm(f"Replay {_letters(total)}{' and delete those answered' if purge else ''}?", yes)
        done, replies = set[str](), 0
        with Requester(connection, settings.topics, uuid.uuid4().hex) as requester:
            answers = replayed(requester, chosen_ones, timeout_s or settings.gateway.reply_timeout_ms / 1000)
            for letter, reply in answers:
                replies += 1
                click.echo(f"{letter.position}  {outcome(reply)}")
                if reply.error is None:
                    done.add(str(letter.position))
        click.echo(f"{_letters(replies)} replayed, {len(done)} answered", err=True)
        if purge:
            deleted = records.delete(done)
            click.echo(f"{_letters(deleted)} deleted", err=True)
            if kept := len(done) - deleted:
                click.echo(f"{_letters(kept)} answered, but kept because an older one was not", err=True)
    if len(done) < replies:
        sys.exit(1)


@dlq.command()
@click.option(
    "--before", metavar="LETTER", default="",
    help="Delete only older letters than this one; on Kafka, those in its partition.",
)  # fmt: skip
@YES
@BROKER
@pass_chosen
def purge(chosen: Chosen, before: str, yes: bool) -> None:
    """Delete dead letters permanently."""
    with opened(chosen.load("dlq")) as (_, records):
        if total := records.count(before):
            confirm(f"Delete {_letters(total)} permanently?", yes)
        click.echo(f"{_letters(records.purge(before))} deleted", err=True)


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
    if lives_inside(settings.broker.url):
        raise UserError(
            f"{address(settings.broker.url)} keeps dead letters inside the process that started it",
            "while `mlaas up` runs, pass the broker URL that it printed at startup to --broker",
            os.EX_UNAVAILABLE,
        )
    with connected(settings.broker) as broker:
        try:
            with closing(broker.records(settings.topics.dead_letters)) as records:
                yield broker, records
        except NoSuchRecord as error:
            raise UserError(str(error), "`mlaas dlq ls` lists them all", os.EX_NOINPUT) from error
        except BrokerRefuses:
            raise
        except BrokerUnavailable as error:
            raise BrokerUnavailable(
                f"no broker answers at {address(settings.broker.url)} ({error})"
            ) from error


def summaries(records: Records, limit: int | None) -> list[Letter]:
    """The newest letters, up to the limit, in order of age from the oldest."""
    letters = [decode_letter(delivery) for delivery in records.read(limit)]
    letters.sort(key=lambda letter: (letter.buried_at_ms, letter.position))
    return letters if limit is None else letters[-limit:]


def find(records: Records, letters: Iterable[str]) -> Sequence[Delivery]:
    """These letters in this order. Raises NoSuchRecord."""
    return [records.find(letter) for letter in letters]


# Replaying.


def replayed(
    requester: Requester, letters: Iterable[Delivery], timeout_s: float
) -> Iterator[tuple[Delivery, Reply]]:
    """Sends each letter with a new ID and deadline, and yields it with its reply.

    Workers remember the IDs of recent requests, so with its old one a letter might be taken for a duplicate.
    Raises UserError at the first letter that is not answered within timeout_s.
    """
    for letter in letters:
        request = codec.revive(
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
                f"{letter.position} was not answered within {timeout_s:g} s; later ones were not replayed",
                "is a worker running? Use --timeout to wait longer",
                os.EX_UNAVAILABLE,
            )
        yield letter, reply


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
        str(letter.position),
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
        "letter": str(letter.position),
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
