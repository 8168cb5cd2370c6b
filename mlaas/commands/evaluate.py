"""evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlaas.chosen import Chosen, pass_chosen

if TYPE_CHECKING:
    from mlaas.settings import Settings
    from model.classifier import Classifier
    from model.training.figures import Evaluation, PhotoFigures

FOLDER = click.Path(path_type=Path)
LAYOUT = "The layout is one folder for each kind of clothes with its photos, as t-shirt/1.jpg."


@click.command(short_help="Measure a model on test pictures, or on photos of your own.")
@click.option("--model", "name", help="Which model.  [default: the first of model.names]")
@click.option("--runtime", type=click.Choice(["auto", "onnx", "keras"]), help="What runs the model.")
@click.option("--robustness", is_flag=True, help="Accuracy on corrupted pictures, too.")
@click.option("--ood", is_flag=True, help="How well pictures of something else are noticed, too.")
@click.option("--photos", type=FOLDER, help="A folder of photos in place of the test pictures.")
@click.option("--report", is_flag=True, help="All of it into reports/ and docs/model-card-<model>.md.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@pass_chosen
def evaluate(
    chosen: Chosen,
    name: str | None,
    runtime: str | None,
    robustness: bool,
    ood: bool,
    photos: Path | None,
    report: bool,
    as_json: bool,
) -> None:
    """Measure a model on the 10,000 test pictures, or on a folder of photos."""
    import msgspec

    if photos and (robustness or ood):
        raise click.UsageError("--robustness and --ood are of the test pictures: leave out --photos")
    settings = chosen.load("evaluate", model__runtime=runtime)
    classifier = _load(settings, name)
    found: Evaluation | PhotoFigures
    if photos:
        found = _photos(settings, classifier, photos, report)
    elif report:
        found = _report(settings, classifier)
    else:
        found = _test_pictures(settings, classifier, robustness, ood)
    click.echo(msgspec.json.encode(found).decode() if as_json else _text(found))


def _load(settings: "Settings", name: str | None) -> "Classifier":
    from model.classifier import load

    its = settings.model
    return load(Path(its.weights_dir), name or its.names[0], its.runtime, its.threads)


def _test_pictures(settings: "Settings", classifier: "Classifier", robust: bool, ood: bool) -> "Evaluation":
    from msgspec.structs import replace

    from model.training import dataset, ood_sets
    from model.training.evaluate import evaluate, robustness

    data = dataset.load(Path(settings.train.data_dir))
    found = evaluate(classifier, data.test_images, data.test_labels)
    if robust:
        found = replace(found, robustness=robustness(classifier, data.test_images, data.test_labels))
    if ood:
        found = replace(found, ood=ood_sets.measure(classifier, data.test_images))
    return found


def _report(settings: "Settings", classifier: "Classifier") -> "Evaluation":
    from model.training import dataset, report

    data = dataset.load(Path(settings.train.data_dir))
    return report.write(classifier, data, *_places(settings), _say)


def write_report(settings: "Settings", name: str) -> None:
    """What --report does, for the model of this name."""
    _report(settings, _load(settings, name))


def _photos(settings: "Settings", classifier: "Classifier", folder: Path, write: bool) -> "PhotoFigures":
    from model.training.photo_figures import measure
    from model.training.photo_set import PhotoSetError

    try:
        found = measure(classifier, folder, settings.model.max_pixels)
    except PhotoSetError as error:
        raise click.ClickException(f"{error} {LAYOUT}") from error
    if write:
        from model.training import report

        report.write_photos(classifier, found, *_places(settings), _say)
    return found


def _places(settings: "Settings") -> tuple[Path, Path]:
    """Where reports and model cards go: if not set otherwise, the project's reports/ and docs/."""
    from mlaas.settings import ROOT

    reports_dir = ROOT / settings.train.reports_dir
    return reports_dir, reports_dir.parent / "docs"


def _say(line: str) -> None:
    click.echo(line, err=True)


def _text(found: "Evaluation | PhotoFigures") -> str:
    from mlaas.tables import of_photos, of_test_pictures
    from model.training.figures import Evaluation

    return of_test_pictures(found) if isinstance(found, Evaluation) else of_photos(found)


COMMANDS = (evaluate,)
