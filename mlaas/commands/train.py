"""train, evaluate: train a model and measure it."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlaas.commands import Chosen, pass_chosen, setting
from mlaas.commands.predict import load_model
from mlaas.errors import UserError, reported

if TYPE_CHECKING:
    from mlaas.settings import Settings
    from model.classifier import Classifier
    from model.training.figures import Evaluation, PhotoFigures

FOLDER = click.Path(path_type=Path)
WIDTH = 30


@click.command()
@setting("train.epochs", "--epochs", type=int, help="The number of passes over the training pictures.")
@setting("train.seed", "--seed", type=int, help="Sets the initial weights and the order of the pictures.")
@setting("train.name", "--name", help="The name of the model and its files.")
@pass_chosen
def train(chosen: Chosen) -> None:
    """Train a model and measure it.

    Writes the model to weights/, and the figures to reports/ and docs/. A missing teacher is trained first;
    --set train.teacher.name= trains without one. After Ctrl-C, the same command resumes the training.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else TensorFlow logs notes on the processor
    settings = chosen.load("train")
    with _model_errors():
        from model.training.learning import TrainingError
        from model.training.train import train as run

        for its in with_teacher(settings):
            weights_dir = Path(its.model.weights_dir)
            if its is not settings:
                click.echo(f"training the teacher {its.train.name} first, because it is not in {weights_dir}")
            with reported(1, TrainingError):
                manifest = run(its.train, weights_dir, click.echo, progress_bar=sys.stdout.isatty())
            click.echo(f"{manifest.name} {manifest.version}: {manifest.accuracy:.2%} on the test pictures")
            _report(its, load_model(its.model, manifest.name))


def with_teacher(settings: "Settings") -> "list[Settings]":
    """These settings, after those of a missing teacher that configs/ describes."""
    from msgspec.structs import replace

    from mlaas.settings import DEFAULTS, load
    from model import manifest

    own, teacher = settings.train, settings.train.teacher.name
    file = DEFAULTS.with_name(f"{teacher}.yaml")
    missing = teacher and not manifest.versions(Path(settings.model.weights_dir), teacher)
    if not (missing and file.exists()):
        return [settings]
    before = replace(
        load(file, {}).train,
        data_dir=own.data_dir,
        checkpoint_dir=own.checkpoint_dir,
        reports_dir=own.reports_dir,
    )
    return [*with_teacher(replace(settings, train=before)), settings]


@contextmanager
def _model_errors() -> Iterator[None]:
    """Turns ModelError and DatasetError into UserError."""
    from model.manifest import ModelError
    from model.training.dataset import DatasetError

    with reported(os.EX_DATAERR, ModelError), reported(os.EX_NOINPUT, DatasetError):
        yield


@click.command()
@click.option("--model", "name", help="The model.  [default: the default model]")
@setting(
    "model.runtime",
    "--runtime",
    type=click.Choice(["auto", "onnx", "keras"]),
    help="What runs the model.",
)
@click.option("--robustness", is_flag=True, help="Also measure accuracy on corrupted pictures.")
@click.option("--ood", is_flag=True, help="Also measure the detection of out-of-distribution pictures.")
@click.option("--photos", type=FOLDER, help="Measure on this folder of photos instead.")
@click.option("--report", is_flag=True, help="Measure everything; write reports/ and a model card to docs/.")
@click.option("--card", is_flag=True, help="Only rewrite the model card from the figures in reports/.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_chosen
def evaluate(
    chosen: Chosen,
    name: str | None,
    robustness: bool,
    ood: bool,
    photos: Path | None,
    report: bool,
    card: bool,
    as_json: bool,
) -> None:
    """Measure a model on the 10,000 test pictures, or on a folder of photos."""
    import msgspec

    if photos and (robustness or ood):
        raise click.UsageError("--robustness and --ood use the test pictures: leave out --photos")
    settings = chosen.load("evaluate")
    name = name or settings.model.default_name
    with _model_errors():
        if card:
            _write_card(settings, name)
            return
        classifier = load_model(settings.model, name)
        if classifier.manifest.kind == "tensor" or not classifier.manifest.labels:
            raise UserError(f"{name} does not classify pictures, which is what evaluate measures")
        found: Evaluation | PhotoFigures
        if photos:
            found = _photos(settings, classifier, photos, report)
        elif report:
            found = _report(settings, classifier)
        else:
            found = _test_pictures(settings, classifier, robustness, ood)
    click.echo(msgspec.json.encode(found).decode() if as_json else "\n".join(_lines(found)))


def _test_pictures(settings: "Settings", classifier: "Classifier", robust: bool, ood: bool) -> "Evaluation":
    from msgspec.structs import replace

    from model.training import dataset
    from model.training import ood as detection
    from model.training.evaluate import evaluate, in_batches, robustness
    from model.training.figures import read_record

    data = dataset.load(Path(settings.train.data_dir))
    probabilities, _ = in_batches(classifier.predict, data.test_images)
    found = evaluate(classifier, read_record(classifier.folder), probabilities, data.test_labels)
    if robust:
        found = replace(found, robustness=robustness(classifier, data.test_images, data.test_labels))
    if ood:
        found = replace(found, ood=detection.measure(classifier, data.test_images))
    return found


def _report(settings: "Settings", classifier: "Classifier") -> "Evaluation":
    from model.training import dataset, report

    data = dataset.load(Path(settings.train.data_dir))
    return report.write(classifier, data, *_folders(settings), _say)


def _photos(settings: "Settings", classifier: "Classifier", folder: Path, write: bool) -> "PhotoFigures":
    from model.training.photos import measure

    found = measure(classifier, folder, settings.model.max_pixels)
    if write:
        from model.training import report

        report.write_photos(classifier, found, *_folders(settings), _say)
    return found


def _write_card(settings: "Settings", name: str) -> None:
    from model import manifest
    from model.training import card
    from model.training.figures import read_record

    folder = manifest.folder(Path(settings.model.weights_dir), name)
    path = card.write(manifest.read(folder), read_record(folder), *_folders(settings))
    _say(f"wrote {path}")


def _folders(settings: "Settings") -> tuple[Path, Path]:
    """The folders of reports and model cards, by default the project's reports/ and docs/."""
    reports_dir = Path(settings.train.reports_dir)
    return reports_dir, reports_dir.parent / "docs"


def _say(line: str) -> None:
    click.echo(line, err=True)


def _lines(found: "Evaluation | PhotoFigures") -> Iterator[str]:
    from model.training.figures import Evaluation

    return _of_test_pictures(found) if isinstance(found, Evaluation) else _of_photos(found)


def _of_test_pictures(found: "Evaluation") -> Iterator[str]:
    """Accuracy by class and overall, calibration, cost, and the optional figures."""
    yield from (_line(label, accuracy) for label, accuracy in found.per_class.items())
    yield f"{_line('all', found.accuracy)}  of {found.count} pictures, {found.runtime}"
    yield _line("among the first two", found.top2_accuracy)
    before = found.before_temperature
    yield ""
    yield f"{'temperature':{WIDTH}}       1 {found.temperature:7g}"
    yield _line("expected calibration error", before.ece, found.ece)
    yield _line("mean over the classes", before.classwise_ece, found.classwise_ece)
    yield f"{'negative log likelihood, nats':{WIDTH}} {before.nll:7.4f} {found.nll:7.4f}"
    yield f"{'Brier score':{WIDTH}} {before.brier:7.4f} {found.brier:7.4f}"
    yield f"{'multiply-adds, parameters':{WIDTH}} {found.macs:,}, {found.parameters:,}"
    if its := found.robustness:
        yield ""
        yield _line("uncorrupted", its.clean)
        yield _line("mean of corruptions", its.mean)
        yield from (_line(name, *levels) for name, levels in its.corruptions.items())
    if found.ood:
        yield ""
        yield f"{'out of distribution':{WIDTH}}   AUROC   missed"
        for name, figures in found.ood.items():
            yield f"{name:{WIDTH}} {figures.auroc:7.3f} {figures.false_positive_rate:8.2%}"


def _of_photos(found: "PhotoFigures") -> Iterator[str]:
    """Accuracy by kind, overall and with simpler preparation; and the detection of unknown kinds."""
    yield from (_line_of(kind, its.right, its.total) for kind, its in found.per_kind.items())
    yield _line_of("all", found.right, found.total)
    yield from (_line(f"prepared by {name}", share) for name, share in found.baseline.items())
    if found.ood:
        yield ""
        yield "kinds not in the training data, detected:"
    for kind, its in found.ood.items():
        if isinstance(its, float):
            yield f"{kind:{WIDTH}} {its:7.3f}"
        else:
            yield _line_of(kind, its.flagged, its.total)
    yield ""
    yield from _counts("mode", found.modes.items())
    yield from _counts("warning", found.warnings.items())


def _counts(what: str, counted: Iterable[tuple[str, int]]) -> Iterator[str]:
    return (f"{what} {name}: {count}" for name, count in counted)


def _line_of(name: str, count: int, total: int) -> str:
    return f"{_line(name, count / total)}  {count} of {total}"


def _line(name: str, *shares: float) -> str:
    return " ".join((f"{name:{WIDTH}}", *(f"{share:7.2%}" for share in shares)))
