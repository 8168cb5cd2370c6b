"""The epochs of a training, each kept as it ends."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from model.arrays import Labels, Pictures
from model.augmentation import augment
from model.checkpoint import Checkpoints, Progress
from model.dataset import LABELS
from model.evaluate import measure
from model.network import build
from model.settings import TrainSettings

Report = Callable[[str], None]


class Averaging(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps a second network at the moving average of the learner's weights and statistics.

    The optimizer's own average would not do: fit() ends by putting it into the learner.
    """

    def __init__(self, averaged: keras.Model, decay: float) -> None:
        super().__init__()
        self._averaged = averaged
        self._decay = decay

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Moves the average towards the learner: fast at first, so that it forgets the first weights."""
        step = int(self.model.optimizer.iterations)
        decay = min(self._decay, step / (step + 10))
        for average, weight in zip(self._averaged.weights, self.model.weights, strict=True):
            average.assign(decay * average + (1 - decay) * weight)


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures to train on, and pictures held out to choose the epoch."""

    images: Pictures
    labels: Labels
    held_out_images: Pictures
    held_out_labels: Labels


def learn(
    settings: TrainSettings, data: Split, checkpoints: Checkpoints, report: Report, *, progress_bar: bool
) -> Progress:
    """Runs the epochs that are left."""
    keras.utils.set_random_seed(settings.seed)
    learner = prepare(build(settings.widths, len(LABELS)), settings, len(data.images))
    averaged = keras.models.clone_model(learner)
    averaged.set_weights(learner.get_weights())
    averaging = Averaging(averaged, settings.ema_decay)
    progress = checkpoints.restore(learner, averaged)
    for epoch in range(progress.epochs_done, settings.epochs):
        started = time.monotonic()
        run_epoch(learner, data, settings, epoch, averaging, progress_bar)
        accuracy = held_out_accuracy(averaged, data)
        progress = progress.after(accuracy, time.monotonic() - started)
        checkpoints.save(learner, averaged, progress)
        report(f"epoch {epoch + 1} of {settings.epochs}: held-out accuracy {accuracy:.2%}")
    return progress


def prepare(network: keras.Model, settings: TrainSettings, pictures: int) -> keras.Model:
    """The network with its loss and its optimizer: SGD with Nesterov momentum."""
    optimizer = keras.optimizers.SGD(
        schedule(settings, steps_per_epoch=-(-pictures // settings.batch_size)),
        settings.momentum,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(network.trainable_variables)
    network.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    return network


def schedule(
    settings: TrainSettings, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate: up in a line, then down to nothing along a cosine."""
    warmup_steps = steps_per_epoch * settings.warmup_epochs
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        steps_per_epoch * settings.epochs - warmup_steps,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup_steps,
    )


def run_epoch(
    learner: keras.Model,
    data: Split,
    settings: TrainSettings,
    epoch: int,
    averaging: Averaging,
    progress_bar: bool,
) -> None:
    """One pass over the pictures. Order and augmentation follow from the seed and the epoch alone."""
    random = np.random.default_rng((settings.seed, epoch))
    order = random.permutation(len(data.images))
    erase = epoch < settings.epochs - settings.augmentation.plain_epochs
    images = augment(data.images[order], settings.augmentation, random, erase=erase)
    learner.fit(
        images,
        data.labels[order],
        batch_size=settings.batch_size,
        initial_epoch=epoch,
        epochs=epoch + 1,
        shuffle=False,
        callbacks=[averaging],
        verbose=int(progress_bar),
    )


def held_out_accuracy(averaged: keras.Model, data: Split) -> float:
    """The accuracy on the held-out pictures."""
    probabilities = averaged.predict(data.held_out_images, batch_size=256, verbose=0)
    return measure(probabilities, data.held_out_labels, LABELS).accuracy
