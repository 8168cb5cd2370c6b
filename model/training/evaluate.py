"""Computes figures from probabilities: accuracy, calibration, and accuracy on corrupted pictures."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.classifier import Classifier, Scores
from model.garment import Pictures
from model.runtimes import Probabilities
from model.training.corruptions import CORRUPTIONS, corrupt
from model.training.dataset import Labels
from model.training.figures import Calibration, Evaluation, Metrics, Record, Robustness

BATCH = 256
BINS = 15
COLDEST, HOTTEST = 0.2, 5.0
ROBUSTNESS_PICTURES = 2000
"""For each of 35 combinations of corruption and level; the standard error is at most 1.1 points."""

Floats = NDArray[np.float32]
Losses = Floats
"""(n,), in nats."""


class Bins(NamedTuple):
    """Predictions in bins of equal width by confidence: three sums over the predictions in each bin."""

    counts: NDArray[np.float64]
    confidence: NDArray[np.float64]
    hits: NDArray[np.float64]


def in_batches(
    run: Callable[[Pictures], tuple[Floats, Floats | None]], pictures: Pictures
) -> tuple[Floats, Floats]:
    """Calls run, such as Classifier.predict, on batches of pictures, and concatenates both results.

    The second is empty for a model without features or detector.
    """
    parts = [run(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH)]
    nothing = np.empty(0, np.float32)
    first = np.concatenate([one for one, _ in parts])
    return first, np.concatenate([nothing if other is None else other for _, other in parts])


def evaluate(
    classifier: Classifier, record: Record, probabilities: Probabilities, labels: Labels
) -> Evaluation:
    """The figures of a classifier that gave these probabilities for pictures with these labels."""
    manifest = classifier.manifest
    before = with_temperature(probabilities, 1 / record.temperature)
    return Evaluation(
        model=manifest.name,
        version=manifest.version,
        keras_sha256=manifest.weights_sha256,
        runtime=classifier.runtime,
        top2_accuracy=top_accuracy(probabilities, labels, 2),
        temperature=record.temperature,
        before_temperature=msgspec.convert(
            measure(before, labels, manifest.labels), Calibration, from_attributes=True
        ),
        macs=record.multiply_adds,
        parameters=record.parameters,
        confusion=confusion(probabilities, labels),
        **msgspec.structs.asdict(measure(probabilities, labels, manifest.labels)),
    )


def measure(probabilities: Probabilities, labels: Labels, names: Sequence[str]) -> Metrics:
    """The figures of these probabilities; per_class omits classes without pictures."""
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


def top_accuracy(probabilities: Probabilities, labels: Labels, answers: int) -> float:
    """The fraction of pictures whose label is among this many most probable ones."""
    best = np.argsort(probabilities, axis=1)[:, -answers:]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion(probabilities: Probabilities, labels: Labels) -> tuple[tuple[int, ...], ...]:
    """The confusion matrix: counts of pictures by label (row) and prediction (column)."""
    classes = probabilities.shape[1]
    pairs = labels.astype(int) * classes + probabilities.argmax(axis=1)
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return tuple(tuple(row) for row in counts.tolist())


def robustness(classifier: Classifier, images: Pictures, labels: Labels) -> Robustness:
    """Accuracy under each corruption, on the first 2,000 of these pictures."""
    images, labels = images[:ROBUSTNESS_PICTURES], labels[:ROBUSTNESS_PICTURES]

    def accuracy(pictures: Pictures) -> float:
        return float((in_batches(classifier.predict, pictures)[0].argmax(axis=1) == labels).mean())

    found = {
        name: tuple(accuracy(corrupt(images, name, level)) for level in range(len(levels)))
        for name, levels in CORRUPTIONS.items()
    }
    return Robustness(
        count=len(images),
        clean=accuracy(images),
        mean=float(np.mean([np.mean(levels) for levels in found.values()])),
        corruptions=found,
    )


def auroc(positives: Scores, negatives: Scores) -> float:
    """The probability that a positive scores above a negative; ties count half (Mann-Whitney U)."""
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, "left") + np.searchsorted(ordered, positives, "right")
    return float(below.mean() / (2 * len(negatives)))


# Calibration: how well confidence agrees with accuracy, and the temperature that improves it (Guo et al.,
# arXiv 1706.04599).


def in_bins(confidence: NDArray[Any], hits: NDArray[Any]) -> Bins:
    """Puts confidences and hits, both (n,), into 15 bins from 0 to 1."""
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    weights = (np.ones(len(hits)), confidence, hits)
    return Bins(*(np.bincount(bin_of, weight, BINS).astype(np.float64) for weight in weights))


def calibration_error(confidence: NDArray[Any], hits: NDArray[Any]) -> float:
    """The expected calibration error of confidences and hits, both (n,)."""
    found = in_bins(confidence, hits)
    return float(np.abs(found.confidence - found.hits).sum() / len(confidence))


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> float:
    """The divisor of the logits (n, classes) that maximizes the likelihood of the labels.

    The likelihood has a single maximum, which a golden-section search finds.
    """
    low, high = np.log(COLDEST), np.log(HOTTEST)
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if nll(logits / np.exp(left), labels) < nll(logits / np.exp(right), labels):
            high = right
        else:
            low = left
    return round(float(np.exp((low + high) / 2)), 4)


def nll(logits: NDArray[np.float32], labels: Labels) -> float:
    """The mean negative log-likelihood of the labels for logits (n, classes), in nats."""
    return float(losses(logits, labels).mean())


def losses(logits: NDArray[np.float32], labels: Labels) -> Losses:
    """The negative log-likelihood of each label for logits (n, classes)."""
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    found: Losses = total - logits[np.arange(len(logits)), labels]
    return found


def with_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities after dividing their logits by a further temperature; 1 changes nothing."""
    raised = np.maximum(probabilities, 1e-30) ** (1 / temperature)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)
