"""train, predict."""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import click

from messaging.contract import MODES
from mlaas.commands.evaluate import write_report

if TYPE_CHECKING:
    from messaging.contract import Mode
    from mlaas.chosen import Chosen
    from model.settings import ModelSettings

FILES = click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@click.command()
@click.option("--epochs", type=int, help="How many passes over the training pictures.")
@click.option(
    "--seed", type=int, help="Another seed gives other first weights, and another order of pictures."
)
@click.option("--name", help="What to call the model, and its files.")
@click.pass_obj
def train(chosen: "Chosen", epochs: int | None, seed: int | None, name: str | None) -> None:
    """Train a model; write it to weights/, and what it is worth to reports/ and docs/.

    Ctrl-C stops; the same command goes on where it was.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on the processor go to every terminal
    from model.train import train as run

    settings = chosen.load("train", train__epochs=epochs, train__seed=seed, train__name=name)
    manifest = run(
        settings.train, Path(settings.model.weights_dir), click.echo, progress_bar=sys.stdout.isatty()
    )
    click.echo(f"{manifest.name} {manifest.version}: {manifest.metrics.accuracy:.2%} on the test pictures")
    write_report(settings, manifest.name)


@click.command()
@FILES
@click.option("--local", is_flag=True, help="In this process, without gateway and broker.")
@click.option("--url", default="http://localhost:8000", show_default=True, help="The gateway.")
@click.option("--model", help="Name of the model that is to answer.")
@click.option("--mode", type=click.Choice(MODES), help="How to prepare the pictures.  [default: auto]")
@click.pass_obj
def predict(
    chosen: "Chosen", files: tuple[Path, ...], local: bool, url: str, model: str | None, mode: "Mode | None"
) -> None:
    """Say what is on each picture, and why that may be wrong."""
    ask = _Local(chosen.load("predict").model, model, mode) if local else _Gateway(url, model, mode)
    for file in files:
        label, confidence, warnings = ask(file)
        click.echo(f"{file}: {label} ({confidence:.1%})")
        for warning in warnings:
            click.echo(f"{file}: warning: {warning}", err=True)


class _Local:
    """Asks the model in this process."""

    def __init__(self, settings: "ModelSettings", model: str | None, mode: "Mode | None") -> None:
        """Raises ModelError."""
        from model.classifier import load

        self._max_pixels = settings.max_pixels
        self._mode: Mode = mode or "auto"
        name = model or settings.names[0]
        self._classifier = load(Path(settings.weights_dir), name, settings.runtime, settings.threads)

    def __call__(self, file: Path) -> tuple[str, float, list[str]]:
        from model.predict import predict_picture
        from model.preprocessing import PictureError

        try:
            answer = predict_picture(
                file.read_bytes(), self._classifier, mode=self._mode, max_pixels=self._max_pixels
            )
        except PictureError as error:
            raise click.ClickException(f"{file}: {error}") from error
        return *next(iter(answer.probabilities.items())), answer.warnings


class _Gateway:
    """Asks over HTTP."""

    def __init__(self, url: str, model: str | None, mode: "Mode | None") -> None:
        query = {name: value for name, value in (("model", model), ("mode", mode)) if value}
        self._url = url.rstrip("/")
        self._query = "?" + urllib.parse.urlencode(query) if query else ""

    def __call__(self, file: Path) -> tuple[str, float, list[str]]:
        headers = {"Content-Type": "application/octet-stream"}
        url = f"{self._url}/predict{self._query}"
        request = urllib.request.Request(url, file.read_bytes(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            problem = json.load(error)
            raise click.ClickException(f"{file}: {problem['title']}: {problem['detail']}") from error
        except OSError as error:
            hint = "is it running? `mlaas up` starts it, --local does without"
            raise click.ClickException(f"{self._url} does not answer ({error}); {hint}") from error
        return answer["label"], answer["confidence"], answer["warnings"]


COMMANDS = (train, predict)
