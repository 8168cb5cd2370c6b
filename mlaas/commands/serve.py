"""up, gateway, worker."""

import errno
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from mlaas.chosen import Chosen, pass_chosen

if TYPE_CHECKING:
    from mlaas.settings import Settings

_TAKEN = (errno.EADDRINUSE, errno.EACCES)
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

BROKER = click.option(
    "--broker", metavar="URL", help="kafka://host:9092.  [default: broker.url; for `up` embedded://]"
)


@click.command(short_help="Start everything on this machine; Ctrl-C ends it.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--gateways", type=int, help="How many gateway processes share the port.")
@click.option("--workers", type=int, help="How many worker processes.")
@BROKER
@pass_chosen
def up(
    chosen: Chosen,
    host: str | None,
    port: int | None,
    gateways: int | None,
    workers: int | None,
    broker: str | None,
) -> None:
    """Start everything: worker, gateway, and a broker inside this process unless you have set another.

    Ctrl-C ends it.
    """
    from mlaas.extras import require

    require("gateway", "worker")
    from mlaas.up import up as run

    settings = chosen.load(
        "up",
        unless={"broker.url": "embedded://"},
        broker__url=broker,
        gateway__host=host,
        gateway__port=port,
        gateway__processes=gateways,
        worker__processes=workers,
    )
    with _bad_address_explained(settings):
        run(settings, _announce)


def _announce(url: str) -> None:
    click.echo(f"\nReady: {url}   (open it in a browser; every call is at {url}/docs)\n")
    click.echo(f"  curl -F file=@samples/sandal.png {url}/predict\n")


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--fd", type=int, hidden=True, help="A socket that is bound already; others may share it.")
@click.option("--gateways", type=int, help="How many processes share the port.")
@BROKER
@pass_chosen
def gateway(
    chosen: Chosen,
    host: str | None,
    port: int | None,
    fd: int | None,
    gateways: int | None,
    broker: str | None,
) -> None:
    """Answer HTTP. Runs without a broker, too, and says so until there is one."""
    gc.disable()  # until serve() has made all: what is loaded stays, and is long to look through
    from mlaas.run_gateway import run, run_several

    settings = chosen.load(
        "gateway",
        broker__url=broker,
        gateway__host=host,
        gateway__port=port,
        gateway__processes=gateways,
    )
    with _bad_address_explained(settings):
        if settings.gateway.processes == 1 or fd is not None:
            run(settings, fd)
        else:
            run_several(settings)


@click.command()
@click.option("--workers", type=int, help="How many worker processes.")
@BROKER
@pass_chosen
def worker(chosen: Chosen, workers: int | None, broker: str | None) -> None:
    """Run the model over what comes in. Finishes the batch in hand before it ends."""
    from mlaas.extras import require

    require("worker")
    settings = chosen.load("worker", broker__url=broker, worker__processes=workers)
    if settings.worker.processes == 1:
        from mlaas.run_worker import run
    else:
        from mlaas.run_worker import run_several as run
    with _bad_address_explained(settings):
        run(settings)


@contextmanager
def _bad_address_explained(settings: "Settings") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        is_host = (error.errno or 0) < 0 or error.errno in _NOT_HERE  # below 0 are the numbers of getaddrinfo
        if not (is_host or error.errno in _TAKEN):
            raise
        where = error.filename or f"{settings.gateway.host}:{settings.gateway.port}"
        its_own = ("--host", "--port, or 0 for a free one")
        host, port = ("metrics_host", "metrics_port") if error.filename else its_own
        mend = f"name an address of this machine with {host}" if is_host else f"choose another with {port}"
        raise click.ClickException(f"cannot listen on {where}: {error.strerror}; {mend}") from error


COMMANDS = (up, gateway, worker)
