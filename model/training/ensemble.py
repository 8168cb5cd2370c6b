"""The members of a network: they learn one after another, and answer together."""

from dataclasses import dataclass
from itertools import chain

import keras
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from model.arrays import Pictures
from model.manifest import Metrics
from model.settings import TrainSettings
from model.training.checkpoint import Checkpoints, Progress
from model.training.figures import Epoch
from model.training.learning import Report, learn, logits_of, untrained
from model.training.lessons import Split
from model.training.teaching import Teacher

SEEDS_APART = 1000
"""Between one member's seed and the next one's: more than there are runs."""


@dataclass(frozen=True, slots=True)
class Member:
    """One that has learned: how, and its network with the weights of its best epoch."""

    progress: Progress
    network: keras.Model


@dataclass(frozen=True, slots=True)
class Run:
    """One training from one seed, calibrated on the held-out pictures, measured on the test pictures.

    exported is network as an ONNX file in 8-bit integers; metrics are its.
    """

    settings: TrainSettings
    members: list[Member]
    network: keras.Model
    exported: bytes
    temperature: float
    held_out_accuracy: float
    metrics: Metrics

    @property
    def wall_seconds(self) -> float:
        """All epochs together."""
        return sum(epoch.seconds for epoch in self.history)

    @property
    def history(self) -> tuple[Epoch, ...]:
        """The epochs of all members, one member after another."""
        return tuple(chain.from_iterable(member.progress.history for member in self.members))


def learn_in_turn(
    settings: TrainSettings, data: Split, taught_by: Teacher | None, report: Report, *, progress_bar: bool
) -> list[Member]:
    """Every member in turn, each from first weights of its own, so that their mistakes differ.

    Raises TrainingError.
    """
    return [
        one(alone(settings, number), data, taught_by, report, progress_bar=progress_bar)
        for number in range(settings.network.members)
    ]


def one(
    settings: TrainSettings, data: Split, teacher: Teacher | None, report: Report, *, progress_bar: bool
) -> Member:
    """Learns the epochs that are left of one member. Raises TrainingError."""
    checkpoints = Checkpoints(settings)
    progress = checkpoints.progress()
    if done := progress.epochs_done:
        report(f"seed {settings.seed}: going on after epoch {done} of {settings.epochs}")
    if done < settings.epochs:
        progress = learn(settings, data, checkpoints, report, teacher, progress_bar=progress_bar)
    network = untrained(settings)
    network.load_weights(checkpoints.best(progress))
    return Member(progress, network)


def alone(settings: TrainSettings, number: int) -> TrainSettings:
    """The settings of one member, counted from 0, as of a network that has no other."""
    return replace(
        settings,
        seed=settings.seed + SEEDS_APART * number,
        runs=1,
        epochs=settings.later_epochs if number else settings.epochs,
        later_epochs=0,
        network=replace(settings.network, members=1, mirrored=False),
    )


def mean_logits(members: list[Member], images: Pictures, *, mirrored: bool) -> NDArray[np.float32]:
    """float32 (n, classes)."""
    views = (images, images[:, :, ::-1]) if mirrored else (images,)
    answers = [logits_of(one.network, view) for one in members for view in views]
    logits: NDArray[np.float32] = np.mean(answers, axis=0)
    return logits
