"""Epochs as one program each, for accelerators: Keras on JAX.

To hand a batch of a network this small to an accelerator takes longer than what it has to do for it.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from model.training.fitting import EVERY_STEPS, Shown, staying

Arrays = list[Any]
State = tuple[Arrays, Arrays, Arrays, Arrays, Arrays]
"""The learner's trainable and other variables, the optimizer's, and both kinds of the average's."""


class Scanning:
    """One learner, and the moving average of its weights and statistics; see model.training.fitting."""

    def __init__(self, learner: keras.Model, averaged: keras.Model, decay: float) -> None:
        self._kept = [
            learner.trainable_variables,
            learner.non_trainable_variables,
            learner.optimizer.variables,
            averaged.trainable_variables,
            averaged.non_trainable_variables,
        ]
        self._program = jax.jit(partial(_epoch, learner, decay))

    def run(self, epoch: int, shown: Shown, batch_size: int, *, progress_bar: bool) -> tuple[float, float]:
        """One pass over the pictures: mean loss and accuracy. It is over too soon for a bar."""
        state = tuple([variable.value for variable in group] for group in self._kept)
        counted = in_batches(len(shown.images), batch_size)
        state, (loss, right) = self._program(state, shown, *counted)
        for variables, values in zip(self._kept, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return float(loss), float(right)


def in_batches(pictures: int, batch_size: int) -> tuple[Any, Any]:
    """Indices of the pictures of every batch, and what each counts: (steps, batch_size) both.

    The last batch is filled up with the first pictures, which count nothing there; its own count the more, so
    that the mean of its losses is that of its own.
    """
    steps = -(-pictures // batch_size)
    places = np.arange(steps * batch_size).reshape(steps, batch_size)
    own = places < pictures
    counts = own * (batch_size / own.sum(axis=1, keepdims=True))
    return (places % pictures).astype(np.int32), counts.astype(np.float32)


def _epoch(
    learner: keras.Model, decay: float, state: State, shown: Shown, places: Any, counts: Any
) -> tuple[State, tuple[Any, Any]]:
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
        steps = optimizer[0]  # what Keras counts first
        stays = jnp.where(steps % EVERY_STEPS, 1.0, staying(steps, decay))
        averages = [
            [stays * average + (1 - stays) * weight for average, weight in zip(*both, strict=True)]
            for both in zip(averages, (trainable, other), strict=True)
        ]
        return (trainable, other, optimizer, *averages), (loss, right)

    differentiated = jax.value_and_grad(loss_of, has_aux=True)
    state, (losses, right) = jax.lax.scan(step, state, (places, counts))
    own = jnp.sum(counts > 0, axis=1)
    return state, (jnp.sum(losses * own) / jnp.sum(own), jnp.sum(right) / jnp.sum(own))
