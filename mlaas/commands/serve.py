"""up, gateway, worker: run the service."""

import errno
import gc
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlaas.commands import BROKER, Chosen, harmless, pass_chosen, setting
from mlaas.errors import UserError, broker_errors, reported, require

if TYPE_CHECKING:
    from mlaas.settings import Settings

_TAKEN = (errno.EADDRINUSE, errno.EACCES)
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "sandal.png"

_MANY = click.IntRange(min=1)

HOST = setting("gateway.host", "--host", help="The address to listen on.")
PORT = setting(
    "gateway.port", "--port", type=click.IntRange(0, 65_535),
    help="The port to listen on; 0 picks a free one.",
)  # fmt: skip
GATEWAYS = setting(
    "gateway.processes", "--gateways", type=_MANY, help="The number of gateway processes sharing the port."
)
WORKERS = setting(
    "worker.processes", "--workers", type=_MANY, help="The number of worker processes, for each queue."
)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


MODELS = setting(
    "model.names", "--models", type=_names, metavar="NAME,NAME",
    help="The models to serve; the first one is the default.",
)  # fmt: skip


@click.command()
@HOST
@PORT
@GATEWAYS
@WORKERS
@MODELS
@BROKER
@pass_chosen
def up(chosen: Chosen) -> None:
    """Start the gateway, the worker and, unless you name one, a broker in this process.

    Ctrl-C stops everything.
    """
    require("gateway", "worker")
    from gateway.api_keys import KeyFileError
    from mlaas.up import StartFailed
    from mlaas.up import up as run

    settings = chosen.load("up", unless={"broker.url": "embedded://"})
    _check_models(settings)
    with (
        _address_errors(settings),
        broker_errors("is the broker running? Without --broker and broker.url, `mlaas up` has its own"),
        reported(1, StartFailed),
        reported(os.EX_CONFIG, KeyFileError),
    ):
        run(settings, partial(_announce, settings))
    click.echo("Stopped.")


def _check_models(settings: "Settings") -> None:
    """Raises UserError if a model that must be served has no folder, or its queue another model."""
    from mlaas.up import shares
    from model.manifest import ModelError, folder

    shares(settings)
    with reported(os.EX_DATAERR, ModelError):
        for name in settings.model.names or [settings.model.default]:
            folder(Path(settings.model.weights_dir), name)


def _announce(settings: "Settings", url: str, models: Sequence[Mapping[str, Any]]) -> None:
    """Says where it is, how to ask it from the working directory, and what runs.

    models: what the gateway lists; empty if it lists them only for who has an API key.
    """
    from messaging import lives_inside
    from messaging.kafka import EmbeddedBroker
    from model import serving

    picture = Path(os.path.relpath(_SAMPLE)) if _SAMPLE.exists() else Path("PICTURE")
    key = ' -H "X-API-Key: $MLAAS_API_KEY"' if settings.gateway.api_keys_file else ""
    own = lives_inside(settings.broker.url)
    holds = f"holds {EmbeddedBroker.max_bytes_in_flight >> 20} MiB of pictures at a time"
    broker = f"a broker in this process, which {holds} and forgets everything when it stops"
    broker = broker if own else "your broker"
    gateways = _count(settings.gateway.processes, "gateway")
    workers = _count(settings.worker.processes, "worker")
    each = " for each queue" if settings.topics.queues else ""
    served = [its["name"] for its in models if its["ready"]] or serving.names(settings.model)
    where, curl = click.style(url, fg="green", bold=True), click.style("curl", bold=True)
    click.echo(f"\nReady: {where}   (open it in a browser; {url}/docs describes the API)\n")
    click.echo(f"  {curl} -F file=@{shlex.quote(str(picture))}{key} {url}/predict\n")
    click.echo(f"Running: {gateways}, {workers}{each}, and {broker}.")
    click.echo(f"Models: {', '.join(served)}. Ctrl-C stops everything.")
    for its in models:
        for version in its["versions"]:
            if version["problem"]:
                what = f"{its['name']} {version['version']}".strip()
                click.echo(f"Not served: {harmless(what)}: {harmless(version['problem'])}")
    click.echo()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


@click.command()
@HOST
@PORT
@click.option("--fd", type=int, hidden=True, help="A bound socket that other processes may share.")
@GATEWAYS
@BROKER
@pass_chosen
def gateway(chosen: Chosen, fd: int | None) -> None:
    """Serve the HTTP API.

    While the broker is unavailable, the gateway runs but reports that it is not ready.
    """
    gc.disable()  # until serve() has built everything: imported modules stay, and scanning them takes long
    from gateway.api_keys import KeyFileError
    from gateway.jobs.store import StoreError
    from mlaas.serving import run_gateway, run_gateways

    settings = chosen.load("gateway")
    with _address_errors(settings), broker_errors(), reported(os.EX_CONFIG, KeyFileError, StoreError):
        if settings.gateway.processes == 1 or fd is not None:
            run_gateway(settings, fd, chosen.metrics_socket)
        else:
            run_gateways(settings)


@click.command()
@WORKERS
@MODELS
@BROKER
@pass_chosen
def worker(chosen: Chosen) -> None:
    """Run the models on incoming pictures.

    Models with a queue of their own (topics.queues) get processes of their own. On SIGTERM or Ctrl-C, the
    worker finishes the current batch first.
    """
    require("worker")
    settings = chosen.load("worker")
    from mlaas.serving import run_worker, run_workers
    from mlaas.up import shares
    from worker.model_process import ModelUnavailable

    with _address_errors(settings), broker_errors(), reported(os.EX_DATAERR, ModelUnavailable):
        if settings.worker.processes == 1 and len(shares(settings)) == 1:
            run_worker(settings, chosen.metrics_socket)
        else:
            run_workers(settings)


@contextmanager
def _address_errors(settings: "Settings") -> Iterator[None]:
    """Turns errors of binding an address into UserError."""
    try:
        yield
    except OSError as error:
        is_host = (error.errno or 0) < 0 or error.errno in _NOT_HERE  # getaddrinfo's are negative
        if not (is_host or error.errno in _TAKEN):
            raise
        where = error.filename or f"{settings.gateway.host}:{settings.gateway.port}"
        options = ("--host", "--port (0 picks a free one), or with make run PORT=NUMBER")
        host, port = ("metrics_host", "metrics_port") if error.filename else options
        hint = f"set {host} to an address of this machine" if is_host else f"choose another with {port}"
        raise UserError(f"cannot listen on {where}: {error.strerror}", hint) from error
