"""A trained network becomes a model that can be served: four files in weights/."""

from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf

from model import dataset, export, ood
from model.checkpoint import Progress
from model.dataset import LABELS
from model.manifest import Manifest, Metrics, replace, sha256, write
from model.network import multiply_adds
from model.settings import TrainSettings, recipe


def ship(
    network: keras.Model,
    detector: ood.Detector,
    metrics: Metrics,
    temperature: float,
    progress: Progress,
    settings: TrainSettings,
    weights_dir: Path,
) -> Manifest:
    """Writes .keras, .onnx and .npz, then the manifest with their digests."""
    weights_dir.mkdir(parents=True, exist_ok=True)
    keras_path, onnx_path, ood_path = (
        weights_dir / f"{settings.name}{kind}" for kind in (".keras", ".onnx", ".npz")
    )
    network.save(keras_path)
    replace(onnx_path, export.to_onnx(network))
    replace(ood_path, detector.to_bytes())
    keras_sha256 = sha256(keras_path.read_bytes())
    manifest = Manifest(
        name=settings.name,
        version=settings.version,
        labels=LABELS,
        input_shape=network.input_shape[1:],
        keras_file=keras_path.name,
        keras_sha256=keras_sha256,
        onnx_file=onnx_path.name,
        onnx_sha256=sha256(onnx_path.read_bytes()),
        onnx_from_sha256=keras_sha256,
        ood_file=ood_path.name,
        ood_sha256=sha256(ood_path.read_bytes()),
        metrics=metrics,
        temperature=temperature,
        held_out_accuracy=progress.best.held_out_accuracy,
        parameters=network.count_params(),
        multiply_adds=multiply_adds(network),
        epochs=progress.epochs_done,
        best_epoch=progress.best_epoch,
        wall_seconds=round(progress.wall_seconds, 1),
        settings=recipe(settings),
        data_sha256=dataset.DIGESTS,
        software=software(),
    )
    write(weights_dir, manifest)
    return manifest


def software() -> dict[str, str]:
    """The versions that the weights may depend on."""
    return {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
    }
