"""What an interrupted training needs to go on: one folder, valid at every moment.

progress.json names the files that belong together and is replaced last, in one step.
"""

from pathlib import Path

import keras
import msgspec
import numpy as np

from model.manifest import replace, sha256
from model.settings import TrainSettings, recipe
from model.training.calibration import Losses
from model.training.figures import Epoch


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far training has come, and what Keras ran on in the last epoch. Epochs count from 1."""

    history: tuple[Epoch, ...] = ()
    backend: str = ""

    @property
    def epochs_done(self) -> int:
        """How many epochs have ended."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The last of those with the highest held-out accuracy; 0 before the first has ended."""
        ranked = [(epoch.held_out_accuracy, number) for number, epoch in enumerate(self.history, 1)]
        return max(ranked)[1] if ranked else 0

    @property
    def best(self) -> Epoch:
        """What was measured at the end of the best epoch."""
        return self.history[self.best_epoch - 1]

    @property
    def wall_seconds(self) -> float:
        """All epochs together."""
        return sum(epoch.seconds for epoch in self.history)

    def after(self, epoch: Epoch) -> "Progress":
        """The progress after one more epoch."""
        return Progress((*self.history, epoch), keras.backend.backend())


class Checkpoints:
    """The folder for one model and one set of training settings: other settings start afresh, elsewhere."""

    def __init__(self, settings: TrainSettings) -> None:
        self._folder = Path(settings.checkpoint_dir, f"{settings.name}-{fingerprint(settings)}")

    def progress(self) -> Progress:
        """How far the training in this folder has come."""
        path = self._folder / "progress.json"
        return msgspec.json.decode(path.read_bytes(), type=Progress) if path.exists() else Progress()

    def restore(self, learner: keras.Model, averaged: keras.Model) -> Progress:
        """Puts the weights of the last whole epoch into both networks, and its state into the optimizer."""
        progress = self.progress()
        if progress.epochs_done:
            learner.load_weights(self._learner(progress.epochs_done))
            averaged.load_weights(self._averaged(progress.epochs_done))
        return progress

    def save(self, learner: keras.Model, averaged: keras.Model, progress: Progress) -> None:
        """Keeps the epoch that just ended, and the best so far."""
        learner_file, averaged_file = (
            self._learner(progress.epochs_done),
            self._averaged(progress.epochs_done),
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        learner.save_weights(learner_file)
        averaged.save_weights(averaged_file)
        replace(self._folder / "progress.json", msgspec.json.encode(progress))
        self._forget_all_but(learner_file, averaged_file, self.best(progress))

    def losses(self, epoch: int) -> Losses:
        """What was kept by keep_losses() before this epoch."""
        kept: Losses = np.load(self._losses(epoch), allow_pickle=False)
        return kept

    def keep_losses(self, epoch: int, losses: Losses) -> None:
        """Keeps each picture's loss, as it is before this epoch, and forgets those of before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        np.save(self._losses(epoch), losses)
        for path in set(self._folder.glob("losses-*.npy")) - {self._losses(epoch)}:
            path.unlink()

    def best(self, progress: Progress) -> Path:
        """The averaged weights of the best epoch."""
        return self._averaged(progress.best_epoch)

    def _learner(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch:03}.learner.weights.h5"

    def _averaged(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch:03}.averaged.weights.h5"

    def _losses(self, epoch: int) -> Path:
        return self._folder / f"losses-{epoch:03}.npy"

    def _forget_all_but(self, *keep: Path) -> None:
        for path in set(self._folder.glob("epoch-*")) - set(keep):
            path.unlink()


def fingerprint(settings: TrainSettings) -> str:
    """Eight characters that change with any setting that changes the weights."""
    return sha256(msgspec.json.encode(recipe(settings)))[:8]
