"""Writes all figures of a model, with plots, to reports/<model>/: `mlaas evaluate --report`.

Plots are PNG files with few colours, legible in greyscale.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from msgspec.structs import replace
from PIL import Image

from model import manifest as manifests
from model.classifier import Classifier
from model.garment import Pictures
from model.runtimes import Probabilities
from model.training import card, figures, ood
from model.training.dataset import Dataset, Labels
from model.training.evaluate import BINS, Bins, evaluate, in_batches, in_bins, robustness, with_temperature
from model.training.figures import Epoch, Evaluation, History, PhotoFigures

COLOURS = 32
MISTAKES = 24
MISTAKES_ACROSS = 8

Say = Callable[[str], None]
"""Receives one line of text at a time."""


def write(classifier: Classifier, data: Dataset, reports_dir: Path, docs_dir: Path, say: Say) -> Evaluation:
    """Measures a classifier on the test pictures; writes metrics.json, the plots and the model card.

    Raises ModelError.
    """
    manifest, images, labels = classifier.manifest, data.test_images, data.test_labels
    folder, record = reports_dir / manifest.name, figures.read_record(classifier.folder)
    probabilities = in_batches(classifier.predict, images)[0]
    found = replace(
        evaluate(classifier, record, probabilities, labels),
        robustness=robustness(classifier, images, labels),
        ood=ood.measure(classifier, images),
    )
    before = with_temperature(probabilities, 1 / found.temperature)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "metrics.json": figures.encode(found),
        "confusion-matrix.png": confusion_matrix(found.confusion, manifest.labels),
        "mistakes.png": mistakes(images, probabilities, labels, manifest.labels),
        "reliability.png": reliability(by_confidence(before, labels), by_confidence(probabilities, labels)),
    }.items():
        manifests.replace(folder / name, content)
    history = figures.read(folder / "history.json", History)
    if history:
        manifests.replace(folder / "learning-curves.png", learning_curves(history.history))
    else:
        say(f"no learning curves, because {folder / 'history.json'} is missing; training writes it")
    say(f"wrote {folder} and {card.write(manifest, record, reports_dir, docs_dir)}")
    return found


def write_photos(
    classifier: Classifier, found: PhotoFigures, reports_dir: Path, docs_dir: Path, say: Say
) -> None:
    """Writes photos.json, and rewrites the model card. Raises ModelError."""
    path = reports_dir / classifier.manifest.name / "photos.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    manifests.replace(path, figures.encode(found))
    its_card = card.write(classifier.manifest, figures.read_record(classifier.folder), reports_dir, docs_dir)
    say(f"wrote {path} and {its_card}")


def by_confidence(probabilities: Probabilities, labels: Labels) -> Bins:
    """The most probable labels, in bins by confidence."""
    return in_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def learning_curves(history: Sequence[Epoch]) -> bytes:
    """Plots, by epoch, the loss and accuracy in training and of the averaged network on held-out pictures."""
    figure = Figure((9, 3.4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    curves(loss, [epoch.loss for epoch in history], [epoch.held_out_loss for epoch in history])
    loss.set(xlabel="epoch", ylabel="loss (nats)")
    trained = [epoch.accuracy * 100 for epoch in history]
    curves(accuracy, trained, [epoch.held_out_accuracy * 100 for epoch in history])
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)")
    return png(figure)


def curves(axes: Axes, training: Sequence[float], held_out: Sequence[float]) -> None:
    """Plots two lines over the epochs, which count from 1."""
    epochs = range(1, len(training) + 1)
    axes.plot(epochs, training, color="0.55", linestyle="--", label="training, varied pictures")
    axes.plot(epochs, held_out, color="black", label="held out")
    axes.grid(color="0.9")
    axes.legend()


def confusion_matrix(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """Plots the confusion matrix: a row for each label, a column for each prediction."""
    figure = Figure((7, 6.4), layout="constrained")
    axes = figure.subplots()
    counts = np.array(confusion)
    axes.imshow(counts, cmap="Greys", norm=PowerNorm(0.4, 0, max(counts.max(), 1)))
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=45, ha="right")
    axes.set_yticks(places, labels)
    axes.set(xlabel="answer (number of pictures)", ylabel="label")
    for (row, column), count in np.ndenumerate(counts):
        dark = count > 0.18 * counts.max()  # where this exponent makes the background darker than middle grey
        axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    return png(figure)


def mistakes(pictures: Pictures, probabilities: Probabilities, truth: Labels, labels: Sequence[str]) -> bytes:
    """Plots the wrong predictions with the highest confidence, in descending order."""
    figure = Figure((10, 5), layout="constrained")
    grid = figure.subplots(MISTAKES // MISTAKES_ACROSS, MISTAKES_ACROSS)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], frame_on=False)
    for axes, index in zip(grid.flat, surest_mistakes(probabilities, truth), strict=False):
        answer, confidence = labels[probabilities[index].argmax()], probabilities[index].max()
        axes.imshow(pictures[index], cmap="gray", vmin=0, vmax=255)
        caption = f"label {labels[truth[index]]}\nanswer {answer}\nat {confidence:.1%}"
        axes.set_xlabel(caption, fontsize=8)
    return png(figure)


def surest_mistakes(probabilities: Probabilities, truth: Labels) -> list[int]:
    """The indices of up to 24 wrong predictions, by confidence in descending order."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != truth)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return [int(index) for index in wrong[order][:MISTAKES]]


def reliability(before: Bins, after: Bins) -> bytes:
    """Plots accuracy by confidence, before and after dividing by the temperature, and counts."""
    figure = Figure((5.2, 6), layout="constrained")
    shares, counts = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    shares.plot([0, 100], [0, 100], color="0.7", linestyle=":", label="perfect")
    for bins, name, style, color in ((before, "before", "s--", "0.55"), (after, "after", "o-", "black")):
        filled = bins.counts > 0
        sure, right = (100 * x[filled] / bins.counts[filled] for x in (bins.confidence, bins.hits))
        shares.plot(sure, right, style, color=color, label=f"{name} the temperature")
    shares.set(ylabel="right answers (%)")
    shares.grid(color="0.9")
    shares.legend()
    counts.bar((np.arange(BINS) + 0.5) * 100 / BINS, after.counts, 90 / BINS, color="0.4")
    counts.set(yscale="log", xlabel="confidence (%)", ylabel="answers, after")
    return png(figure)


def png(figure: Figure) -> bytes:
    """Renders a figure as a PNG file with a palette."""
    drawn, small = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    return small.getvalue()
