"""Selects the pictures of each epoch, augments them, and makes their targets."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from model import SkippingSettings, TrainSettings
from model import manifest as manifests
from model.garment import Pictures
from model.manifest import ModelError, sha256, verify
from model.runtimes import Probabilities
from model.training.augmentation import augment
from model.training.dataset import LABELS, Split
from model.training.evaluate import Losses
from model.training.figures import read_record
from model.training.network import FusedBatchNormalization, Targets, precision, serving, targets

Teacher = Callable[[Pictures], Probabilities]
Chosen = tuple[NDArray[np.intp], NDArray[np.float32]]
"""The indices of pictures in training order, and their weights in the loss: both (n,)."""


class Lessons:
    """The augmented pictures and targets of each epoch. Editions that recur are kept in memory."""

    def __init__(self, data: Split, settings: TrainSettings, teacher: Teacher | None) -> None:
        self._data = data
        self._settings = settings
        self._teacher = teacher
        self._kept: dict[tuple[int, bool], tuple[Pictures, Targets]] = {}

    def of(self, epoch: int) -> tuple[Pictures, Targets]:
        """The pictures, uint8 (n, 28, 28), and targets of an epoch, in the order of the data."""
        key = edition(self._settings, epoch, taught=self._teacher is not None)
        if key in self._kept:
            return self._kept[key]
        images = varied(self._data, self._settings, *key)
        taught = targets(self._data.labels, len(LABELS), self._teacher(images) if self._teacher else None)
        if self._teacher and self._settings.augmentation.editions:
            self._kept[key] = images, taught
        return images, taught


def edition(settings: TrainSettings, epoch: int, *, taught: bool) -> tuple[int, bool]:
    """The number of the augmented set that an epoch uses, and whether it has erased boxes."""
    editions = settings.augmentation.editions if taught else 0
    number = epoch % editions if editions else epoch
    return number, epoch < settings.epochs - settings.augmentation.plain_epochs


def varied(data: Split, settings: TrainSettings, number: int, erase: bool) -> Pictures:
    """Augments all training pictures, as determined by data_seed and edition."""
    random = np.random.default_rng((settings.data_seed, number, erase))
    return augment(data.images, data.labels, settings.augmentation, random, erase=erase)


def teacher(settings: TrainSettings, weights_dir: Path) -> Teacher | None:
    """A function that returns the probabilities of the teacher; None if the settings name no teacher.

    It caches them beside the checkpoints, so that each edition is computed once. Raises ModelError.
    """
    if not settings.teacher.name:
        return None
    its_folder = manifests.folder(weights_dir, settings.teacher.name)
    manifest, record = manifests.read(its_folder), read_record(its_folder)
    if manifest.keras is None:
        raise ModelError(f"{its_folder} has no .keras file, so it cannot teach")
    path = its_folder / manifest.keras.file
    verify(path, manifest.keras.sha256)
    with precision(settings.precision):
        network = serving(record.settings.network, len(manifest.labels), FusedBatchNormalization)
    network.set_weights(keras.saving.load_model(path, compile=False).get_weights())
    weights = b"".join(array.tobytes() for array in network.get_weights())
    folder = Path(settings.checkpoint_dir, f"teacher-{sha256(weights)[:8]}")

    def answer(pictures: Pictures) -> Probabilities:
        file = folder / f"{sha256(pictures.tobytes())[:16]}.npy"
        if file.exists():
            known: Probabilities = np.load(file, allow_pickle=False)
            return known
        found: Probabilities = network.predict(pictures, batch_size=256, verbose=0)
        folder.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".new").open("wb") as new:
            np.save(new, found)
        file.with_suffix(".new").replace(file)
        return found

    return answer


# Skipping easy pictures, after InfoBatch (Qin et al., arXiv 2303.04947): an epoch skips a random part of the
# pictures with low loss and gives the rest of these more weight, so that the expected gradient is unchanged.


def skips(settings: TrainSettings, epoch: int) -> bool:
    """Whether this epoch skips pictures; the first and the last ones do not."""
    rule, last = settings.skipping, settings.epochs - settings.augmentation.plain_epochs
    return rule.easy * rule.skipped > 0 and rule.first_epochs <= epoch < last


def judged(settings: TrainSettings, epoch: int) -> int:
    """The epoch before which the losses for this epoch are measured."""
    rule = settings.skipping
    return epoch - (epoch - rule.first_epochs) % rule.every_epochs


def steps(settings: TrainSettings, pictures: int, epoch: int) -> int:
    """The number of batches in this epoch."""
    shown = sum(_kept(pictures, settings.skipping)) if skips(settings, epoch) else pictures
    return -(-shown // settings.batch_size)


def everything(pictures: int, random: np.random.Generator) -> Chosen:
    """All pictures, with equal weights."""
    return random.permutation(pictures), np.ones(pictures, np.float32)


def without_some(losses: Losses, rule: SkippingSettings, random: np.random.Generator) -> Chosen:
    """All hard pictures, and as many easy ones as the rule keeps."""
    hard, easy = _kept(len(losses), rule)
    order = np.argsort(-losses, kind="stable")
    chosen = np.concatenate((order[:hard], random.choice(order[hard:], easy, replace=False)))
    weights = np.ones(len(chosen), np.float32)
    weights[hard:] = (len(losses) - hard) / max(easy, 1)
    shuffled = random.permutation(len(chosen))
    return chosen[shuffled], weights[shuffled]


def _kept(pictures: int, rule: SkippingSettings) -> tuple[int, int]:
    """The numbers of hard and easy pictures in an epoch that skips."""
    easy = round(pictures * rule.easy)
    return pictures - easy, easy - round(easy * rule.skipped)
