"""Runs an epoch: with Keras's fit() on CPUs, as one compiled program on accelerators.

Both ways train a learner, and keep a moving average of its weights and statistics in a second network. The
optimizer's own average is no use for that, because fit() ends by copying it into the learner.
"""

from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from model.garment import Pictures
from model.training.network import Targets

EVERY_STEPS = 4
"""The number of steps between updates of the average."""

Arrays = list[Any]
State = tuple[Arrays, Arrays, Arrays, Arrays, Arrays]
"""Trainable and other variables of the learner, variables of the optimizer, and both of the average."""


class Shown(NamedTuple):
    """The pictures of an epoch in order, with their targets and weights in the loss."""

    images: Pictures
    targets: Targets
    weights: NDArray[np.float32]


def passes_of(learner: keras.Model, averaged: keras.Model, decay: float) -> "Fitting | Scanning":
    """The implementation for Keras's backend."""
    return (Scanning if keras.backend.backend() == "jax" else Fitting)(learner, averaged, decay)


def staying(steps: Any, decay: float) -> Any:
    """The share of the average that an update keeps: less at first, to forget the initial weights."""
    return ops.minimum(decay, steps / (steps + 10)) ** EVERY_STEPS


class Fitting:
    """Runs epochs with fit(), since a batch on a CPU takes far longer than the work around it."""

    def __init__(self, learner: keras.Model, averaged: keras.Model, decay: float) -> None:
        self._learner = learner
        self._averaging = _Averaging(averaged, decay)

    def run(self, epoch: int, shown: Shown, batch_size: int, *, progress_bar: bool) -> tuple[float, float]:
        """Runs an epoch; returns mean loss and accuracy."""
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


class _Averaging(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, averaged: keras.Model, decay: float) -> None:
        super().__init__()
        self._averaged = averaged
        self._decay = decay

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Updates the average after every fourth step."""
        step = int(self.model.optimizer.iterations)
        if step % EVERY_STEPS:
            return
        stays = staying(step, self._decay)
        for average, weight in zip(self._averaged.weights, self.model.weights, strict=True):
            average.assign(stays * average + (1 - stays) * weight)


class Scanning:
    """Runs each epoch as one JAX program, since an accelerator is slower to get a batch than to learn it."""

    def __init__(self, learner: keras.Model, averaged: keras.Model, decay: float) -> None:
        import jax

        self._kept = [
            learner.trainable_variables,
            learner.non_trainable_variables,
            learner.optimizer.variables,
            averaged.trainable_variables,
            averaged.non_trainable_variables,
        ]
        self._program = jax.jit(partial(_scan, learner, decay))

    def run(self, epoch: int, shown: Shown, batch_size: int, *, progress_bar: bool) -> tuple[float, float]:
        """Runs an epoch; returns mean loss and accuracy. It is too short for a progress bar."""
        state = tuple([variable.value for variable in group] for group in self._kept)
        state, (loss, right) = self._program(state, shown, *batches(len(shown.images), batch_size))
        for variables, values in zip(self._kept, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return float(loss), float(right)


def batches(pictures: int, batch_size: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The indices of the pictures in each batch, and their weights: both (steps, batch_size).

    The first pictures pad the last batch with weight 0. The others in it weigh more, so that the mean loss of
    the batch is theirs.
    """
    steps = -(-pictures // batch_size)
    places = np.arange(steps * batch_size).reshape(steps, batch_size)
    own = places < pictures
    counts = own * (batch_size / own.sum(axis=1, keepdims=True))
    return (places % pictures).astype(np.int32), counts.astype(np.float32)


def _scan(
    learner: keras.Model, decay: float, state: State, shown: Shown, places: Any, counts: Any
) -> tuple[State, tuple[Any, Any]]:
    import jax
    import jax.numpy as jnp

    images, targets, weights = shown

    def loss_of(trainable: Arrays, other: Arrays, at: Any, count: Any) -> tuple[Any, tuple[Arrays, Any]]:
        logits, other = learner.stateless_call(trainable, other, images[at], training=True)
        losses = learner.loss.call(targets[at], logits) * weights[at]
        right = jnp.argmax(logits, axis=-1) == jnp.argmax(targets[at][:, 0], axis=-1)
        return jnp.mean(losses * count), (other, jnp.sum(right * (count > 0)))

    def step(state: State, batch: tuple[Any, Any]) -> tuple[State, tuple[Any, Any]]:
        trainable, other, optimizer, *averages = state
        (loss, (other, right)), gradients = differentiated(trainable, other, *batch)
        trainable, optimizer = learner.optimizer.stateless_apply(optimizer, gradients, trainable)
        iterations = optimizer[0]  # the first variable of Keras's optimizers is the number of steps
        stays = jnp.where(iterations % EVERY_STEPS, 1.0, staying(iterations, decay))
        averages = [
            [stays * average + (1 - stays) * weight for average, weight in zip(*both, strict=True)]
            for both in zip(averages, (trainable, other), strict=True)
        ]
        return (trainable, other, optimizer, *averages), (loss, right)

    differentiated = jax.value_and_grad(loss_of, has_aux=True)
    state, (losses, right) = jax.lax.scan(step, state, (places, counts))
    own = jnp.sum(counts > 0, axis=1)
    return state, (jnp.sum(losses * own) / jnp.sum(own), jnp.sum(right) / jnp.sum(own))
