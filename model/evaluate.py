"""How good a classifier is: `mlaas evaluate`."""

from collections.abc import Sequence

import numpy as np

from model.arrays import Labels, Pictures, Probabilities
from model.classifier import Classifier
from model.manifest import Metrics

BATCH = 256


def evaluate(classifier: Classifier, images: Pictures, labels: Labels) -> Metrics:
    """The accuracy over these pictures."""
    return measure(predict_all(classifier, images), labels, classifier.manifest.labels)


def predict_all(classifier: Classifier, images: Pictures) -> Probabilities:
    """The probabilities for any number of pictures, so many at a time that memory stays small."""
    starts = range(0, len(images), BATCH)
    return np.concatenate([classifier.predict(images[start : start + BATCH]) for start in starts])


def measure(probabilities: Probabilities, labels: Labels, names: Sequence[str]) -> Metrics:
    """The accuracy of these probabilities; a class without pictures is left out."""
    right = probabilities.argmax(axis=1) == labels
    of_class = {name: right[labels == index] for index, name in enumerate(names)}
    per_class = {name: float(hits.mean()) for name, hits in of_class.items() if hits.size}
    return Metrics(float(right.mean()), per_class, len(labels))
