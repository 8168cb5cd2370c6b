"""A teacher's answers to the training pictures, each variation of them asked once and kept."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from model import manifest as manifests
from model.arrays import Pictures, Probabilities
from model.manifest import sha256, verify
from model.settings import TrainSettings
from model.training.network import serving
from model.training.normalization import FusedBatchNormalization
from model.training.precision import precision

Teacher = Callable[[Pictures], Probabilities]


def teacher(settings: TrainSettings, weights_dir: Path) -> Teacher | None:
    """What gives the probabilities of the model that the settings name; None if they name none.

    Each answer is kept beside the checkpoints. Raises ModelError.
    """
    if not settings.teacher.name:
        return None
    manifest = manifests.read(weights_dir, settings.teacher.name)
    path = weights_dir / manifest.keras_file
    verify(path, manifest.keras_sha256)
    with precision(settings.precision):
        network = serving(manifest.settings.network, len(manifest.labels), FusedBatchNormalization)
    network.set_weights(keras.saving.load_model(path, compile=False).get_weights())
    weights = b"".join(array.tobytes() for array in network.get_weights())
    folder = Path(settings.checkpoint_dir, f"teacher-{sha256(weights)[:8]}")

    def answer(pictures: Pictures) -> Probabilities:
        kept = folder / f"{sha256(pictures.tobytes())[:16]}.npy"
        if kept.exists():
            known: Probabilities = np.load(kept, allow_pickle=False)
            return known
        found: Probabilities = network.predict(pictures, batch_size=256, verbose=0)
        folder.mkdir(parents=True, exist_ok=True)
        with kept.with_suffix(".new").open("wb") as file:
            np.save(file, found)
        kept.with_suffix(".new").replace(kept)
        return found

    return answer
