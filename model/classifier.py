"""The only thing that the worker sees of a model."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from model import manifest as manifests
from model.arrays import Features, Pictures, Probabilities, Scores
from model.manifest import Manifest, ModelError
from model.ood import Detector, load_detector

WARM_UP_BATCHES = (1, 2, 8, 32)


class Predictions(NamedTuple):
    """One row for each picture."""

    probabilities: Probabilities
    ood_scores: Scores


class Runtime(Protocol):
    """What runs the network. name is onnx or keras."""

    name: str

    def run(self, pictures: Pictures) -> tuple[Probabilities, Features]:
        """One row of both for each picture."""


class Classifier:
    """A loaded model."""

    def __init__(self, manifest: Manifest, runtime: Runtime, detector: Detector) -> None:
        self.manifest = manifest
        self._runtime = runtime
        self._detector = detector

    @property
    def runtime(self) -> str:
        """onnx or keras."""
        return self._runtime.name

    def predict(self, pictures: Pictures) -> Predictions:
        """Probabilities over manifest.labels, and how unlike clothing each picture is."""
        probabilities, features = self._runtime.run(pictures)
        return Predictions(probabilities, self._detector.score(features, pictures))

    def features(self, pictures: Pictures) -> Features:
        """What the network has made of each picture before its last layer."""
        return self._runtime.run(pictures)[1]


def load(weights_dir: Path, name: str, runtime: str, threads: int) -> Classifier:
    """The model of this name, checked and warmed up. runtime is auto, onnx or keras. Raises ModelError."""
    manifest = manifests.read(weights_dir, name)
    has_export = manifest.has_current_export() and (weights_dir / manifest.onnx_file).exists()
    chosen = choose(runtime, has_export=has_export)
    detector = load_detector(weights_dir, manifest)
    classifier = Classifier(manifest, _open(weights_dir, manifest, chosen, threads), detector)
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
    """Runs empty pictures through, so that the first request does not pay for what a runtime does once.

    Raises ModelError if what comes out is not a probability for each label.
    """
    manifest = classifier.manifest
    file = manifest.onnx_file if classifier.runtime == "onnx" else manifest.keras_file
    for count in WARM_UP_BATCHES:
        rows = classifier.predict(np.zeros((count, *manifest.input_shape), np.uint8)).probabilities
        if rows.shape[1] != len(manifest.labels):
            raise ModelError(f"{file} gives {rows.shape[1]} numbers for {len(manifest.labels)} labels")
        if not np.allclose(rows.sum(axis=1), 1, atol=1e-3):
            raise ModelError(f"{file} does not give probabilities: its weights are damaged")


def _open(weights_dir: Path, manifest: Manifest, runtime: Literal["onnx", "keras"], threads: int) -> Runtime:
    try:
        return _implementation(runtime)(weights_dir, manifest, threads)
    except ImportError as error:
        raise ModelError(f"The runtime {runtime} is not installed: {error}") from error


def _implementation(runtime: Literal["onnx", "keras"]) -> Callable[[Path, Manifest, int], Runtime]:
    if runtime == "onnx":
        # From 1.29 on, ONNX Runtime reports to its maker unless told not to before it is imported.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        from model.onnx_runtime import OnnxRuntime

        return OnnxRuntime.of_model
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on the processor go to every terminal
    from model.keras_runtime import KerasRuntime

    return KerasRuntime
