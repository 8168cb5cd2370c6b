"""predict, watch: classify the pictures named on the command line, or those added to a folder."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from messaging.contract import MODES
from mlaas.commands import JSON, Chosen, aligned, harmless, is_json, pass_chosen
from mlaas.errors import UserError, of_gateway, reported

if TYPE_CHECKING:
    from messaging.contract import Mode
    from mlaas_client import Client, MlaasError, Prediction
    from model.classifier import Classifier
    from model.settings import ModelSettings

FILES = click.argument("files", nargs=-1, required=True, metavar="FILES...")
MODE = click.option("--mode", type=click.Choice(MODES), help="How to prepare the pictures.  [default: auto]")
MODEL = click.option("--model", metavar="NAME", help="The model to use.  [default: the gateway's default]")
URL = click.option(
    "--url", metavar="URL", help="The gateway.  [default: MLAAS_URL, else http://localhost:8000]"
)
TIMEOUT = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="How long to wait for a prediction.  [default: 30]",
)  # fmt: skip

PICTURES = (".jfif", ".jpe", ".jpeg", ".jpg", ".pjp", ".pjpeg", ".apng", ".png", ".webp")

_FEW = 32
_MOST_NAMED = 5
_TITLES = ("FILE", "LABEL", "CONFIDENCE", "WARNINGS")
_WIDTHS = (32, 12, 10, 0)

Progress = Callable[[int, int], object]


class Named(NamedTuple):
    """A picture and its name in the output."""

    name: str
    picture: Path | bytes


class Answer(NamedTuple):
    """A prediction as POST /predict returns it; or an error, with its problem document if there is one."""

    name: str
    prediction: Mapping[str, Any] | None = None
    error: UserError | None = None
    problem: Mapping[str, Any] = {}


@click.command()
@FILES
@click.option("--local", is_flag=True, help="Run the model in this process, without gateway or broker.")
@URL
@MODEL
@MODE
@TIMEOUT
@JSON
@pass_chosen
def predict(
    chosen: Chosen,
    files: tuple[str, ...],
    local: bool,
    url: str | None,
    model: str | None,
    mode: "Mode | None",
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Classify pictures, with warnings where the prediction may be wrong.

    FILES may include folders, which stand for the pictures in them, and -, which stands for standard input.
    Prints a table on a terminal, and one JSON object per line otherwise. The exit status is 1 if any picture
    could not be classified.
    """
    if local and (url or timeout_s):
        raise click.UsageError("--local does not use a gateway: leave out --url and --timeout")
    its = list(named(files))
    with _progress(len(its)) as progress:
        if local:
            answers = list(_locally(its, chosen.load("predict").model, model, mode, progress))
        else:
            with gateway(url) as client:
                answers = _over_http(its, client, progress, model=model, mode=mode, timeout_s=timeout_s)
    if not its:
        raise UserError(f"no pictures in {', '.join(files)}: looked for {', '.join(PICTURES)}")
    show(answers, as_json)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Also classify the pictures already in the folder.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(min=0.05), default=0.5, show_default=True,
    metavar="SECONDS", help="How often to check the folder.",
)  # fmt: skip
@URL
@MODEL
@MODE
@JSON
def watch(
    folder: Path,
    everything: bool,
    interval_s: float,
    url: str | None,
    model: str | None,
    mode: "Mode | None",
    as_json: bool,
) -> None:
    """Classify each picture added to a folder, until Ctrl-C.

    A picture is sent once its file is complete. While the gateway is unavailable, pictures wait.
    """
    try:
        arrivals = Arrivals({} if everything else look(folder))
        click.echo(f"watching {folder}; press Ctrl-C to stop", err=True)
        with gateway(url) as client:
            ask = partial(_ask, client, model=model, mode=mode)
            interrupted = _interrupted()
            is_waiting = False
            while not interrupted.is_set():
                paths = arrivals.settled(look(folder))
                waiting = _print_each(paths, ask, is_json(as_json), is_waiting)
                is_waiting = bool(waiting) or (is_waiting and not paths)
                arrivals.again(waiting)
                time.sleep(interval_s)
    except KeyboardInterrupt:
        click.echo(err=True)
    except OSError as error:
        raise UserError(f"cannot watch {folder}: {error.strerror}") from error


# Finding pictures.


def named(files: Iterable[str]) -> Iterator[Named]:
    """The pictures that the arguments stand for; see predict(). Raises UserError."""
    for file in files:
        if file == "-":
            yield Named("-", sys.stdin.buffer.read())
        elif Path(file).is_dir():
            yield from (Named(str(path), path) for path in _inside(Path(file)))
        else:
            yield Named(file, Path(file))


def _inside(folder: Path) -> list[Path]:
    """The files with the extension of a picture. Reports the others, which are skipped."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from error
    if others := [harmless(path.name) for path in files if path.suffix.lower() not in PICTURES]:
        more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
        click.echo(f"skipped because of their extensions: {', '.join(others[:_MOST_NAMED])}{more}", err=True)
    return [path for path in files if path.suffix.lower() in PICTURES]


class Stamp(NamedTuple):
    """The size and time of a file, which change when it is written."""

    size_bytes: int
    modified_ns: int


Listing = Mapping[Path, Stamp]


class Arrivals:
    """Finds new files in listings of a folder. A file is complete once two in a row agree on it."""

    def __init__(self, known: Listing) -> None:
        self._given: dict[Path, Stamp] = dict(known)
        self._last: Listing = {}

    def settled(self, listing: Listing) -> list[Path]:
        """The complete files that are new, or have changed since they were last returned."""
        complete = [
            path
            for path, stamp in sorted(listing.items())
            if stamp.size_bytes and self._last.get(path) == stamp and self._given.get(path) != stamp
        ]
        self._last = dict(listing)
        self._given = {path: stamp for path, stamp in self._given.items() if path in listing}
        self._given |= {path: listing[path] for path in complete}
        return complete

    def again(self, paths: list[Path]) -> None:
        """Makes the next listing return these files again."""
        for path in paths:
            self._given.pop(path, None)


def look(folder: Path) -> Listing:
    """The pictures in the folder. Raises OSError if it no longer exists."""
    found: dict[Path, Stamp] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in PICTURES and not path.name.startswith("."):
            try:
                its = path.stat()
            except FileNotFoundError:
                continue
            found[path] = Stamp(its.st_size, its.st_mtime_ns)
    return found


# Classifying.


@contextmanager
def gateway(url: str | None) -> Iterator["Client"]:
    """A client of the gateway at url, or at MLAAS_URL. Turns its errors into UserError."""
    from mlaas_client import Client, MlaasError

    try:
        try:
            client = Client(url)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        with client:
            yield client
    except MlaasError as error:
        raise of_gateway(error) from error


def _over_http(its: Sequence[Named], client: "Client", progress: Progress, **asked: Any) -> list[Answer]:
    """The answers in order. Raises MlaasError if all pictures failed because of the gateway, key or proxy."""
    from mlaas_client import Misconfigured, MlaasError, Unauthorized, Unreachable

    if len(its) == 1:
        outcomes = [_ask(client, its[0].picture, **asked)]
    else:
        outcomes = client.predict_many([named.picture for named in its], progress=progress, **asked)
    of_all = (Misconfigured, Unauthorized, Unreachable)
    if outcomes and all(isinstance(outcome, of_all) for outcome in outcomes):
        assert isinstance(outcomes[0], MlaasError)
        raise outcomes[0]
    return [answer(named.name, outcome) for named, outcome in zip(its, outcomes, strict=True)]


def _ask(client: "Client", picture: Path | bytes, **asked: Any) -> "Prediction | MlaasError":
    """Returns errors, as predict_many does, except Misconfigured, which it raises."""
    from mlaas_client import Misconfigured, MlaasError

    try:
        return client.predict(picture, **asked)
    except Misconfigured:
        raise
    except MlaasError as error:
        return error


def answer(name: str, outcome: "Prediction | MlaasError") -> Answer:
    """The answer for a picture from what the client returned."""
    from mlaas_client import MlaasError

    if isinstance(outcome, MlaasError):
        return Answer(name, error=of_gateway(outcome), problem=outcome.problem)
    return Answer(name, outcome.raw)


def load_model(settings: "ModelSettings", name: str | None) -> "Classifier":
    """Loads a model, by default the first of model.names. Raises UserError."""
    from model.classifier import load
    from model.manifest import ModelError

    with reported(os.EX_DATAERR, ModelError):
        return load(Path(settings.weights_dir), name or settings.names[0], settings.runtime, settings.threads)


def _locally(
    its: Sequence[Named],
    settings: "ModelSettings",
    model: str | None,
    mode: "Mode | None",
    progress: Progress,
) -> Iterator[Answer]:
    from model.classifier import predict_picture
    from model.preprocessing import PictureError

    classifier = load_model(settings, model)
    if mode not in (None, "auto") and not classifier.manifest.takes_mode:
        who = classifier.manifest.name
        raise UserError(f"mode is for models of clothing; {who} prepares every picture alike")
    about = {"model": classifier.manifest.name, "version": classifier.manifest.version}
    for number, (name, picture) in enumerate(its, 1):
        try:
            content = picture if isinstance(picture, bytes) else picture.read_bytes()
            found = predict_picture(
                content, classifier, mode=mode or "auto", max_pixels=settings.max_pixels
            )._asdict()
        except OSError as error:
            yield Answer(name, error=UserError(f"the picture cannot be read: {error.strerror}"))
        except PictureError as error:
            yield Answer(name, error=UserError(str(error)))
        else:
            label, confidence = next(iter(found["probabilities"].items()))
            yield Answer(name, {"label": label, "confidence": confidence, **found, **about})
        progress(number, len(its))


# Printing.


def show(answers: Sequence[Answer], as_json: bool) -> None:
    """Prints predictions to standard output, errors to standard error; exits with 1 if there are errors."""
    for line in map(json_line, answers) if is_json(as_json) else table(answers):
        click.echo(line)
    failed = list(failures(answers))
    for line in failed:
        click.echo(line, err=True)
    if failed:
        sys.exit(1)


def table(answers: Sequence[Answer]) -> Iterable[str]:
    """The predictions as a table with titles; nothing if there are none."""
    rows = [_cells(answer.name, answer.prediction) for answer in answers if answer.prediction is not None]
    return aligned([_TITLES, *rows]) if rows else ()


def row(answer: Answer) -> Iterable[str]:
    """The prediction as a line in columns of fixed width, as later rows are unknown; nothing without one."""
    its = answer.prediction
    return () if its is None else aligned([_cells(answer.name, its)], _WIDTHS)


def json_line(answer: Answer) -> str:
    """The answer as a JSON object with the file's name and the prediction or problem."""
    outcome = answer.prediction
    if outcome is None:
        outcome = {"problem": answer.problem or {"title": answer.error and answer.error.message}}
    return json.dumps({"file": harmless(answer.name), **outcome})


def failures(answers: Iterable[Answer]) -> Iterable[str]:
    """A line for each error, with a hint on what to do."""
    for answer in answers:
        if answer.error is not None:
            yield f"{harmless(answer.name)}: {harmless(str(answer.error))}"


def _cells(name: str, prediction: Mapping[str, Any]) -> tuple[str, str, str, str]:
    warnings = "; ".join(prediction.get("warnings", ()))
    label, confidence = str(prediction["label"]), f"{prediction['confidence']:.1%}"
    return harmless(name), harmless(label), confidence.rjust(_WIDTHS[2]), harmless(warnings)


def _print_each(paths: list[Path], ask: Callable[[Path], Any], as_json: bool, is_waiting: bool) -> list[Path]:
    """Classifies and prints each picture. Returns those that must wait for the gateway; reports that once."""
    from mlaas_client import Overloaded, Unavailable, Unreachable

    for number, path in enumerate(paths):
        outcome = ask(path)
        if isinstance(outcome, (Overloaded, Unavailable, Unreachable)):
            if number or not is_waiting:
                click.echo(f"waiting: {of_gateway(outcome)}", err=True)
            return paths[number:]
        its = answer(str(path), outcome)
        for line in [json_line(its)] if as_json else row(its):
            click.echo(line)
        for line in failures([its]):
            click.echo(line, err=True)
    return []


@contextmanager
def _progress(length: int) -> Iterator[Progress]:
    """Shows a progress bar if there are many pictures and standard error is a terminal."""
    hidden = length <= _FEW or not sys.stderr.isatty()
    with click.progressbar(length=length, file=sys.stderr, hidden=hidden, label="pictures") as bar:
        yield lambda done, _: bar.update(done - bar.pos)


def _interrupted() -> threading.Event:
    """An event that Ctrl-C sets in addition to KeyboardInterrupt, which Python drops inside a finalizer."""
    interrupted = threading.Event()

    def interrupt(_: int, __: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    return interrupted
