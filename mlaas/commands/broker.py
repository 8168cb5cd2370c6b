"""send, receive, topics: talk to the workers through the broker, without a gateway."""

import itertools
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from messaging import BrokerSettings, Queue, TopicSettings, administration, codec
from messaging.broker import Administration, Broker, Message, Right, Topic
from messaging.contract import PING, ContractError, Reply, Request, sha256_of
from mlaas.commands import BROKER, Chosen, aligned, harmless, pass_chosen
from mlaas.errors import UserError, broker_errors, reported

if TYPE_CHECKING:
    from mlaas.settings import Settings

NAME = click.option(
    "--name", default="cli", show_default=True, help="The inbox, which must be the same for send and receive."
)
_TURN_S = 0.2


@contextmanager
def connected(settings: BrokerSettings) -> Iterator[Broker]:
    """Connects to the broker for the duration of the block. Turns its errors into UserError."""
    from mlaas.serving import connect

    with broker_errors():
        broker = connect(settings)
        try:
            yield broker
        finally:
            broker.close()


class Requester:
    """Sends requests to the workers and receives the replies in an inbox of its own. A context manager."""

    def __init__(self, broker: Broker, topics: TopicSettings, name: str) -> None:
        self._broker = broker
        self._topics = topics
        self._inbox = broker.open_inbox(topics.replies, name)
        self.address = self._inbox.address

    def __enter__(self) -> "Requester":
        return self

    def __exit__(self, *_: object) -> None:
        self._inbox.close()

    def request(self, body: bytes, timeout_s: float, content_type: str = "", model: str = "") -> Message:
        """A request whose reply comes to this inbox."""
        return codec.encode_request(
            Request(
                body=body,
                correlation_id=uuid.uuid4().hex,
                reply_to=self.address,
                deadline_ms=deadline_ms(timeout_s),
                content_type=content_type,
                model=model,
            )
        )

    def send(self, request: Message, queue: Queue | None = None) -> None:
        """Publishes a request to its model's queue or this one, and waits until the broker has it.

        Raises BrokerError.
        """
        queue = queue or self._topics.queue_of(request.headers.get("model", ""))
        self._broker.publish(queue.requests, request).result()

    def replies(self, timeout_s: float | None) -> Iterator[Message]:
        """All messages that arrive in the inbox within timeout_s; None: forever. Raises BrokerError."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while end is None or time.monotonic() < end:
            yield from self._inbox.receive(100, _TURN_S)

    def ask(
        self,
        request: Message,
        decode: Callable[[Message], Reply],
        timeout_s: float,
        queue: Queue | None = None,
    ) -> Reply | None:
        """Sends a request and waits for its reply, skipping those that decode rejects with ContractError.

        Returns None if there is none within timeout_s. Raises BrokerError.
        """
        self.send(request, queue)
        for message in self.replies(timeout_s):
            if codec.correlation_id(message) == codec.correlation_id(request):
                with suppress(ContractError):
                    return decode(message)
        return None

    def ping(self, queue: Queue, timeout_s: float) -> bool:
        """Whether a worker of the queue answers within timeout_s. Raises BrokerError."""
        request = self.request(b"", timeout_s, PING)
        return self.ask(request, codec.decode_pong, timeout_s, queue) is not None


def deadline_ms(timeout_s: float) -> int:
    """The time after timeout_s, in milliseconds since the epoch."""
    return int((time.time() + timeout_s) * 1000)


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--wait", is_flag=True, help="Wait for the replies and print them.")
@click.option("--model", default="", help="Name of the model.  [default: the workers' default model]")
@NAME
@BROKER
@pass_chosen
def send(chosen: Chosen, files: tuple[Path, ...], wait: bool, model: str, name: str) -> None:
    """Publish pictures to the broker as requests, and print their correlation IDs.

    `mlaas receive` prints the replies. With --wait, this command prints them, one JSON object per line, and
    its exit status is 1 if any picture has no prediction.
    """
    settings = chosen.load("send")
    timeout_s = settings.gateway.reply_timeout_ms / 1000
    sent: dict[str, tuple[Path, str]] = {}
    with connected(settings.broker) as connection, Requester(connection, settings.topics, name) as requester:
        for file in files:
            request = requester.request(file.read_bytes(), timeout_s, model=model)
            requester.send(request)
            sent[codec.correlation_id(request)] = file, sha256_of(request.body)
            if not wait:
                click.echo(f"{codec.correlation_id(request)}  {file}")
        if wait:
            _print_replies(requester, sent, timeout_s)


def _print_replies(requester: Requester, sent: dict[str, tuple[Path, str]], timeout_s: float) -> None:
    waiting, failed = dict(sent), False
    for message in requester.replies(timeout_s):
        correlation_id = codec.correlation_id(message)
        file, sha256 = waiting.get(correlation_id, (None, None))
        if file and (reply := _prediction(message, sha256)):
            del waiting[correlation_id]
            failed |= reply.error is not None
            click.echo(_line(message, file=harmless(str(file))))
            if not waiting:
                break
    if waiting:
        raise UserError(
            f"{len(waiting)} of {len(sent)} pictures were not answered within {timeout_s:g} s",
            "is a worker running?",
            os.EX_UNAVAILABLE,
        )
    if failed:
        sys.exit(1)


def _prediction(message: Message, sha256: str | None) -> Reply | None:
    """The reply; None for other messages, as gateways may share the partition of the inbox."""
    with suppress(ContractError):
        return codec.decode_prediction(message, sha256)
    return None


def _line(reply: Message, **more: str) -> str:
    return json.dumps({"correlation_id": codec.correlation_id(reply), **more, **json.loads(reply.body)})


@click.command()
@click.option("--count", type=click.IntRange(min=1), help="Stop after this many replies.")
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="Stop after this time.")
@NAME
@BROKER
@pass_chosen
def receive(chosen: Chosen, count: int | None, timeout_s: float | None, name: str) -> None:
    """Print replies from the broker as they arrive, one JSON object per line.

    Start it before `mlaas send`.
    """
    settings = chosen.load("receive")
    with connected(settings.broker) as connection, Requester(connection, settings.topics, name) as requester:
        click.echo(f"listening on {requester.address}", err=True)
        with suppress(KeyboardInterrupt):
            replies = (its for its in requester.replies(timeout_s) if _prediction(its, None))
            for message in itertools.islice(replies, count):
                click.echo(_line(message))


@click.group()
def topics() -> None:
    """Compare and create the topics on the broker, and grant rights on them."""


@topics.command()
@BROKER
@pass_chosen
def plan(chosen: Chosen) -> None:
    """Compare the broker's topics with those that the settings need. Changes nothing.

    The exit status is 1 if anything is missing or unfit.
    """
    settings = chosen.load("topics")
    with administered(settings) as (broker, wanted):
        found = broker.plan(wanted)
    for line in aligned([(its.state, its.what, its.detail, its.fix) for its in found]):
        click.echo(line)
    if any(its.state in ("missing", "unfit") for its in found):
        sys.exit(1)


@topics.command()
@BROKER
@pass_chosen
def create(chosen: Chosen) -> None:
    """Create what the broker lacks: topics, and subscriptions to them.

    It is safe to repeat.
    """
    settings = chosen.load("topics")
    with administered(settings) as (broker, wanted):
        created = broker.apply(wanted)
    for name, is_new in created.items():
        click.echo(f"{name}: {'created' if is_new else 'exists already'}")


@topics.command()
@click.argument("role", type=click.Choice(["gateway", "worker", "dlq"]))
@click.argument("user")
@BROKER
@pass_chosen
def grant(chosen: Chosen, role: str, user: str) -> None:
    """Give a user of the broker the rights of a role.

    It needs the right to alter the cluster, and is safe to repeat.
    """
    settings = chosen.load("topics")
    rights = rights_of(role, settings)
    with administered(settings) as (broker, _):
        broker.grant(user, rights)
    for right in rights:
        beginning = " that begins with" if right.is_prefix else ""
        click.echo(f"{user} may {right.operation} the {right.kind}{beginning} {right.name}")


@contextmanager
def administered(settings: "Settings") -> Iterator[tuple[Administration, Sequence[Topic]]]:
    """The broker's administration and the topics that it must have. Turns errors into UserError."""
    with broker_errors(), reported(os.EX_CONFIG, ValueError):
        wanted = settings.topics.wanted(settings.worker.group)
        yield administration(settings.broker, settings.topics), wanted


def rights_of(role: str, settings: "Settings") -> list[Right]:
    """What configs/rights.yaml allows a role, with the names that the settings give."""
    import yaml

    from mlaas.settings import ROOT

    its = yaml.safe_load((ROOT / "configs" / "rights.yaml").read_text())[role]
    operations: tuple[Literal["write", "read", "delete"], ...] = ("write", "read", "delete")
    queues = settings.topics.all_queues()
    topics = {name: [getattr(queue, name) for queue in queues] for name in ("requests", "jobs")}
    of_topics = [
        Right(operation, "topic", topic)
        for operation in operations
        for name in its.get(operation, ())
        for topic in topics.get(name) or [getattr(settings.topics, name)]
    ]
    of_groups = [Right("read", "group", name) for name in its["groups"]]
    for path in its.get("groups_that_begin_with", ()):
        beginning = attrgetter(path)(settings)
        of_groups.append(Right("read", "group", beginning, is_prefix=True))
    return of_topics + of_groups
