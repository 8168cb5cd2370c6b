"""dlq: the dead letters. Looking at them is here, what changes something in dlq_changes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlaas.chosen import Chosen, pass_chosen
from mlaas.commands.dlq_changes import purge, replay
from mlaas.commands.place import PLACE
from mlaas.commands.serve import BROKER

if TYPE_CHECKING:
    from mlaas.dlq import Place

JSON = click.option("--json", "as_json", is_flag=True, help="JSON, as in a pipe.")


@click.group(short_help="Look after the dead letters: what no worker could process.")
def dlq() -> None:
    """The dead letters: what no worker could process, kept with the reason."""


@dlq.command()
@JSON
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the N newest.")
@BROKER
@pass_chosen
def ls(chosen: Chosen, as_json: bool, limit: int | None, broker: str | None) -> None:
    """List them, the oldest first: a table on a terminal, one JSON object a line in a pipe."""
    from mlaas import letters
    from mlaas.dlq import opened, summaries

    settings = chosen.load("dlq", broker__url=broker)
    with opened(settings) as (_, records):
        found = summaries(records, limit)
    if not found:
        click.echo(f"no letters in {settings.topics.dead_letters}", err=True)
        return
    lines = map(letters.as_json, found) if as_json or not sys.stdout.isatty() else letters.table(found)
    for line in lines:
        click.echo(line)


@dlq.command()
@click.argument("place", type=PLACE, metavar="PARTITION:OFFSET")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture into this file."
)
@JSON
@BROKER
@pass_chosen
def show(chosen: Chosen, place: "Place", picture: Path | None, as_json: bool, broker: str | None) -> None:
    """Everything about one, headers and reason in full."""
    from mlaas import letters
    from mlaas.dlq import find, opened

    with opened(chosen.load("dlq", broker__url=broker)) as (_, records):
        (letter,) = find(records, [place])
    text = letters.details_as_json if as_json or not sys.stdout.isatty() else letters.details
    click.echo(text(letter))
    if picture is not None:
        _write(picture, letter.message.body)
        click.echo(f"wrote {picture}, {len(letter.message.body)} bytes", err=True)


def _write(file: Path, content: bytes) -> None:
    try:
        with file.open("wb", buffering=0) as target:
            if target.isatty():
                raise click.ClickException(f"{file} is a terminal: name a file for the picture")
            target.write(content)
    except OSError as error:
        raise click.ClickException(f"cannot write {file}: {error.strerror}") from error


dlq.add_command(replay)
dlq.add_command(purge)

COMMANDS = (dlq,)
