"""predict: classify the pictures named on the command line."""

import base64
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from messaging.contract import MODES, MOST_LABELS
from mlaas.commands import JSON, Answer, Chosen, harmless, pass_chosen, show
from mlaas.errors import UserError, of_gateway, reported

if TYPE_CHECKING:
    from messaging.contract import Mode
    from mlaas_client import Client, MlaasError, Prediction
    from model import ModelSettings
    from model.classifier import Classifier

FILES = click.argument("files", nargs=-1, required=True, metavar="FILES...")
MODE = click.option("--mode", type=click.Choice(MODES), help="How to prepare the pictures.  [default: auto]")
MODEL = click.option("--model", metavar="NAME", help="The model to use.  [default: the gateway's default]")
AUTO_MODEL = click.option(
    "--model", metavar="NAME",
    help="The model to use; auto: for each picture, the one that suits it.  [default: the default model]",
)  # fmt: skip
VERSION = click.option(
    "--version", metavar="VERSION", help="The model's version.  [default: the model's shares decide]"
)
URL = click.option(
    "--url", metavar="URL", help="The gateway.  [default: MLAAS_URL, else http://localhost:8000]"
)
TIMEOUT = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="How long to wait for a prediction.  [default: 30]",
)  # fmt: skip

PICTURES = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg",
    ".pjp", ".pjpeg", ".png", ".tif", ".tiff", ".webp",
)  # fmt: skip

_TOP_K = click.option(
    "--top-k", type=click.IntRange(min=1), metavar="N",
    help="Print the N most probable labels.  [default: 1; in JSON, 10]",
)  # fmt: skip
_EXPLAIN = click.option(
    "--explain", "into", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Write what the model saw of each picture to this folder, as PNG.",
)  # fmt: skip
_CSV = click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with the errors in a column.")

AUTO, FOR_PHOTOS = "auto", "clothing-photo"

_FEW = 32
_MOST_NAMED = 5

Progress = Callable[[int, int], object]


class Named(NamedTuple):
    """A picture and its name in the output."""

    name: str
    picture: Path | bytes


@click.command()
@FILES
@click.option("--local", is_flag=True, help="Run the model in this process, without gateway or broker.")
@URL
@AUTO_MODEL
@VERSION
@MODE
@TIMEOUT
@_TOP_K
@_EXPLAIN
@JSON
@_CSV
@pass_chosen
def predict(
    chosen: Chosen,
    files: tuple[str, ...],
    local: bool,
    url: str | None,
    model: str | None,
    version: str | None,
    mode: "Mode | None",
    timeout_s: float | None,
    top_k: int | None,
    into: Path | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Classify pictures, with warnings where the prediction may be wrong.

    FILES may include folders, which stand for the pictures in them, -, which stands for standard input, and
    .json files with a row of numbers, {"inputs": [row]}, for a model that takes those.
    Prints a table on a terminal, and one JSON object per line otherwise. The exit status is 1 if any picture
    could not be classified.

    With --model auto, pictures like those of Fashion-MNIST (28 x 28 pixels; or square, grey, and black at the
    border) go to the default model, and all others to clothing-photo, if it is served.
    """
    if model == AUTO and mode not in (None, AUTO):
        raise click.UsageError("--mode is for one model of clothing: name it with --model")
    if model == AUTO and version:
        raise click.UsageError("--version is for one model: name it with --model")
    if local and (url or timeout_s or into):
        raise click.UsageError("--local does not use a gateway: leave out --url, --timeout and --explain")
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    shown = {"top_k": top_k, "explain": into and "input"}
    its = list(named(files))
    with _progress(len(its)) as progress:
        if local:
            answers = list(_locally(its, chosen.load("predict").model, model, version, mode, top_k, progress))
        else:
            with gateway(url) as client:
                choose = Chooser(model, partial(served_by, client))
                asked = {"version": version, "mode": mode, "timeout_s": timeout_s, **shown}
                answers = _over_http(its, client, choose, progress, **asked)
    if not its:
        raise UserError(f"no pictures in {', '.join(files)}: looked for {', '.join(PICTURES)}")
    if into:
        answers = _with_inputs_in(into, answers)
    show(answers, as_json, as_csv, top_k or 1)


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
        folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[:1] != ".")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from error
    _skip("because of their extensions", [path.name for path in files if path.suffix.lower() not in PICTURES])
    _skip("because they are folders; name them to classify what is in them", folders)
    return [path for path in files if path.suffix.lower() in PICTURES]


def _skip(why: str, names: Sequence[str]) -> None:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    if names:
        click.echo(f"skipped {why}: {', '.join(map(harmless, names[:_MOST_NAMED]))}{more}", err=True)


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


class Served(NamedTuple):
    """The models to choose from. kind: of the default one, as in ServedModel."""

    default: str
    kind: str
    names: Sequence[str]


def served_by(client: "Client") -> Served:
    """Raises MlaasError."""
    models = client.models()
    default = next((model for model in models if model.default), models[0])
    return Served(default.name, default.kind, [model.name for model in models if model.is_served])


class Chooser:
    """The model for each picture: the one asked for, or for auto, the one that suits the picture."""

    def __init__(self, asked: str | None, look: Callable[[], Served]) -> None:
        """look is called once, and again after an error, if the choice depends on what is served."""
        self._asked = asked
        self._look = look
        self._served: Served | None = None

    def __call__(self, picture: Path | bytes) -> str | None:
        if self._asked != AUTO:
            return self._asked
        self._served = self._served or self._look()
        if self._served.kind != "garment" or FOR_PHOTOS not in self._served.names:
            return self._served.default
        return self._served.default if _is_for_the_default(picture) else FOR_PHOTOS


def _is_for_the_default(picture: Path | bytes) -> bool:
    """Whether it is like those of the data set; or cannot be read, which whoever classifies it explains."""
    from messaging import picture_header
    from model.classifier import GOLDEN_PIXELS
    from model.preprocessing import PictureError, is_like_the_data_set

    try:
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
        header = picture_header.read(content)
        if header is not None and header.width != header.height:
            return False
        return is_like_the_data_set(content, max_pixels=GOLDEN_PIXELS)
    except (OSError, picture_header.HeaderError, PictureError):
        return True


def _over_http(
    its: Sequence[Named], client: "Client", choose: Chooser, progress: Progress, **asked: Any
) -> list[Answer]:
    """The answers in order. Raises MlaasError if all pictures failed because of the gateway, key or proxy."""
    from mlaas_client import Misconfigured, MlaasError, Unauthorized, Unreachable

    if len(its) == 1:
        outcomes = [ask(client, choose, its[0].picture, **asked)]
    else:
        outcomes = _ask_many(client, choose, [named.picture for named in its], progress, **asked)
    of_all = (Misconfigured, Unauthorized, Unreachable)
    if outcomes and all(isinstance(outcome, of_all) for outcome in outcomes):
        assert isinstance(outcomes[0], MlaasError)
        raise outcomes[0]
    return [answer(named.name, outcome) for named, outcome in zip(its, outcomes, strict=True)]


def _ask_many(
    client: "Client", choose: Chooser, pictures: Sequence[Path | bytes], progress: Progress, **asked: Any
) -> "list[Prediction | MlaasError]":
    """The outcomes in order, after a call for the pictures of each model. Raises MlaasError."""
    by_model: dict[str | None, list[int]] = {}
    outcomes: dict[int, Prediction | MlaasError] = {}
    for index, picture in enumerate(pictures):
        if is_row(picture):
            outcomes[index] = ask(client, choose, picture, **asked)
        else:
            by_model.setdefault(choose(picture), []).append(index)
    for model, indexes in by_model.items():
        its = [pictures[index] for index in indexes]

        def so_far(done: int, _: int, before: int = len(outcomes)) -> None:
            progress(before + done, len(pictures))

        found = client.predict_many(its, progress=so_far, model=model, **asked)
        outcomes |= zip(indexes, found, strict=True)
    return [outcomes[index] for index in range(len(pictures))]


def ask(client: "Client", choose: Chooser, picture: Path | bytes, **asked: Any) -> "Prediction | MlaasError":
    """Returns errors, as predict_many does, except Misconfigured, which it raises."""
    from mlaas_client import Misconfigured, MlaasError

    try:
        if is_row(picture):
            return client.predict_row(read_row(picture), model=choose(picture), **asked)
        return client.predict(picture, model=choose(picture), **asked)
    except Misconfigured:
        raise
    except MlaasError as error:
        return error


def is_row(picture: Path | bytes) -> bool:
    """Whether this is a file with a row of numbers, not a picture."""
    return isinstance(picture, Path) and picture.suffix == ".json"


def read_row(file: Path | bytes) -> Any:
    """The only row of {"inputs": [row]}. Raises PictureUnreadable."""
    from mlaas_client import PictureUnreadable

    try:
        (row,) = json.loads(file if isinstance(file, bytes) else file.read_bytes())["inputs"]
    except OSError as error:
        raise PictureUnreadable(f"the file cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise PictureUnreadable('the file is not JSON of the form {"inputs": [row]}, with one row') from error
    return row


def answer(name: str, outcome: "Prediction | MlaasError") -> Answer:
    """The answer for a picture from what the client returned."""
    from mlaas_client import MlaasError

    if isinstance(outcome, MlaasError):
        return Answer(name, error=of_gateway(outcome), problem=outcome.problem)
    return Answer(name, outcome.raw)


def load_model(settings: "ModelSettings", name: str | None, version: str = "") -> "Classifier":
    """Loads a model, by default the default one, in the version that answers. Raises UserError."""
    from model import serving
    from model.classifier import load
    from model.manifest import ModelError

    with reported(os.EX_DATAERR, ModelError):
        weights_dir, name = Path(settings.weights_dir), name or settings.default_name
        version = version or serving.current(weights_dir, name).version
        return load(weights_dir, name, settings.runtime, settings.threads, version)


def _locally(
    its: Sequence[Named],
    settings: "ModelSettings",
    model: str | None,
    version: str | None,
    mode: "Mode | None",
    top_k: int | None,
    progress: Progress,
) -> Iterator[Answer]:
    from model import serving
    from model.classifier import predict_picture, predict_row
    from model.inputs import RowError, from_json
    from model.manifest import ModelError
    from model.preprocessing import PictureError

    loaded = cache(partial(load_model, settings, version=version or ""))

    def served() -> Served:
        return Served(settings.default_name, loaded(None).manifest.kind, serving.names(settings))

    choose = Chooser(model, served)
    for number, (name, picture) in enumerate(its, 1):
        classifier = loaded(choose(picture))
        its_manifest = classifier.manifest
        if mode not in (None, AUTO) and not its_manifest.takes_mode:
            raise UserError(
                f"mode is for models of clothing; {its_manifest.name} prepares every picture alike"
            )
        about = {"model": its_manifest.name, "version": its_manifest.version}
        try:
            content = picture if isinstance(picture, bytes) else picture.read_bytes()
            if is_row(picture):
                if its_manifest.kind != "tensor":
                    raise RowError(f"{its_manifest.name} takes pictures, and this is JSON")
                found = predict_row(from_json(content, its_manifest.input), classifier)
            else:
                found = predict_picture(
                    content, classifier, mode=mode or "auto", max_pixels=settings.max_pixels
                )
        except OSError as error:
            yield Answer(name, error=UserError(f"the picture cannot be read: {error.strerror}"))
        except (PictureError, RowError, ModelError) as error:
            yield Answer(name, error=UserError(str(error)))
        else:
            label, confidence = next(iter(found.probabilities.items()), (None, None))
            its_own = {"label": label, "confidence": confidence, **found._asdict(), **about}
            its_own["probabilities"] = dict(islice(found.probabilities.items(), top_k or MOST_LABELS))
            if label is not None:
                del its_own["outputs"]
            yield Answer(name, its_own)
        progress(number, len(its))


def _with_inputs_in(folder: Path, answers: Iterable[Answer]) -> list[Answer]:
    """Writes what the model saw into the folder, and has each answer name its file. Raises UserError."""
    written: list[Answer] = []
    taken: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for answer in answers:
            its = dict(answer.prediction or {})
            if seen := its.get("input"):
                file = _free_name(Path(answer.name).stem if answer.name != "-" else "stdin", taken)
                (folder / file).write_bytes(base64.b64decode(seen.partition(",")[2]))
                its["input"] = str(folder / file)
            written.append(answer._replace(prediction=its or None))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    return written


def _free_name(stem: str, taken: set[str]) -> str:
    names = itertools.chain((f"{stem}.png",), (f"{stem}-{number}.png" for number in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


@contextmanager
def _progress(length: int) -> Iterator[Progress]:
    """Shows a progress bar if there are many pictures and standard error is a terminal."""
    hidden = length <= _FEW or not sys.stderr.isatty()
    with click.progressbar(length=length, file=sys.stderr, hidden=hidden, label="pictures") as bar:
        yield lambda done, _: bar.update(done - bar.pos)
