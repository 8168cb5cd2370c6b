"""What is minimised: the labels' cross entropy, and a teacher's beside it."""

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from model.arrays import Labels, Probabilities

Floats = NDArray[np.float32]


class Objective(keras.losses.Loss):  # type: ignore[misc]
    """Hinton et al., arXiv 1503.02531: (1 - w) CE(truth, p) + w T^2 KL(teacher at T, p at T).

    y_true: (n, 2, classes), truth and teacher, see targets(). y_pred: logits (n, classes).
    """

    def __init__(self, weight: float, temperature: float) -> None:
        super().__init__(name="objective")
        self._weight = weight
        self._temperature = temperature

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """(n,)."""
        truth, teacher = y_true[:, 0], y_true[:, 1]
        loss = (1 - self._weight) * _cross_entropy(truth, y_pred)
        if self._weight:
            t = self._temperature
            softened = ops.softmax(ops.log(teacher + 1e-8) / t)
            own = -ops.sum(softened * ops.log(softened + 1e-8), axis=-1)
            loss = loss + self._weight * t * t * (_cross_entropy(softened, y_pred / t) - own)
        return loss


def accuracy(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    """Which answers are right: (n,)."""
    return ops.equal(ops.argmax(y_true[:, 0], axis=-1), ops.argmax(y_pred, axis=-1))


def targets(labels: Labels, classes: int, teacher: Probabilities | None) -> Floats:
    """One-hot labels and the teacher's probabilities: (n, 2, classes)."""
    truth = np.eye(classes, dtype=np.float32)[labels]
    return np.stack((truth, truth if teacher is None else teacher), axis=1)


def _cross_entropy(truth: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    return -ops.sum(truth * ops.log_softmax(logits, axis=-1), axis=-1)
