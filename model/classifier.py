"""A loaded model: its probabilities and out-of-distribution scores for prepared pictures."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from model import manifest as manifests
from model.manifest import Manifest, ModelError
from model.ood import Detector, Scores, load_detector
from model.preprocessing import Mode, Prepared, prepare
from model.product import Pictures
from model.runtimes import KerasRuntime, OnnxRuntime, Probabilities, Runtime

WARM_UP_BATCHES = (1, 2, 8, 32)

UNLIKE_CLOTHING = "this does not look like the clothing that the model knows"


class Predictions(NamedTuple):
    """The predictions for n pictures: probabilities (n, classes) and ood_scores (n,)."""

    probabilities: Probabilities
    ood_scores: Scores


class Classifier:
    """A loaded model, with the runtime and detector that belong to it."""

    def __init__(self, manifest: Manifest, runtime: Runtime, detector: Detector) -> None:
        self.manifest = manifest
        self._runtime = runtime
        self._detector = detector

    @property
    def runtime(self) -> str:
        """The name of the runtime: onnx or keras."""
        return self._runtime.name

    def predict(self, pictures: Pictures) -> Predictions:
        """Classifies uint8 pictures (n, 28, 28); the classes are in the order of manifest.labels."""
        probabilities, features = self._runtime.run(pictures)
        return Predictions(probabilities, self._detector.score(features))


def load(weights_dir: Path, name: str, runtime: str, threads: int) -> Classifier:
    """Loads a model, verifies its files and warms it up. runtime: see choose(). Raises ModelError."""
    manifest = manifests.read(weights_dir, name)
    has_export = manifest.has_current_export() and (weights_dir / manifest.onnx_file).exists()
    chosen = choose(runtime, has_export=has_export)
    detector = load_detector(weights_dir, manifest)
    classifier = Classifier(manifest, _open(weights_dir, manifest, chosen, threads), detector)
    warm_up(classifier)
    return classifier


def choose(runtime: str, *, has_export: bool) -> Literal["onnx", "keras"]:
    """The runtime for a choice of auto, onnx or keras. auto prefers ONNX if there is a current export.

    Raises ModelError.
    """
    if runtime == "keras" or (runtime == "auto" and not has_export):
        return "keras"
    if runtime not in ("auto", "onnx"):
        raise ModelError(f"Unknown runtime {runtime!r}. Choose auto, onnx or keras.")
    if not has_export:
        raise ModelError("The model has no ONNX export made from its .keras file. Run: mlaas train")
    return "onnx"


def warm_up(classifier: Classifier) -> None:
    """Runs blank pictures, so that the first request does not wait for what a runtime does only once.

    Raises ModelError if the output is not a probability distribution over the labels.
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
        # ONNX Runtime 1.29 and later send telemetry unless this is set before the import.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        return OnnxRuntime.of_model
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else it logs notes on the processor
    return KerasRuntime


class Answer(NamedTuple):
    """The prediction for a picture. probabilities is sorted, highest first; mode is the one used."""

    probabilities: dict[str, float]
    in_distribution: bool
    ood_score: float
    mode: str
    warnings: list[str]


def predict_picture(picture: bytes, classifier: Classifier, *, mode: Mode, max_pixels: int) -> Answer:
    """Prepares and classifies the picture in a PNG, JPEG or WebP file. Raises PictureError."""
    prepared = prepare(picture, mode=mode, max_pixels=max_pixels)
    predictions = classifier.predict(prepared.pixels[None])
    row, score = predictions.probabilities[0].tolist(), float(predictions.ood_scores[0])
    ranked = sorted(zip(row, classifier.manifest.labels, strict=True), reverse=True)
    probabilities = {label: probability for probability, label in ranked}
    warnings = warnings_of(prepared, score)
    return Answer(probabilities, is_in_distribution(score), score, prepared.mode, warnings)


def is_in_distribution(ood_score: float) -> bool:
    """Whether a picture with this score resembles the training pictures; see model.ood."""
    return ood_score <= 1


def warnings_of(prepared: Prepared, ood_score: float) -> list[str]:
    """Why the prediction may be wrong, in words for the user."""
    return [*prepared.warnings, *([] if is_in_distribution(ood_score) else [UNLIKE_CLOTHING])]
