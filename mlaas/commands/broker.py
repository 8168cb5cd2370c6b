"""send, receive, topics: straight onto the broker, without the gateway."""

import json
import time
import uuid
from pathlib import Path

import click

from mlaas.chosen import Chosen, pass_chosen
from mlaas.commands.serve import BROKER

NAME = click.option(
    "--name", default="cli", show_default=True, help="Whose inbox: `receive` shows what `send` asked for."
)


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@NAME
@BROKER
@pass_chosen
def send(chosen: Chosen, files: tuple[Path, ...], name: str, broker: str | None) -> None:
    """Publish pictures as requests; print each one's correlation id. `mlaas receive` shows the answers."""
    from messaging.codec import encode_request
    from messaging.contract import Request
    from mlaas.connect import connect

    settings = chosen.load("send", broker__url=broker)
    connection = connect(settings.broker)
    inbox = connection.open_inbox(settings.topics.replies, name)
    try:
        for file in files:
            request = Request(
                body=file.read_bytes(),
                correlation_id=uuid.uuid4().hex,
                reply_to=inbox.address,
                deadline_ms=int(time.time() * 1000) + settings.gateway.reply_timeout_ms,
            )
            connection.publish(settings.topics.requests, encode_request(request)).result()
            click.echo(f"{request.correlation_id}  {file}")
    finally:
        inbox.close()
        connection.close()


@click.command()
@click.option("--count", type=int, help="End after so many answers.")
@click.option("--timeout", "timeout_s", type=float, help="End after so many seconds.")
@NAME
@BROKER
@pass_chosen
def receive(
    chosen: Chosen, count: int | None, timeout_s: float | None, name: str, broker: str | None
) -> None:
    """Print answers as they arrive, one JSON object a line. Start it before `mlaas send`."""
    from messaging import codec
    from mlaas.connect import connect

    settings = chosen.load("receive", broker__url=broker)
    connection = connect(settings.broker)
    inbox = connection.open_inbox(settings.topics.replies, name)
    click.echo(f"listening on {inbox.address}", err=True)
    end = None if timeout_s is None else time.monotonic() + timeout_s
    seen = 0
    try:
        while (count is None or seen < count) and (end is None or time.monotonic() < end):
            for message in inbox.receive(1 if count else 100, 0.2):
                answer = json.loads(message.body)
                if not answer.keys() & {"probabilities", "error"}:
                    continue  # to the ping of a gateway that reads the same partition
                seen += 1
                click.echo(json.dumps({"correlation_id": codec.correlation_id(message), **answer}))
    except KeyboardInterrupt:
        pass
    finally:
        inbox.close()
        connection.close()


@click.group()
def topics() -> None:
    """The topics on the broker."""


@topics.command()
@BROKER
@pass_chosen
def create(chosen: Chosen, broker: str | None) -> None:
    """Create those that are missing, with enough partitions. Safe to repeat."""
    from messaging.topics import create_topics

    settings = chosen.load("topics", broker__url=broker)
    for name, is_new in create_topics(settings.broker, settings.topics).items():
        click.echo(f"{name}: {'created' if is_new else 'there already'}")


COMMANDS = (send, receive, topics)
