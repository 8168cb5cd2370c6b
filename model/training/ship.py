"""A trained network becomes a model that can be served: four files in weights/."""

from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf

from model import ood
from model.manifest import Manifest, replace, sha256, write
from model.settings import recipe
from model.training import dataset
from model.training.dataset import LABELS
from model.training.ensemble import Run
from model.training.network import multiply_adds


def ship(run: Run, detector: ood.Detector, weights_dir: Path) -> Manifest:
    """Writes .keras, .onnx and .npz, then the manifest with their digests."""
    settings, network = run.settings, run.network
    weights_dir.mkdir(parents=True, exist_ok=True)
    keras_path, onnx_path, ood_path = (
        weights_dir / f"{settings.name}{kind}" for kind in (".keras", ".onnx", ".npz")
    )
    network.save(keras_path)
    replace(onnx_path, run.exported)
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
        metrics=run.metrics,
        temperature=run.temperature,
        held_out_accuracy=run.held_out_accuracy,
        parameters=network.count_params(),
        multiply_adds=multiply_adds(network, settings.network),
        epochs=len(run.history),
        best_epochs=tuple(member.progress.best_epoch for member in run.members),
        wall_seconds=round(run.wall_seconds, 1),
        backend=run.members[0].progress.backend,
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
