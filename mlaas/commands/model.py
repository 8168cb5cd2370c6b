"""train, evaluate, predict."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlaas.chosen import Chosen
    from model.settings import ModelSettings

FILES = click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@click.command()
@click.option("--epochs", type=int, help="How many passes over the training pictures.")
@click.pass_obj
def train(chosen: "Chosen", epochs: int | None) -> None:
    """Train the model and write it to weights/. Ctrl-C stops; the same command goes on where it was."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on the processor go to every terminal
    from model.train import train as run

    settings = chosen.load("train", train__epochs=epochs)
    manifest = run(settings.train, settings.model, click.echo)
    click.echo(f"{manifest.name} {manifest.version}: {manifest.metrics.accuracy:.2%} on the test pictures")


@click.command()
@click.option("--runtime", type=click.Choice(["auto", "onnx", "keras"]), help="What runs the model.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def evaluate(chosen: "Chosen", runtime: str | None, as_json: bool) -> None:
    """Measure the shipped model on the 10,000 test pictures."""
    import msgspec

    from model import dataset
    from model.classifier import load
    from model.evaluate import evaluate as run

    settings = chosen.load("evaluate", model__runtime=runtime)
    its = settings.model
    data = dataset.load(Path(settings.train.data_dir))
    classifier = load(Path(its.weights_dir), its.name, its.runtime, its.threads)
    metrics = run(classifier, data.test_images, data.test_labels)
    if as_json:
        about = {"model": its.name, "version": classifier.manifest.version, "runtime": classifier.runtime}
        click.echo(json.dumps({**msgspec.to_builtins(metrics), **about}))
        return
    for label, accuracy in metrics.per_class.items():
        click.echo(f"{label:12} {accuracy:7.2%}")
    click.echo(f"{'all':12} {metrics.accuracy:7.2%}  of {metrics.count} pictures, {classifier.runtime}")


@click.command()
@FILES
@click.option("--local", is_flag=True, help="In this process, without gateway and broker.")
@click.option("--url", default="http://localhost:8000", show_default=True, help="The gateway.")
@click.pass_obj
def predict(chosen: "Chosen", files: tuple[Path, ...], local: bool, url: str) -> None:
    """Say what is on each picture."""
    ask = _Local(chosen.load("predict").model) if local else _Gateway(url)
    for file in files:
        label, confidence = ask(file)
        click.echo(f"{file}: {label} ({confidence:.1%})")


class _Local:
    """Asks the model in this process."""

    def __init__(self, settings: "ModelSettings") -> None:
        from model.classifier import load

        self._settings = settings
        weights_dir = Path(settings.weights_dir)
        self._classifier = load(weights_dir, settings.name, settings.runtime, settings.threads)

    def __call__(self, file: Path) -> tuple[str, float]:
        from model.predict import predict_picture
        from model.preprocessing import PictureError

        try:
            ranked = predict_picture(file.read_bytes(), self._classifier, self._settings.max_pixels)
        except PictureError as error:
            raise click.ClickException(f"{file}: {error}") from error
        return next(iter(ranked.items()))


class _Gateway:
    """Asks over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def __call__(self, file: Path) -> tuple[str, float]:
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self._url}/predict", file.read_bytes(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            problem = json.load(error)
            raise click.ClickException(f"{file}: {problem['title']}: {problem['detail']}") from error
        except OSError as error:
            hint = "is it running? `mlaas up` starts it, --local does without"
            raise click.ClickException(f"{self._url} does not answer ({error}); {hint}") from error
        return answer["label"], answer["confidence"]


COMMANDS = (train, evaluate, predict)
