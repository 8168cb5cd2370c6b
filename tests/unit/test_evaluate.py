from types import SimpleNamespace

import numpy as np
import pytest

from model.evaluate import BATCH, evaluate, measure, predict_all


class FirstPixel:
    """Says that a picture's class is the number in its first pixel."""

    manifest = SimpleNamespace(labels=("a", "b", "c"))
    runtime = "none"

    def __init__(self):
        self.batches = []

    def predict(self, pictures):
        self.batches.append(len(pictures))
        return np.eye(3, dtype=np.float32)[pictures[:, 0, 0]]


def pictures(*classes):
    images = np.zeros((len(classes), 28, 28), np.uint8)
    images[:, 0, 0] = classes
    return images


def test_accuracy_is_the_share_of_right_answers():
    metrics = evaluate(FirstPixel(), pictures(0, 1, 2, 2), np.array([0, 1, 1, 2], np.uint8))
    assert (metrics.accuracy, metrics.count) == (0.75, 4)


def test_every_class_has_its_own_accuracy():
    metrics = evaluate(FirstPixel(), pictures(0, 1, 2, 2), np.array([0, 1, 1, 2], np.uint8))
    assert metrics.per_class == {"a": 1.0, "b": 0.5, "c": 1.0}


def test_a_class_without_pictures_is_left_out():
    metrics = measure(np.eye(3, dtype=np.float32)[[0]], np.array([0], np.uint8), ("a", "b", "c"))
    assert metrics.per_class == {"a": 1.0}


def test_many_pictures_are_predicted_a_batch_at_a_time_in_order():
    classifier = FirstPixel()
    classes = np.arange(BATCH + 5) % 3
    assert predict_all(classifier, pictures(*classes)).argmax(axis=1) == pytest.approx(classes)
    assert classifier.batches == [BATCH, 5]
