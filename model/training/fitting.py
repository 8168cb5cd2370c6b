"""Epochs by Keras's fit(), for processors: there a batch takes far longer than all that is around it."""

from typing import Any, NamedTuple

import keras
from keras import ops

from model.arrays import Pictures
from model.training.objective import Floats

EVERY_STEPS = 4
"""Between two looks at the learner's weights."""


class Shown(NamedTuple):
    """The pictures of an epoch in order, their targets (see model.training.objective), and their weights."""

    images: Pictures
    targets: Floats
    weights: Floats


class Fitting:
    """One learner, and a second network that is kept at the moving average of its weights and statistics.

    The optimizer's own average would not do: fit() ends by putting it into the learner.
    """

    def __init__(self, learner: keras.Model, averaged: keras.Model, decay: float) -> None:
        self._learner = learner
        self._averaging = Averaging(averaged, decay)

    def run(self, epoch: int, shown: Shown, batch_size: int, *, progress_bar: bool) -> tuple[float, float]:
        """One pass over the pictures: mean loss and accuracy."""
        history = self._learner.fit(
            shown.images,
            shown.targets,
            sample_weight=shown.weights,
            batch_size=batch_size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            callbacks=[self._averaging],
            verbose=int(progress_bar),
        ).history
        return history["loss"][0], history["accuracy"][0]


class Averaging(keras.callbacks.Callback):  # type: ignore[misc]
    """Moves the average towards the learner."""

    def __init__(self, averaged: keras.Model, decay: float) -> None:
        super().__init__()
        self._averaged = averaged
        self._decay = decay

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Looks at every fourth step."""
        step = int(self.model.optimizer.iterations)
        if step % EVERY_STEPS:
            return
        stays = staying(step, self._decay)
        for average, weight in zip(self._averaged.weights, self.model.weights, strict=True):
            average.assign(stays * average + (1 - stays) * weight)


def staying(steps: Any, decay: float) -> Any:
    """How much of the average stays: less at first, so that it forgets the first weights."""
    return ops.minimum(decay, steps / (steps + 10)) ** EVERY_STEPS
