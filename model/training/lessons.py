"""What each epoch teaches: varied pictures, labels, a teacher's answers."""

from dataclasses import dataclass

import numpy as np

from model.arrays import Labels, Pictures
from model.settings import TrainSettings
from model.training.augmentation import augment
from model.training.dataset import LABELS
from model.training.objective import Floats, targets
from model.training.teaching import Teacher


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures to train on, and pictures held out to choose the epoch."""

    images: Pictures
    labels: Labels
    held_out_images: Pictures
    held_out_labels: Labels


class Lessons:
    """The pictures and targets of every epoch. Editions that come again are kept in memory."""

    def __init__(self, data: Split, settings: TrainSettings, teacher: Teacher | None) -> None:
        self._data = data
        self._settings = settings
        self._teacher = teacher
        self._kept: dict[tuple[int, bool], tuple[Pictures, Floats]] = {}

    def of(self, epoch: int) -> tuple[Pictures, Floats]:
        """uint8 (n, 28, 28) and the targets of model.training.objective, in the order of the data."""
        key = edition(self._settings, epoch, taught=self._teacher is not None)
        if key in self._kept:
            return self._kept[key]
        images = varied(self._data, self._settings, *key)
        taught = targets(self._data.labels, len(LABELS), self._teacher(images) if self._teacher else None)
        if self._teacher and self._settings.augmentation.editions:
            self._kept[key] = images, taught
        return images, taught


def edition(settings: TrainSettings, epoch: int, *, taught: bool) -> tuple[int, bool]:
    """The number of the variation that this epoch has, and whether boxes are erased in it."""
    editions = settings.augmentation.editions if taught else 0
    number = epoch % editions if editions else epoch
    return number, epoch < settings.epochs - settings.augmentation.plain_epochs


def varied(data: Split, settings: TrainSettings, number: int, erase: bool) -> Pictures:
    """All training pictures, varied. It follows from the data's seed and the edition alone."""
    random = np.random.default_rng((settings.data_seed, number, erase))
    return augment(data.images, data.labels, settings.augmentation, random, erase=erase)
