import numpy as np
import pytest

from model.calibration import softmax
from model.objective import Objective, accuracy, targets
from model.settings import TeacherSettings

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LABELS = np.array([0, 2, 1], np.uint8)
LOGITS = np.random.default_rng(1).normal(0, 2, (3, 2, 3)).astype(np.float32)
TAUGHT = softmax(np.random.default_rng(2).normal(0, 2, (3, 3)).astype(np.float32))


def loss(name, weight, temperature=1.0, teacher=TAUGHT):
    settings = TeacherSettings(name=name, weight=weight, temperature=temperature)
    return float(Objective(settings)(targets(LABELS, 3, teacher), LOGITS))


def cross_entropy(truth, logits):
    return float(-(truth[:, None] * np.log(softmax(logits))).sum(axis=2).mean())


def test_without_a_teacher_it_is_the_members_mean_cross_entropy():
    expected = cross_entropy(np.eye(3)[LABELS], LOGITS)
    assert loss("", 0.7, teacher=None) == pytest.approx(expected, rel=1e-5)


def test_with_a_teacher_it_is_the_weighted_sum_of_both():
    t = 3.0
    softened = softmax(np.log(TAUGHT) / t)
    divergence = cross_entropy(softened, LOGITS / t) - cross_entropy(softened, np.log(softened)[:, None])
    expected = 0.3 * cross_entropy(np.eye(3)[LABELS], LOGITS) + 0.7 * t * t * divergence
    assert loss("teacher", 0.7, t) == pytest.approx(expected, rel=1e-4)


def test_accuracy_is_that_of_the_members_together():
    logits = np.array([[[1.0, 0.0], [-3.0, 0.0]]], np.float32)
    of_class = [
        np.asarray(accuracy(targets(np.array([label], np.uint8), 2, None), logits)) for label in (0, 1)
    ]
    assert [bool(hit[0]) for hit in of_class] == [False, True]
