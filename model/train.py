"""From data to weights: `mlaas train`."""

from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf

from model import dataset, export
from model.checkpoint import Checkpoints, Progress
from model.dataset import LABELS, Dataset
from model.evaluate import measure
from model.learning import Report, Split, learn
from model.manifest import Manifest, Metrics, replace, sha256, write
from model.settings import ModelSettings, TrainSettings, recipe


def train(
    settings: TrainSettings, model: ModelSettings, report: Report, *, progress_bar: bool = True
) -> Manifest:
    """Trains, or goes on with a training that was interrupted, and writes .keras, .onnx and .json.

    report gets one line of text at a time; the progress bar goes to standard output. The test pictures are
    used once, at the end. Raises DatasetError.
    """
    data = limited(dataset.load(Path(settings.data_dir)), settings.limit_pictures)
    checkpoints = Checkpoints(settings, model.name)
    if done := checkpoints.progress().epochs_done:
        report(f"going on after epoch {done} of {settings.epochs}")
    progress = learn(settings, split(data, settings), checkpoints, report, progress_bar=progress_bar)
    best = keras.saving.load_model(checkpoints.best(progress), compile=False)
    metrics = measure(best.predict(data.test_images, batch_size=256, verbose=0), data.test_labels, LABELS)
    report(f"test accuracy {metrics.accuracy:.2%} on {metrics.count} pictures, epoch {progress.best_epoch}")
    return ship(best, metrics, progress, settings, model)


def limited(data: Dataset, pictures: int) -> Dataset:
    """The first so many pictures of both sets; all of them for 0."""
    end = pictures or None
    return Dataset(
        data.train_images[:end], data.train_labels[:end], data.test_images[:end], data.test_labels[:end]
    )


def split(data: Dataset, settings: TrainSettings) -> Split:
    """The training set in two, the same way for the same seed."""
    out = dataset.held_out(data.train_labels, settings.validation_pictures, settings.seed)
    images, labels = data.train_images, data.train_labels
    return Split(images[~out], labels[~out], images[out], labels[out])


def ship(
    best: keras.Model, metrics: Metrics, progress: Progress, settings: TrainSettings, model: ModelSettings
) -> Manifest:
    """Writes the three files of the model, the manifest last."""
    folder = Path(model.weights_dir)
    folder.mkdir(parents=True, exist_ok=True)
    keras_path, onnx_path = folder / f"{model.name}.keras", folder / f"{model.name}.onnx"
    best.save(keras_path)
    replace(onnx_path, export.to_onnx(best))
    keras_sha256 = sha256(keras_path.read_bytes())
    manifest = Manifest(
        name=model.name,
        version=settings.version,
        labels=LABELS,
        input_shape=best.input_shape[1:],
        keras_file=keras_path.name,
        keras_sha256=keras_sha256,
        onnx_file=onnx_path.name,
        onnx_sha256=sha256(onnx_path.read_bytes()),
        onnx_from_sha256=keras_sha256,
        metrics=metrics,
        validation_accuracy=progress.best_accuracy,
        parameters=best.count_params(),
        epochs=progress.epochs_done,
        best_epoch=progress.best_epoch,
        wall_seconds=round(progress.wall_seconds, 1),
        seed=settings.seed,
        settings=recipe(settings),
        data_sha256=dataset.DIGESTS,
        software=software(),
    )
    write(folder, manifest)
    return manifest


def software() -> dict[str, str]:
    """The versions that the weights may depend on."""
    return {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
    }
