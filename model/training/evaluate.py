"""How good a classifier is: `mlaas evaluate`."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.arrays import Labels, Pictures, Probabilities
from model.classifier import Classifier, in_batches
from model.manifest import Metrics
from model.training import corruptions
from model.training.calibration import with_temperature
from model.training.figures import Calibration, Evaluation, Robustness

BINS = 15
ROBUSTNESS_PICTURES = 2000
"""Of each corruption and level: there are 35 of them, and the standard error is at most 1.1 points."""


class Bins(NamedTuple):
    """Answers sorted by confidence into bins of equal width, empty ones included: how many there are in each,
    and the sums of their confidences and of the right ones, all float64 (bins,).
    """

    counts: NDArray[np.float64]
    confidence: NDArray[np.float64]
    hits: NDArray[np.float64]


def evaluate(classifier: Classifier, images: Pictures, labels: Labels) -> Evaluation:
    """The figures over these pictures."""
    return evaluate_answers(classifier, predict_all(classifier, images), labels)


def evaluate_answers(classifier: Classifier, probabilities: Probabilities, labels: Labels) -> Evaluation:
    """The figures of what the classifier answered to pictures of these labels."""
    manifest = classifier.manifest
    before = with_temperature(probabilities, 1 / manifest.temperature)
    return Evaluation(
        model=manifest.name,
        version=manifest.version,
        keras_sha256=manifest.keras_sha256,
        runtime=classifier.runtime,
        top2_accuracy=top_accuracy(probabilities, labels, 2),
        temperature=manifest.temperature,
        before_temperature=calibration(measure(before, labels, manifest.labels)),
        macs=manifest.multiply_adds,
        parameters=manifest.parameters,
        confusion=confusion(probabilities, labels),
        **msgspec.structs.asdict(measure(probabilities, labels, manifest.labels)),
    )


def predict_all(classifier: Classifier, images: Pictures) -> Probabilities:
    """The probabilities for any number of pictures."""
    return in_batches(classifier, images).probabilities


def measure(probabilities: Probabilities, labels: Labels, names: Sequence[str]) -> Metrics:
    """The figures of these probabilities; a class without pictures is left out of per_class."""
    right = probabilities.argmax(axis=1) == labels
    of_class = {name: right[labels == index] for index, name in enumerate(names)}
    truth = np.eye(len(names))[labels]
    errors = [calibration_error(probabilities[:, i], truth[:, i]) for i in range(len(names))]
    return Metrics(
        accuracy=float(right.mean()),
        per_class={name: float(hits.mean()) for name, hits in of_class.items() if hits.size},
        count=len(labels),
        ece=calibration_error(probabilities.max(axis=1), right),
        classwise_ece=float(np.mean(errors)),
        nll=float(-np.log(np.maximum(probabilities[truth == 1], 1e-30)).mean()),
        brier=float(((probabilities - truth) ** 2).sum(axis=1).mean()),
    )


def calibration(metrics: Metrics) -> Calibration:
    """Those of the figures that depend on the temperature."""
    return Calibration(
        ece=metrics.ece, classwise_ece=metrics.classwise_ece, nll=metrics.nll, brier=metrics.brier
    )


def calibration_error(confidence: np.ndarray, hits: np.ndarray) -> float:
    """Mean distance between confidence and share of hits, both (n,), over bins of equal width."""
    found = in_bins(confidence, hits)
    return float(np.abs(found.confidence - found.hits).sum() / len(confidence))


def in_bins(confidence: np.ndarray, hits: np.ndarray) -> Bins:
    """Confidences and hits, both (n,), sorted into 15 bins from 0 to 1."""
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    weights = (np.ones(len(hits)), confidence, hits)
    return Bins(*(np.bincount(bin_of, weight, BINS).astype(np.float64) for weight in weights))


def top_accuracy(probabilities: Probabilities, labels: Labels, answers: int) -> float:
    """How often the label is among so many most probable ones."""
    best = np.argsort(probabilities, axis=1)[:, -answers:]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion(probabilities: Probabilities, labels: Labels) -> tuple[tuple[int, ...], ...]:
    """How many pictures of each label (row) were answered with each label (column)."""
    classes = probabilities.shape[1]
    pairs = labels.astype(int) * classes + probabilities.argmax(axis=1)
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return tuple(tuple(row) for row in counts.tolist())


def robustness(classifier: Classifier, images: Pictures, labels: Labels) -> Robustness:
    """The accuracy under every corruption, on the first 2,000 of these pictures."""
    images, labels = images[:ROBUSTNESS_PICTURES], labels[:ROBUSTNESS_PICTURES]

    def accuracy(pictures: Pictures) -> float:
        return float((predict_all(classifier, pictures).argmax(axis=1) == labels).mean())

    found = {
        name: tuple(accuracy(corruptions.corrupt(images, name, level)) for level in range(len(levels)))
        for name, levels in corruptions.CORRUPTIONS.items()
    }
    return Robustness(
        count=len(images),
        clean=accuracy(images),
        mean=float(np.mean([np.mean(levels) for levels in found.values()])),
        corruptions=found,
    )
