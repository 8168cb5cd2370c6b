"""The only thing that the worker sees of a model."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from model import manifest as manifests
from model.arrays import Pictures, Probabilities
from model.manifest import Manifest, ModelError

WARM_UP_BATCHES = (1, 2, 8, 32)


class Classifier(Protocol):
    """A loaded model."""

    @property
    def manifest(self) -> Manifest:
        """What is known of the model."""

    @property
    def runtime(self) -> str:
        """onnx or keras."""

    def predict(self, pictures: Pictures) -> Probabilities:
        """One row of probabilities, over manifest.labels, for each picture."""


def load(weights_dir: Path, name: str, runtime: str, threads: int) -> Classifier:
    """The model of this name, checked and warmed up. runtime is auto, onnx or keras. Raises ModelError."""
    manifest = manifests.read(weights_dir, name)
    has_export = manifest.has_current_export() and (weights_dir / manifest.onnx_file).exists()
    classifier = _open(weights_dir, manifest, choose(runtime, has_export=has_export), threads)
    warm_up(classifier)
    return classifier


def choose(runtime: str, *, has_export: bool) -> Literal["onnx", "keras"]:
    """The runtime to use: auto takes the export where there is one of this very model. Raises ModelError."""
    if runtime == "keras" or (runtime == "auto" and not has_export):
        return "keras"
    if runtime not in ("auto", "onnx"):
        raise ModelError(f"There is no runtime {runtime!r}. Choose auto, onnx or keras.")
    if not has_export:
        raise ModelError("The model has no ONNX export made from its .keras file. Run: mlaas train")
    return "onnx"


def warm_up(classifier: Classifier) -> None:
    """Runs empty pictures through, so that the first request does not pay for what a runtime does once."""
    for count in WARM_UP_BATCHES:
        classifier.predict(np.zeros((count, *classifier.manifest.input_shape), np.uint8))


def _open(
    weights_dir: Path, manifest: Manifest, runtime: Literal["onnx", "keras"], threads: int
) -> Classifier:
    try:
        return _implementation(runtime)(weights_dir, manifest, threads)
    except ImportError as error:
        raise ModelError(f"The runtime {runtime} is not installed: {error}") from error


def _implementation(runtime: Literal["onnx", "keras"]) -> Callable[[Path, Manifest, int], Classifier]:
    if runtime == "onnx":
        # From 1.29 on, ONNX Runtime reports to its maker unless told not to before it is imported.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        from model.onnx_runtime import OnnxClassifier

        return OnnxClassifier
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on the processor go to every terminal
    from model.keras_runtime import KerasClassifier

    return KerasClassifier
