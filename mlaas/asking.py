"""Pictures that were named on the command line, and asking for them: over HTTP, or in this process."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mlaas.answers import Answer
from mlaas.columns import harmless

if TYPE_CHECKING:
    from messaging.contract import Mode
    from mlaas_client import Client, MlaasError, Prediction
    from model.settings import ModelSettings

PICTURES = (".jfif", ".jpe", ".jpeg", ".jpg", ".pjp", ".pjpeg", ".apng", ".png", ".webp")

_NAMED = 5  # of the files that are skipped

Progress = Callable[[int, int], object]


class Named(NamedTuple):
    """A picture with what to call it."""

    name: str
    picture: Path | bytes


def named(files: Iterable[str]) -> Iterator[Named]:
    """A folder is the pictures in it, - is standard input."""
    for file in files:
        if file == "-":
            yield Named("-", sys.stdin.buffer.read())
        elif Path(file).is_dir():
            yield from (Named(str(path), path) for path in _inside(Path(file)))
        else:
            yield Named(file, Path(file))


def _inside(folder: Path) -> list[Path]:
    """The pictures, by their extensions; says which other files are skipped."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror}") from error
    if others := [harmless(path.name) for path in files if path.suffix.lower() not in PICTURES]:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        click.echo(f"skipped because of their extensions: {', '.join(others[:_NAMED])}{more}", err=True)
    return [path for path in files if path.suffix.lower() in PICTURES]


@contextmanager
def client(url: str | None, **more: Any) -> Iterator["Client"]:
    """url defaults to MLAAS_URL."""
    from mlaas_client import Client

    try:
        asking = Client(url, **more)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with asking:
        yield asking


def over_http(its: Sequence[Named], asking: "Client", progress: Progress, **asked: Any) -> list[Answer]:
    """Raises Misconfigured; Unreachable and Unauthorized too, if that is the outcome of every picture."""
    from mlaas_client import Misconfigured, MlaasError, Unauthorized, Unreachable

    if len(its) == 1:
        outcomes = [one(asking, its[0].picture, **asked)]
    else:
        outcomes = asking.predict_many([named.picture for named in its], progress=progress, **asked)
    of_all = (Misconfigured, Unauthorized, Unreachable)
    if outcomes and all(isinstance(outcome, of_all) for outcome in outcomes):
        assert isinstance(outcomes[0], MlaasError)
        raise outcomes[0]
    return [answer(named.name, outcome) for named, outcome in zip(its, outcomes, strict=True)]


def one(asking: "Client", picture: Path | bytes, **asked: Any) -> "Prediction | MlaasError":
    """Like one of predict_many. Raises Misconfigured."""
    from mlaas_client import Misconfigured, MlaasError

    try:
        return asking.predict(picture, **asked)
    except Misconfigured:
        raise
    except MlaasError as error:
        return error


def answer(name: str, outcome: "Prediction | MlaasError") -> Answer:
    from mlaas_client import MlaasError

    return Answer(name, None, outcome) if isinstance(outcome, MlaasError) else Answer(name, outcome.raw)


def locally(
    its: Sequence[Named],
    settings: "ModelSettings",
    model: str | None,
    mode: "Mode | None",
    progress: Progress,
) -> Iterator[Answer]:
    """With the model in this process. Raises ModelError."""
    from model.classifier import load, predict_picture
    from model.preprocessing import PictureError

    name = model or settings.names[0]
    classifier = load(Path(settings.weights_dir), name, settings.runtime, settings.threads)
    about = {"model": classifier.manifest.name, "version": classifier.manifest.version}
    for number, (its_name, picture) in enumerate(its, 1):
        try:
            content = picture if isinstance(picture, bytes) else picture.read_bytes()
            found = predict_picture(
                content, classifier, mode=mode or "auto", max_pixels=settings.max_pixels
            )._asdict()
        except OSError as error:
            yield Answer(its_name, None, PictureError(f"the picture cannot be read: {error.strerror}"))
        except PictureError as error:
            yield Answer(its_name, None, error)
        else:
            label, confidence = next(iter(found["probabilities"].items()))
            yield Answer(its_name, {"label": label, "confidence": confidence, **found, **about})
        progress(number, len(its))
