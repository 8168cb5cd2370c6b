"""up, gateway, worker."""

import errno
import gc
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlaas.chosen import Chosen
    from mlaas.settings import Settings

BROKER = click.option("--broker", metavar="URL", help="kafka://host:9092; for `up` also embedded://.")


@click.command(short_help="Start everything on this machine; Ctrl-C ends it.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--workers", type=int, help="How many worker processes.")
@BROKER
@click.pass_obj
def up(chosen: "Chosen", host: str | None, port: int | None, workers: int | None, broker: str | None) -> None:
    """Start everything: broker (inside this process, unless --broker), worker, gateway. Ctrl-C ends it."""
    from mlaas.up import up as run

    settings = chosen.load(
        "up",
        broker__url=broker or "embedded://",
        gateway__host=host,
        gateway__port=port,
        worker__processes=workers,
    )
    with _taken_port_explained(settings):
        run(settings, _announce)


def _announce(url: str) -> None:
    click.echo(f"\nReady: {url}   (open it in a browser; every call is at {url}/docs)\n")
    click.echo(f"  curl -F file=@samples/sandal.png {url}/predict\n")


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--fd", type=int, hidden=True, help="A socket that is bound already.")
@BROKER
@click.pass_obj
def gateway(chosen: "Chosen", host: str | None, port: int | None, fd: int | None, broker: str | None) -> None:
    """Answer HTTP. Runs without a broker, too, and says so until there is one."""
    gc.disable()  # until serve() has made all: what is loaded stays, and is long to look through
    from gateway.key_file import open_key_file
    from gateway.server import listen, serve
    from mlaas import __version__
    from mlaas.connect import connect

    settings = chosen.load("gateway", broker__url=broker, gateway__host=host, gateway__port=port)
    open_key_file(settings.gateway.api_keys_file)
    with _taken_port_explained(settings):
        listener = listen(settings.gateway) if fd is None else socket.socket(fileno=fd)
    connection = connect(settings.broker)
    serve(listener, connection, settings.topics, settings.gateway, settings.jobs, __version__)


@click.command()
@click.option("--workers", type=int, help="How many worker processes.")
@BROKER
@click.pass_obj
def worker(chosen: "Chosen", workers: int | None, broker: str | None) -> None:
    """Run the model over what comes in. Finishes the batch in hand before it ends."""
    settings = chosen.load("worker", broker__url=broker, worker__processes=workers)
    if settings.worker.processes == 1:
        from mlaas.run_worker import run
    else:
        from mlaas.run_worker import run_several as run
    run(settings)


@contextmanager
def _taken_port_explained(settings: "Settings") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        where = f"{settings.gateway.host}:{settings.gateway.port}"
        raise click.ClickException(
            f"cannot listen on {where}: {error.strerror}; choose another with --port, or 0 for a free one"
        ) from error


COMMANDS = (up, gateway, worker)
