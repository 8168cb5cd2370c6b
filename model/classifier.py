"""A loaded model: its probabilities and out-of-distribution scores for prepared pictures."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model import manifest as manifests
from model.image import as_input, prepare_image
from model.manifest import ImagePreprocessing, Manifest, ModelError, verify
from model.ood import Detector, Scores, load_detector
from model.preprocessing import Mode, PictureError, Prepared, prepare
from model.product import Pictures
from model.runtimes import KerasRuntime, OnnxRuntime, Output, Probabilities, Runtime

WARM_UP_BATCHES = (1, 2, 8, 32)

GOLDEN_PIXELS = 25_000_000
GOLDEN_TOLERANCE = 0.02
"""More than the probabilities of an 8-bit network differ between processors."""

UNLIKE_CLOTHING = "this does not look like the clothing that the model knows"


class Predictions(NamedTuple):
    """For n pictures: probabilities (n, classes), and ood_scores (n,) if there is a detector."""

    probabilities: Probabilities
    ood_scores: Scores | None


class Classifier:
    """A loaded model, with the runtime and detector that belong to it."""

    def __init__(
        self, manifest: Manifest, runtime: Runtime, detector: Detector | None, folder: Path = Path()
    ) -> None:
        self.manifest = manifest
        self.folder = folder
        self._runtime = runtime
        self._detector = detector

    @property
    def runtime(self) -> str:
        """The name of the runtime: onnx or keras."""
        return self._runtime.name

    def outputs(self, batch: NDArray[Any]) -> Output:
        """What the network gives for a batch in the shape and type of its input: (n, numbers)."""
        return self._runtime.run(batch)[0].reshape(len(batch), -1)

    @property
    def takes(self) -> str:
        """The input that the network itself declares, in ONNX Runtime's words; empty for Keras."""
        its = self._runtime
        return f"{list(its.input_shape)} {its.input_type}" if isinstance(its, OnnxRuntime) else ""

    def predict(self, pictures: Pictures) -> Predictions:
        """Classifies prepared pictures, uint8 (n, h, w) or (n, h, w, 3)."""
        its = self.manifest
        output, features = self._runtime.run(as_input(pictures, its.preprocessing, its.input))
        scores = None if self._detector is None or features is None else self._detector.score(features)
        return Predictions(as_probabilities(output, its.output), scores)


def load(weights_dir: Path, name: str, runtime: str, threads: int, version: str = "") -> Classifier:
    """Loads a version of a model, or the latest; verifies its files and golden pictures.

    runtime: see choose(). Raises ModelError.
    """
    folder = manifests.folder(weights_dir, name, version)
    manifest = manifests.read(folder)
    opened = _open(folder, manifest, choose(runtime, manifest, folder), threads)
    classifier = Classifier(manifest, opened, load_detector(folder, manifest), folder)
    warm_up(classifier)
    check_golden(classifier)
    return classifier


def as_probabilities(output: Output, kind: str) -> Probabilities:
    """The output of a network as probabilities (n, labels). kind: see Manifest.output."""
    rows = output.reshape(len(output), -1).astype(np.float32, copy=False)
    if kind == "logits":
        powers = np.exp(rows - rows.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return np.concatenate((1 - rows, rows), axis=1) if kind == "sigmoid" else rows


def choose(runtime: str, manifest: Manifest, folder: Path) -> Literal["onnx", "keras"]:
    """The runtime for a choice of auto, onnx or keras. auto prefers an ONNX file of the current weights.

    Raises ModelError.
    """
    if runtime not in ("auto", "onnx", "keras"):
        raise ModelError(f"Unknown runtime {runtime!r}. Choose auto, onnx or keras.")
    export = manifest.current_export
    has_export = export is not None and (manifest.keras is None or (folder / export.file).exists())
    if runtime == "onnx" and not has_export:
        raise ModelError(f"{folder} has no ONNX file of these weights. Choose the runtime auto or keras.")
    if runtime == "keras" and manifest.keras is None:
        raise ModelError(f"{folder} has no .keras file. Choose the runtime auto or onnx.")
    return "onnx" if runtime == "onnx" or (runtime == "auto" and has_export) else "keras"


def warm_up(classifier: Classifier) -> None:
    """Runs blank pictures, so that the first request does not wait for what a runtime does only once.

    Raises ModelError if the output is not a probability distribution over the labels.
    """
    manifest = classifier.manifest
    network = manifest.onnx if classifier.runtime == "onnx" else manifest.keras
    file = classifier.folder / network.file if network else classifier.folder
    for count in WARM_UP_BATCHES:
        try:
            rows = classifier.predict(np.zeros((count, *manifest.input.pixels), np.uint8)).probabilities
        except Exception as error:
            shape = " x ".join(map(str, manifest.input.shape))
            reason = str(error).splitlines()[0]
            takes = f"; it takes {classifier.takes}" if classifier.takes else ""
            raise ModelError(
                f"{file} cannot run on an input of {shape} {manifest.input.dtype}{takes} ({reason})"
            ) from error
        if rows.shape[1] != len(manifest.labels):
            raise ModelError(f"{file} gives {rows.shape[1]} numbers for {len(manifest.labels)} labels")
        sound = bool(((rows >= -1e-3) & (rows <= 1 + 1e-3)).all())  # False for what is not a number
        if not sound or (manifest.output != "sigmoids" and not np.allclose(rows.sum(axis=1), 1, atol=1e-3)):
            raise ModelError(f"{file} does not give {manifest.output}, or its weights are damaged")


def check_golden(classifier: Classifier) -> None:
    """Raises ModelError if a golden picture is not classified as expected."""
    for golden in classifier.manifest.golden:
        path = classifier.folder / golden.file
        try:
            answer = predict_picture(
                verify(path, golden.sha256), classifier, mode="auto", max_pixels=GOLDEN_PIXELS
            )
        except PictureError as error:
            raise ModelError(f"{path}: {error}") from error
        label, probability = next(iter(answer.probabilities.items()))
        if label != golden.label or abs(probability - golden.probability) > GOLDEN_TOLERANCE:
            expected = f"{golden.label} {golden.probability:.3f}"
            raise ModelError(
                f"{path} is classified as {label} {probability:.3f}, and should be as {expected}"
            )


def _open(folder: Path, manifest: Manifest, runtime: Literal["onnx", "keras"], threads: int) -> Runtime:
    try:
        return _implementation(runtime)(folder, manifest, threads)
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
    in_distribution: bool | None
    ood_score: float | None
    mode: str
    warnings: list[str]


def prepare_for(manifest: Manifest, picture: bytes, *, mode: Mode, max_pixels: int) -> Prepared:
    """Prepares the picture in a file for a model. mode: for clothing. Raises PictureError."""
    if isinstance(manifest.preprocessing, ImagePreprocessing):
        return prepare_image(picture, manifest.preprocessing, manifest.input, max_pixels=max_pixels)
    return prepare(picture, mode=mode, max_pixels=max_pixels)


def predict_picture(picture: bytes, classifier: Classifier, *, mode: Mode, max_pixels: int) -> Answer:
    """Prepares and classifies the picture in a PNG, JPEG or WebP file. Raises PictureError."""
    prepared = prepare_for(classifier.manifest, picture, mode=mode, max_pixels=max_pixels)
    predictions = classifier.predict(prepared.pixels[None])
    row, scores = predictions.probabilities[0].tolist(), predictions.ood_scores
    score = None if scores is None else float(scores[0])
    ranked = sorted(zip(row, classifier.manifest.labels, strict=True), reverse=True)
    probabilities = {label: probability for probability, label in ranked}
    warnings = warnings_of(prepared, score)
    return Answer(probabilities, is_in_distribution(score), score, prepared.mode, warnings)


def is_in_distribution(ood_score: float | None) -> bool | None:
    """Whether a picture with this score resembles the training pictures; None without a score."""
    return None if ood_score is None else ood_score <= 1


def warnings_of(prepared: Prepared, ood_score: float | None) -> list[str]:
    """Why the prediction may be wrong, in words for the user."""
    return [*prepared.warnings, *([UNLIKE_CLOTHING] if is_in_distribution(ood_score) is False else [])]
