"""All that is measured of a model, in reports/<model>/, and its card: `mlaas evaluate --report`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from model.arrays import Probabilities
from model.classifier import Classifier
from model.manifest import replace
from model.training import card, ood_sets, plots
from model.training.calibration import with_temperature
from model.training.dataset import Dataset
from model.training.evaluate import Bins, evaluate_answers, in_bins, predict_all, robustness
from model.training.figures import Evaluation, History, PhotoFigures


def write(
    classifier: Classifier, data: Dataset, reports_dir: Path, docs_dir: Path, say: Callable[[str], None]
) -> Evaluation:
    """Measures the classifier on the test pictures and writes metrics.json, the plots and the model card.

    say gets a line of text at a time. Raises ModelError, and OodSetsError where what makes the sets of
    strangers is missing.
    """
    folder = reports_dir / classifier.manifest.name
    probabilities = predict_all(classifier, data.test_images)
    found = msgspec.structs.replace(
        evaluate_answers(classifier, probabilities, data.test_labels),
        robustness=robustness(classifier, data.test_images, data.test_labels),
        ood=ood_sets.measure(classifier, data.test_images),
    )
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "metrics.json", found)
    for name, content in drawn(found, probabilities, data, classifier.manifest.labels).items():
        replace(folder / name, content)
    draw_history(folder, say)
    say(f"{folder} and {card.write(classifier.manifest, reports_dir, docs_dir)} are written")
    return found


def write_photos(
    classifier: Classifier, found: PhotoFigures, reports_dir: Path, docs_dir: Path, say: Callable[[str], None]
) -> None:
    """Writes photos.json, and the model card anew. Raises ModelError."""
    folder = reports_dir / classifier.manifest.name
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "photos.json", found)
    say(f"{folder / 'photos.json'} and {card.write(classifier.manifest, reports_dir, docs_dir)} are written")


def save(path: Path, found: Evaluation | PhotoFigures) -> None:
    """Writes the figures in one step, as JSON that can be read."""
    replace(path, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")


def drawn(
    found: Evaluation, probabilities: Probabilities, data: Dataset, labels: tuple[str, ...]
) -> Mapping[str, bytes]:
    """The plots of the test pictures: PNG files by name."""
    before = with_temperature(probabilities, 1 / found.temperature)
    return {
        "confusion-matrix.png": plots.confusion_matrix(found.confusion, labels),
        "mistakes.png": plots.mistakes(data.test_images, probabilities, data.test_labels, labels),
        "reliability.png": plots.reliability(
            answers_in_bins(before, data.test_labels), answers_in_bins(probabilities, data.test_labels)
        ),
    }


def answers_in_bins(probabilities: Probabilities, labels: np.ndarray) -> Bins:
    """The most probable answers by confidence."""
    return in_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def draw_history(folder: Path, say: Callable[[str], None]) -> None:
    """Draws the learning curves from history.json; says so where there is none."""
    history = card.read(folder / "history.json", History)
    if history is None:
        say(f"{folder / 'history.json'} is missing: no learning curves. Training writes it.")
        return
    replace(folder / "learning-curves.png", plots.learning_curves(history.history))
