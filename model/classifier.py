"""A loaded model: its probabilities or numbers for prepared inputs, and out-of-distribution scores."""

import functools
import math
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model import manifest as manifests
from model.garment import Pictures
from model.inputs import TENSOR_MODE, Row, RowError, as_input, from_json, prepare_image
from model.manifest import ImagePreprocessing, Manifest, ModelError, PictureInput, Preparation, verify
from model.preprocessing import Mode, PictureError, Prepared, prepare
from model.runtimes import CannotRun, Features, KerasRuntime, OnnxRuntime, Output, Probabilities, Runtime

Weights = NDArray[np.float32]

Scores = NDArray[np.float32]
"""(n,): how much each picture differs from the training pictures; above 1, it is out of distribution."""


class Detector(NamedTuple):
    """Scores how much pictures differ from the training pictures, with d features and c classes.

    Features are whitened by their covariance within classes, so that distances from class means are
    Mahalanobis distances (Lee et al., arXiv 1807.03888). The score is linear in features and distances;
    model.training.ood fits it.

    Features minus mean (d,), times whiten (d, d), have unit covariance within classes; centres (c, d) are the
    class means in that space. weights (d + c + 2,) and bias () turn measures() into a score. All float32.
    """

    mean: Weights
    whiten: Weights
    centres: Weights
    weights: Weights
    bias: Weights

    def score(self, features: Features) -> Scores:
        """The scores of features (n, d). Of the held-out training pictures, half score 0 and 5% above 1.

        Area, contrast, borders and edges of the picture were tried as further inputs and hardly helped.
        """
        scores: Scores = np.maximum(self.measures(features) @ self.weights + self.bias, np.float32(0))
        return scores

    def measures(self, features: Features) -> Weights:
        """(n, d + c + 2): features, distances from all class means, the smallest of these, its logarithm."""
        place = (features - self.mean) @ self.whiten
        squares = np.einsum("ij,ij->i", place, place)[:, None] - 2 * (place @ self.centres.T)
        squares += np.einsum("ij,ij->i", self.centres, self.centres)
        distances = np.sqrt(np.maximum(squares, np.float32(1e-6)))
        nearest = distances.min(axis=1, keepdims=True)
        return np.concatenate((features, distances, nearest, np.log(nearest)), axis=1)

    def to_bytes(self) -> bytes:
        """The content of the model's .npz file."""
        file = BytesIO()
        np.savez(file, **self._asdict())
        return file.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> "Detector":
        """The detector that to_bytes() encoded. Raises ValueError."""
        try:
            with np.load(BytesIO(content), allow_pickle=False) as arrays:
                return Detector(**arrays).checked()
        except Exception as error:
            raise ValueError(f"not a detector: {error}") from error

    def checked(self) -> "Detector":
        """This detector. Raises ValueError unless its arrays are finite float32 of matching shapes."""
        c, d = self.centres.shape
        if [array.shape for array in self] != [(d,), (d, d), (c, d), (d + c + 2,), ()]:
            raise ValueError("its arrays have shapes that do not match")
        if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in self):
            raise ValueError("its arrays are not all finite float32 numbers")
        return self


def load_detector(folder: Path, manifest: Manifest) -> Detector | None:
    """Loads the detector of a model, if it has one. Raises ModelError."""
    if manifest.detector is None:
        return None
    path = folder / manifest.detector.file
    content = verify(path, manifest.detector.sha256)
    try:
        return Detector.from_bytes(content)
    except ValueError as error:
        raise ModelError(f"{path} is {error}") from error


WARM_UP_BATCHES = (1, 2, 8, 32)
LONG_BATCH_S = 0.05
"""After a batch of several that takes this long, larger ones would hardly be faster for having been run."""

TIMED_RUNS, BATCH = 20, 16

GOLDEN_PIXELS = 25_000_000
GOLDEN_TOLERANCE = 0.02
"""More than the probabilities of an 8-bit network differ between processors. Of numbers, the share of the
largest by which they may differ."""

NOT_FINITE = "the model's answer to these numbers is not finite"
UNLIKE_CLOTHING = "this does not look like the clothing that the model knows"


class Predictions(NamedTuple):
    """For n inputs: answers (n, labels or numbers), and ood_scores (n,) if there is a detector.

    answers: the probability of each label; or what a model without labels gives.
    """

    answers: Output
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

    @functools.cached_property
    def output_size(self) -> int:
        """How many numbers the network gives for one input."""
        return int(self.outputs(blank(self.manifest, 1)).shape[1])

    @property
    def takes(self) -> str:
        """The input that the network itself declares, in ONNX Runtime's words; empty for Keras."""
        its = self._runtime
        return f"{list(its.input_shape)} {its.input_type}" if isinstance(its, OnnxRuntime) else ""

    def predict(self, pictures: Pictures) -> Predictions:
        """Classifies prepared pictures, uint8 (n, h, w) or (n, h, w, 3)."""
        return self.infer(as_input(pictures, *self.manifest.preparation))

    def infer(self, batch: NDArray[Any]) -> Predictions:
        """What the network says of a batch in the shape and type of its input."""
        output, features = self._runtime.run(batch)
        scores = None if self._detector is None or features is None else self._detector.score(features)
        if self.manifest.output == "numbers":
            return Predictions(output.reshape(len(batch), -1), scores)
        return Predictions(as_probabilities(output, self.manifest.output), scores)


def load(weights_dir: Path, name: str, runtime: str, threads: int, version: str = "") -> Classifier:
    """Loads a version of a model, or the latest; verifies its files and golden pictures.

    runtime: see choose(). Raises ModelError.
    """
    folder = manifests.folder(weights_dir, name, version)
    manifest = manifests.read(folder)
    opened = _open(folder, manifest, choose(runtime, manifest, folder), threads)
    classifier = Classifier(manifest, opened, load_detector(folder, manifest), folder)
    warm_up(classifier)
    check_logits(classifier)
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
    """Runs blank inputs, so that the first request does not wait for what a runtime does only once.

    Raises ModelError if there are labels, and the output is not a probability distribution over them.
    """
    for count in WARM_UP_BATCHES:
        began = time.perf_counter()
        check_answers(classifier, count)
        if count > 1 and time.perf_counter() - began > LONG_BATCH_S:
            break


def check_answers(classifier: Classifier, count: int) -> None:
    """Runs a batch of blank inputs. Raises ModelError as warm_up does."""
    manifest = classifier.manifest
    network = manifest.onnx if classifier.runtime == "onnx" else manifest.keras
    file = classifier.folder / network.file if network else classifier.folder
    try:
        rows = classifier.infer(blank(manifest, count)).answers
    except (CannotRun, ValueError) as error:
        shape = " x ".join(map(str, manifest.input.shape))
        reason = str(error)
        takes = f"; it takes {classifier.takes}" if classifier.takes else ""
        raise ModelError(
            f"{file} cannot run on an input of {shape} {manifest.input.dtype}{takes} ({reason})"
        ) from error
    if manifest.output == "numbers":
        return
    if rows.shape[1] != len(manifest.labels):
        raise ModelError(f"{file} gives {rows.shape[1]} numbers for {len(manifest.labels)} labels")
    sound = bool(((rows >= -1e-3) & (rows <= 1 + 1e-3)).all())  # False for what is not a number
    if not sound or (manifest.output != "sigmoids" and not np.allclose(rows.sum(axis=1), 1, atol=1e-3)):
        raise ModelError(f"{file} does not give {manifest.output}, or its weights are damaged")


def check_logits(classifier: Classifier) -> None:
    """Raises ModelError if the manifest says logits, and random inputs give probabilities."""
    into = classifier.manifest.input
    if classifier.manifest.output == "logits":
        most = np.iinfo(into.dtype).max if into.dtype == "uint8" else 1
        inputs = np.random.default_rng(1).random((4, *into.shape)) * most
        rows = classifier.outputs(inputs.astype(into.dtype))
        if rows.min() >= 0 and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
            raise ModelError(
                f"{classifier.folder} gives probabilities, and its manifest says logits: "
                "write output: probabilities"
            )


def blank(manifest: Manifest, count: int) -> NDArray[Any]:
    """A batch of black pictures; or of numbers from 0 to 1, or 0, as not every network can compute zeros."""
    into = manifest.input
    if isinstance(into, PictureInput):
        return as_input(np.zeros((count, *into.pixels), np.uint8), *manifest.preparation)
    rising = np.linspace(0, 1, count * math.prod(into.shape)).reshape(count, *into.shape)
    return rising.astype(into.dtype)


def check_golden(classifier: Classifier) -> None:
    """Raises ModelError if a golden picture or row is not answered as expected."""
    for golden in classifier.manifest.golden:
        path = classifier.folder / golden.file
        answer = predict_golden(path, verify(path, golden.sha256), classifier)
        if golden.numbers:
            if not alike(answer.outputs, golden.numbers):
                raise ModelError(
                    f"{path} is answered by {answer.outputs}, and should be by {[*golden.numbers]}"
                )
            continue
        label, probability = next(iter(answer.probabilities.items()))
        if label != golden.label or abs(probability - golden.probability) > GOLDEN_TOLERANCE:
            expected = f"{golden.label} {golden.probability:.3f}"
            raise ModelError(
                f"{path} is classified as {label} {probability:.3f}, and should be as {expected}"
            )


def predict_golden(path: Path, content: bytes, classifier: Classifier) -> "Answer":
    """The answer to the content of a golden file: a picture, or JSON with a row. Raises ModelError."""
    try:
        if classifier.manifest.kind == "tensor":
            return predict_row(from_json(content, classifier.manifest.input), classifier)
        return predict_picture(content, classifier, mode="auto", max_pixels=GOLDEN_PIXELS)
    except (PictureError, RowError) as error:
        raise ModelError(f"{path}: {error}") from error


def alike(found: Sequence[float], expected: Sequence[float]) -> bool:
    """Whether numbers differ by no more than GOLDEN_TOLERANCE allows."""
    most = GOLDEN_TOLERANCE * max(map(abs, expected), default=0.0)
    pairs = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(abs(one - other) <= most for one, other in pairs)


def _open(folder: Path, manifest: Manifest, runtime: Literal["onnx", "keras"], threads: int) -> Runtime:
    try:
        return _implementation(runtime)(folder, manifest, threads)
    except ImportError as error:
        export = manifest.current_export
        if runtime == "keras" and export is not None and not (folder / export.file).exists():
            restore = "copy it there (`git checkout weights` restores those of the project)"
            raise ModelError(f"{folder / export.file} is missing: {restore}, or install Keras") from error
        raise ModelError(f"The runtime {runtime} is not installed: {error}") from error


def _implementation(runtime: Literal["onnx", "keras"]) -> Callable[[Path, Manifest, int], Runtime]:
    if runtime == "onnx":
        # ONNX Runtime 1.29 and later send telemetry unless this is set before the import.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        return OnnxRuntime.of_model
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else it logs notes on the processor
    return KerasRuntime


class Answer(NamedTuple):
    """The prediction for a picture or a row. probabilities is sorted, highest first; mode is the one used.

    outputs: what a model without labels gives.
    """

    probabilities: dict[str, float]
    outputs: list[float]
    in_distribution: bool | None
    ood_score: float | None
    mode: str
    warnings: list[str]


def prepare_for(its: Manifest | Preparation, picture: bytes, *, mode: Mode, max_pixels: int) -> Prepared:
    """Prepares the picture in a file for a model. mode: for clothing. Raises PictureError."""
    declared, into = its if isinstance(its, Preparation) else its.preparation
    if isinstance(declared, ImagePreprocessing):
        return prepare_image(picture, declared, into, max_pixels=max_pixels)
    return prepare(picture, mode=mode, max_pixels=max_pixels)


def predict_picture(picture: bytes, classifier: Classifier, *, mode: Mode, max_pixels: int) -> Answer:
    """Prepares and classifies the picture in a file. Raises PictureError."""
    prepared = prepare_for(classifier.manifest, picture, mode=mode, max_pixels=max_pixels)
    found = _first(classifier.predict(prepared.pixels[None]), classifier.manifest, prepared.mode)
    return found._replace(warnings=warnings_of(prepared.warnings, found.ood_score))


def predict_row(row: Row, classifier: Classifier) -> Answer:
    """The prediction for numbers in the shape and type of the model's input. Raises RowError."""
    try:
        found = _first(classifier.infer(row[None]), classifier.manifest, TENSOR_MODE)
    except CannotRun as error:
        raise RowError(f"the model cannot compute these numbers: {error}") from error
    if not all(map(math.isfinite, (*found.probabilities.values(), *found.outputs))):
        raise RowError(NOT_FINITE)
    return found


def _first(predictions: Predictions, manifest: Manifest, mode: str) -> Answer:
    """The answer to the first input of a batch."""
    numbers, scores = as_floats(predictions.answers[0]), predictions.ood_scores
    score = None if scores is None else float(scores[0])
    if manifest.output == "numbers":
        return Answer({}, numbers, is_in_distribution(score), score, mode, [])
    ranked = sorted(zip(numbers, manifest.labels, strict=True), reverse=True)
    probabilities = {label: probability for probability, label in ranked}
    return Answer(probabilities, [], is_in_distribution(score), score, mode, [])


def as_floats(numbers: Output) -> list[float]:
    """Numbers of any type, those of float32 without the digits that float64 would add."""
    return [float(str(number)) for number in numbers]


def is_in_distribution(ood_score: float | None) -> bool | None:
    """Whether a picture with this score resembles the training pictures; None without a score."""
    return None if ood_score is None else ood_score <= 1


def warnings_of(preparing: Iterable[str], ood_score: float | None) -> list[str]:
    """Why the prediction may be wrong, in words for the user. preparing: those of Prepared."""
    return [*preparing, *([UNLIKE_CLOTHING] if is_in_distribution(ood_score) is False else [])]


# What it costs.


def fastest_ms(classifier: Classifier, count: int) -> float:
    """Milliseconds for so many inputs at once: the fastest of several runs."""
    batch, best = blank(classifier.manifest, count), math.inf
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        classifier.infer(batch)
        best = min(best, time.perf_counter() - started)
    return best * 1000


def cost(folder: Path) -> str:
    """What the model in a folder takes, on one thread, in a process of its own. Raises ModelError."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        one_ms, batch_ms, memory_mib = alone.submit(_measured, folder).result()
    what = "row" if manifests.read(folder).kind == "tensor" else "picture"
    memory = "" if memory_mib is None else f"; {memory_mib:.0f} MiB of memory"
    return (
        f"cost on one thread: {one_ms:.3g} ms for one {what}, {batch_ms / BATCH:.3g} ms each in a batch of "
        f"{BATCH}{memory}"
    )


def _measured(folder: Path) -> tuple[float, float, float | None]:
    """Milliseconds for one input and for a batch, and MiB that the model and its batch occupy at most."""
    import onnxruntime  # noqa: F401  # its own memory is no model's

    before = _peak_mib()
    classifier = load(folder.parents[1], folder.parent.name, "onnx", 1, folder.name)
    times = fastest_ms(classifier, 1), fastest_ms(classifier, BATCH)
    after = _peak_mib()
    return *times, None if before is None or after is None else after - before


def _peak_mib() -> float | None:
    """The most memory that this process has occupied; None where the system has no /proc."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None
