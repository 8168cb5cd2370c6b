"""A model small enough to be measured in a test, and the description that it would be shipped with."""

from pathlib import Path

import msgspec
import numpy as np

from mlaas import settings
from model import recipe
from model.classifier import Predictions
from model.manifest import Export, File, GarmentPreprocessing, Manifest, PictureInput
from model.training import figures
from model.training.dataset import DIGESTS, LABELS, Dataset
from model.training.figures import Metrics, Record

METRICS = Metrics(accuracy=0.5, per_class={}, count=1, ece=0.1, classwise_ece=0.1, nll=1.0, brier=0.5)


def manifest(**changes) -> Manifest:
    complete = Manifest(
        name="tiny",
        version="7.1",
        labels=LABELS,
        input=PictureInput(height=28, width=28, channels=1, dtype="uint8", layout="NHW"),
        preprocessing=GarmentPreprocessing(),
        output="probabilities",
        detector=File(file="detector.npz", sha256="c" * 64),
        keras=File(file="model.keras", sha256="a" * 64),
        onnx=Export(file="model.onnx", sha256="b" * 64, exported_from="a" * 64),
    )
    return msgspec.structs.replace(complete, **changes)


def record(**changes) -> Record:
    """Of the settings in configs/config.yaml, which no test looks at."""
    complete = Record(
        keras_sha256="a" * 64,
        metrics=METRICS,
        temperature=1.6,
        held_out_accuracy=0.8123,
        parameters=1234,
        multiply_adds=56789,
        epochs=9,
        best_epochs=(8,),
        wall_seconds=720.0,
        backend="tensorflow",
        settings=recipe(settings.load(None, {}).train),
        data_sha256=DIGESTS,
        software={"keras": "3.99"},
    )
    return msgspec.structs.replace(complete, **changes)


def write_record(folder: Path) -> Path:
    (folder / figures.RECORD_FILE).write_bytes(figures.encode(record()))
    return folder


def pictures() -> Dataset:
    """The committed test pictures, as both parts."""
    with np.load(Path(__file__).parents[1] / "data" / "fashion-mnist-test-500.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return Dataset(images, labels, images[::5], labels[::5])


class NearestMean:
    """Answers by the distance to the mean picture of each class; the darker, the stranger."""

    runtime = "none"

    def __init__(self, data: Dataset, folder: Path = Path(), **changes):
        self.manifest = manifest(**changes)
        self.folder = folder
        means = [data.train_images[data.train_labels == label].mean(axis=0) for label in range(10)]
        self._means = np.stack(means).reshape(10, -1)

    def predict(self, images):
        flat = images.reshape(len(images), -1).astype(np.float64)
        logits = (2 * flat @ self._means.T - (self._means**2).sum(axis=1)) / 4e5
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return Predictions(rows, (1.2 - flat.mean(axis=1) / 255).astype(np.float32))
