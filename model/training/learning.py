"""The epochs of a training, each kept as it ends."""

import time
from collections.abc import Callable
from typing import Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from model.arrays import Pictures
from model.settings import TrainSettings
from model.training import skipping
from model.training.calibration import losses, nll
from model.training.checkpoint import Checkpoints, Progress
from model.training.dataset import LABELS
from model.training.figures import Epoch
from model.training.fitting import Fitting, Shown
from model.training.lessons import Lessons, Split
from model.training.network import to_train
from model.training.normalization import FusedBatchNormalization
from model.training.objective import Objective, accuracy
from model.training.precision import precision
from model.training.skipping import Chosen
from model.training.teaching import Teacher

Report = Callable[[str], None]

STATISTICS_MOMENTUM = 0.95
"""Of the running mean and variance; Keras's 0.99 lags too far behind where an epoch has 400 steps."""


class Passes(Protocol):
    """What shows pictures to one learner: see model.training.fitting.Fitting."""

    def run(self, epoch: int, shown: Shown, batch_size: int, *, progress_bar: bool) -> tuple[float, float]:
        """One pass over the pictures: mean loss and accuracy."""


class TrainingError(Exception):
    """Training cannot go on; the message says what to change."""


def learn(
    settings: TrainSettings,
    data: Split,
    checkpoints: Checkpoints,
    report: Report,
    teacher: Teacher | None,
    *,
    progress_bar: bool,
) -> Progress:
    """Runs the epochs that are left. Raises TrainingError."""
    if settings.epochs <= settings.warmup_epochs:
        raise TrainingError("train.epochs and train.later_epochs must be more than train.warmup_epochs")
    keras.utils.set_random_seed(settings.seed)
    learner = prepare(settings, len(data.images), taught=teacher is not None)
    averaged = untrained(settings)
    averaged.set_weights(learner.get_weights())
    passes = passes_of(learner, averaged, settings.ema_decay)
    lessons = Lessons(data, settings, teacher)
    progress = checkpoints.restore(learner, averaged)
    for epoch in range(progress.epochs_done, settings.epochs):
        started = time.monotonic()
        chosen = choose(settings, data, averaged, checkpoints, epoch)
        loss, hits = run_epoch(passes, lessons, chosen, epoch, settings.batch_size, progress_bar)
        held_out = judge(averaged, data)
        ended = Epoch(loss, hits, *held_out, round(time.monotonic() - started, 1))
        if not np.isfinite((loss, held_out[0])).all():
            raise TrainingError(
                f"the loss is not a number any more in epoch {epoch + 1}; lower train.learning_rate"
            )
        progress = progress.after(ended)
        checkpoints.save(learner, averaged, progress)
        report(describe(progress, settings.epochs))
    return progress


def untrained(settings: TrainSettings) -> keras.Model:
    """The network of these settings, in the precision that it is trained in."""

    def normalize() -> keras.Layer:
        return FusedBatchNormalization(momentum=STATISTICS_MOMENTUM)

    with precision(settings.precision):
        return to_train(settings.network, len(LABELS), normalize)


def prepare(settings: TrainSettings, pictures: int, *, taught: bool) -> keras.Model:
    """The network with its loss and its optimizer: SGD with Nesterov momentum."""
    network = untrained(settings)
    optimizer = keras.optimizers.SGD(
        schedule(settings, pictures),
        settings.momentum,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(network.trainable_variables)
    objective = Objective(settings.teacher.weight if taught else 0.0, settings.teacher.temperature)
    network.compile(optimizer, objective, metrics=[accuracy], jit_compile=False)
    return network


def schedule(settings: TrainSettings, pictures: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate: up in a line, then down to nothing along a cosine."""
    steps = [skipping.steps(settings, pictures, epoch) for epoch in range(settings.epochs)]
    warmup_steps = sum(steps[: settings.warmup_epochs])
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        sum(steps) - warmup_steps,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup_steps,
    )


def choose(
    settings: TrainSettings, data: Split, averaged: keras.Model, checkpoints: Checkpoints, epoch: int
) -> Chosen:
    """Which pictures this epoch shows, in which order: it follows from seed, epoch and losses."""
    random = np.random.default_rng((settings.seed, epoch))
    if not skipping.skips(settings, epoch):
        return skipping.everything(len(data.images), random)
    judged = skipping.judged(settings, epoch)
    if judged == epoch:
        checkpoints.keep_losses(epoch, losses(logits_of(averaged, data.images), data.labels))
    return skipping.choose(checkpoints.losses(judged), settings.skipping, random)


def passes_of(learner: keras.Model, averaged: keras.Model, decay: float) -> Passes:
    """What runs the epochs on the backend that Keras has."""
    if keras.backend.backend() == "jax":
        from model.training.scanning import Scanning

        return Scanning(learner, averaged, decay)
    return Fitting(learner, averaged, decay)


def run_epoch(
    passes: Passes, lessons: Lessons, chosen: Chosen, epoch: int, batch_size: int, progress_bar: bool
) -> tuple[float, float]:
    """One pass over the chosen pictures: mean loss and accuracy."""
    images, taught = lessons.of(epoch)
    order, weights = chosen
    shown = Shown(images[order], taught[order], weights)
    return passes.run(epoch, shown, batch_size, progress_bar=progress_bar)


def judge(averaged: keras.Model, data: Split) -> tuple[float, float]:
    """Loss and accuracy of the averaged network on the held-out pictures."""
    logits = logits_of(averaged, data.held_out_images)
    hits = logits.argmax(axis=1) == data.held_out_labels
    return round(nll(logits, data.held_out_labels), 5), float(hits.mean())


def logits_of(network: keras.Model, images: Pictures) -> NDArray[np.float32]:
    """float32 (n, classes)."""
    logits: NDArray[np.float32] = network.predict(images, batch_size=256, verbose=0)
    return logits


def describe(progress: Progress, epochs: int) -> str:
    """The last epoch, and about how long the rest will take."""
    last, done = progress.history[-1], progress.epochs_done
    left = sum(epoch.seconds for epoch in progress.history) / done * (epochs - done) / 60
    return (
        f"epoch {done} of {epochs}: loss {last.loss:.4f}, accuracy {last.accuracy:.2%}, "
        f"held-out {last.held_out_accuracy:.2%}, {last.seconds:.0f} s, about {left:.0f} min left"
    )
