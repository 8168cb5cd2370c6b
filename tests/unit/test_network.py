import numpy as np
import pytest

from model.training.network import Objective, accuracy, targets
from tests.unit.recipes import softmax

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LABELS = np.array([0, 2, 1], np.uint8)
LOGITS = np.random.default_rng(1).normal(0, 2, (3, 3)).astype(np.float32)
TAUGHT = softmax(np.random.default_rng(2).normal(0, 2, (3, 3)).astype(np.float32))


def loss(weight, temperature=1.0, teacher=TAUGHT):
    return float(Objective(weight, temperature)(targets(LABELS, 3, teacher), LOGITS))


def cross_entropy(truth, logits):
    return float(-(truth * np.log(softmax(logits))).sum(axis=1).mean())


def test_without_a_teacher_it_is_the_cross_entropy():
    expected = cross_entropy(np.eye(3)[LABELS], LOGITS)
    assert loss(0.0, teacher=None) == pytest.approx(expected, rel=1e-5)


def test_with_a_teacher_it_is_the_weighted_sum_of_both():
    t = 3.0
    softened = softmax(np.log(TAUGHT) / t)
    divergence = cross_entropy(softened, LOGITS / t) - cross_entropy(softened, np.log(softened))
    expected = 0.3 * cross_entropy(np.eye(3)[LABELS], LOGITS) + 0.7 * t * t * divergence
    assert loss(0.7, t) == pytest.approx(expected, rel=1e-4)


def test_accuracy_counts_the_answers_that_are_right():
    hits = np.asarray(accuracy(targets(np.array([0, 1], np.uint8), 2, None), np.eye(2, dtype=np.float32)[:1]))
    assert hits.tolist() == [True, False]
