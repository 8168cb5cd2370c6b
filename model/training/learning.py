"""Trains one network, and saves each epoch so that an interrupted training can resume."""

import time
from collections.abc import Callable
from pathlib import Path

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from model import TrainSettings, recipe
from model.garment import Pictures
from model.manifest import replace, sha256
from model.training import lessons
from model.training.dataset import LABELS, Split
from model.training.evaluate import Losses, losses, nll
from model.training.figures import Epoch
from model.training.lessons import Chosen, Lessons, Teacher
from model.training.network import FusedBatchNormalization, Objective, accuracy, precision, to_train
from model.training.passes import Shown, passes_of

Report = Callable[[str], None]
"""Receives one line of text at a time."""

STATISTICS_MOMENTUM = 0.95
"""Of the running mean and variance. Keras's 0.99 lags too far behind with 400 steps per epoch."""


class TrainingError(Exception):
    """Training cannot continue. The message says what to change."""


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The completed epochs of a training, and Keras's backend in the last one. Epochs count from 1."""

    history: tuple[Epoch, ...] = ()
    backend: str = ""

    @property
    def epochs_done(self) -> int:
        """The number of completed epochs."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The last epoch with the highest held-out accuracy; 0 if none is complete."""
        ranked = [(epoch.held_out_accuracy, number) for number, epoch in enumerate(self.history, 1)]
        return max(ranked)[1] if ranked else 0

    def after(self, epoch: Epoch) -> "Progress":
        """The progress after another epoch."""
        return Progress((*self.history, epoch), keras.backend.backend())


class Checkpoints:
    """The checkpoints of one training, in a folder that depends on its settings.

    The folder is consistent at any moment: progress.json says which files belong together, and is replaced
    last, atomically.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def progress(self) -> Progress:
        """The progress of the training so far."""
        path = self._folder / "progress.json"
        return msgspec.json.decode(path.read_bytes(), type=Progress) if path.exists() else Progress()

    def restore(self, learner: keras.Model, averaged: keras.Model) -> Progress:
        """Restores both networks and the optimizer's state after the last complete epoch."""
        progress = self.progress()
        if progress.epochs_done:
            learner.load_weights(self._weights(progress.epochs_done, "learner"))
            averaged.load_weights(self._weights(progress.epochs_done, "averaged"))
        return progress

    def save(self, learner: keras.Model, averaged: keras.Model, progress: Progress) -> None:
        """Saves the last epoch, and deletes older ones except the best."""
        files = [self._weights(progress.epochs_done, kind) for kind in ("learner", "averaged")]
        self._folder.mkdir(parents=True, exist_ok=True)
        for network, file in zip((learner, averaged), files, strict=True):
            network.save_weights(file)
        replace(self._folder / "progress.json", msgspec.json.encode(progress))
        self._delete("epoch-*", {*files, self.best(progress)})

    def best(self, progress: Progress) -> Path:
        """The file with the averaged weights of the best epoch."""
        return self._weights(progress.best_epoch, "averaged")

    def losses(self, epoch: int) -> Losses:
        """The losses that keep_losses() saved for this epoch: float32 (n,)."""
        kept: Losses = np.load(self._losses(epoch), allow_pickle=False)
        return kept

    def keep_losses(self, epoch: int, losses: Losses) -> None:
        """Saves the loss of each picture before this epoch, and deletes earlier ones."""
        self._folder.mkdir(parents=True, exist_ok=True)
        np.save(self._losses(epoch), losses)
        self._delete("losses-*.npy", {self._losses(epoch)})

    def _weights(self, epoch: int, kind: str) -> Path:
        return self._folder / f"epoch-{epoch:03}.{kind}.weights.h5"

    def _losses(self, epoch: int) -> Path:
        return self._folder / f"losses-{epoch:03}.npy"

    def _delete(self, pattern: str, but: set[Path]) -> None:
        for path in set(self._folder.glob(pattern)) - but:
            path.unlink()


def checkpoints_of(settings: TrainSettings) -> Checkpoints:
    """Those of a training with these settings."""
    return Checkpoints(Path(settings.checkpoint_dir, f"{settings.name}-{fingerprint(settings)}"))


def fingerprint(settings: TrainSettings) -> str:
    """Eight characters that identify the settings that determine the weights."""
    return sha256(msgspec.json.encode(recipe(settings)))[:8]


def learn(
    settings: TrainSettings,
    data: Split,
    checkpoints: Checkpoints,
    report: Report,
    teacher: Teacher | None,
    *,
    progress_bar: bool,
) -> Progress:
    """Trains for the remaining epochs. Raises TrainingError."""
    if settings.epochs <= settings.warmup_epochs:
        raise TrainingError("train.epochs and train.later_epochs must be greater than train.warmup_epochs")
    keras.utils.set_random_seed(settings.seed)
    learner = compiled(settings, len(data.images), taught=teacher is not None)
    averaged = untrained(settings)
    averaged.set_weights(learner.get_weights())
    passes = passes_of(learner, averaged, settings.ema_decay)
    material = Lessons(data, settings, teacher)
    progress = checkpoints.restore(learner, averaged)
    for epoch in range(progress.epochs_done, settings.epochs):
        started = time.monotonic()
        order, weights = choose(settings, data, averaged, checkpoints, epoch)
        images, targets = material.of(epoch)
        shown = Shown(images[order], targets[order], weights)
        loss, hits = passes.run(epoch, shown, settings.batch_size, progress_bar=progress_bar)
        held_out = judge(averaged, data)
        if not np.isfinite((loss, held_out[0])).all():
            raise TrainingError(f"The loss in epoch {epoch + 1} is not a number: lower train.learning_rate")
        ended = Epoch(loss, hits, *held_out, round(time.monotonic() - started, 1))
        progress = progress.after(ended)
        checkpoints.save(learner, averaged, progress)
        report(describe(progress, settings.epochs))
    return progress


def untrained(settings: TrainSettings) -> keras.Model:
    """A network with initial weights, in the precision to train it in."""

    def normalize() -> keras.Layer:
        return FusedBatchNormalization(momentum=STATISTICS_MOMENTUM)

    with precision(settings.precision):
        return to_train(settings.network, len(LABELS), normalize)


def compiled(settings: TrainSettings, pictures: int, *, taught: bool) -> keras.Model:
    """An untrained network compiled with its loss and optimizer, SGD with Nesterov momentum."""
    network = untrained(settings)
    optimizer = keras.optimizers.SGD(
        schedule(settings, pictures), settings.momentum, nesterov=True, weight_decay=settings.weight_decay
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(network.trainable_variables)
    objective = Objective(settings.teacher.weight if taught else 0.0, settings.teacher.temperature)
    network.compile(optimizer, objective, metrics=[accuracy], jit_compile=False)
    return network


def schedule(settings: TrainSettings, pictures: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The schedule of the learning rate: a linear warm-up, then cosine decay to 0."""
    steps = [lessons.steps(settings, pictures, epoch) for epoch in range(settings.epochs)]
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
    """The pictures of an epoch and their order, determined by seed, epoch and losses."""
    random = np.random.default_rng((settings.seed, epoch))
    if not lessons.skips(settings, epoch):
        return lessons.everything(len(data.images), random)
    judged = lessons.judged(settings, epoch)
    if judged == epoch:
        checkpoints.keep_losses(epoch, losses(logits_of(averaged, data.images), data.labels))
    return lessons.without_some(checkpoints.losses(judged), settings.skipping, random)


def judge(averaged: keras.Model, data: Split) -> tuple[float, float]:
    """Loss and accuracy of the averaged network on the held-out pictures."""
    logits = logits_of(averaged, data.held_out_images)
    hits = logits.argmax(axis=1) == data.held_out_labels
    return round(nll(logits, data.held_out_labels), 5), float(hits.mean())


def logits_of(network: keras.Model, images: Pictures) -> NDArray[np.float32]:
    """The logits of pictures: float32 (n, classes)."""
    logits: NDArray[np.float32] = network.predict(images, batch_size=256, verbose=0)
    return logits


def describe(progress: Progress, epochs: int) -> str:
    """The last epoch on one line, with an estimate of the remaining time."""
    last, done = progress.history[-1], progress.epochs_done
    left = sum(epoch.seconds for epoch in progress.history) / done * (epochs - done) / 60
    return (
        f"epoch {done} of {epochs}: loss {last.loss:.4f}, accuracy {last.accuracy:.2%}, "
        f"held-out {last.held_out_accuracy:.2%}, {last.seconds:.0f} s, about {left:.0f} min left"
    )
