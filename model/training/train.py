"""Trains a model and writes the files to serve it: `mlaas train`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image

from model import TrainSettings, recipe
from model import manifest as manifests
from model.classifier import Detector
from model.garment import Pictures
from model.manifest import Export, File, GarmentPreprocessing, Golden, Manifest, PictureInput, sha256
from model.runtimes import Features, OnnxRuntime
from model.training import dataset, figures, ood
from model.training.dataset import DIGESTS, LABELS, Dataset, Split
from model.training.evaluate import fit_temperature, in_batches, measure
from model.training.export import quantized, to_onnx
from model.training.figures import Epoch, History, Metrics, Record, Seed
from model.training.learning import Progress, Report, checkpoints_of, learn, logits_of, untrained
from model.training.lessons import Teacher, teacher, varied
from model.training.network import multiply_adds, to_serve

SEEDS_APART = 1000
"""The distance between the seeds of two members, above the number of runs."""


@dataclass(frozen=True, slots=True)
class Member:
    """A trained member: its progress, and the network with the weights of its best epoch."""

    progress: Progress
    network: keras.Model


@dataclass(frozen=True, slots=True)
class Run:
    """A training with one seed, calibrated on the held-out pictures.

    exported: the quantized ONNX file, to which held_out_accuracy and metrics refer. metrics: on the test
    pictures.
    """

    settings: TrainSettings
    members: list[Member]
    network: keras.Model
    exported: bytes
    temperature: float
    held_out_accuracy: float
    metrics: Metrics

    @property
    def history(self) -> tuple[Epoch, ...]:
        """The epochs of all members, member by member."""
        return tuple(epoch for member in self.members for epoch in member.progress.history)

    @property
    def seconds(self) -> float:
        """The total duration of the epochs."""
        return round(sum(epoch.seconds for epoch in self.history), 1)


def train(
    settings: TrainSettings, weights_dir: Path, report: Report, *, progress_bar: bool = True
) -> Manifest:
    """Trains, or resumes an interrupted training, and writes the model and its records.

    Ships the run that is best on the held-out pictures. Each run uses the test pictures once, at its end. The
    progress bar goes to standard output. Raises DatasetError, TrainingError, and ModelError if the teacher
    cannot be loaded.
    """
    data = dataset.load(Path(settings.data_dir)).limited(settings.limit_pictures)
    parts = dataset.split(data, settings)
    taught_by = teacher(settings, weights_dir)
    runs = [
        run(replace(settings, seed=seed, runs=1), data, parts, taught_by, report, progress_bar=progress_bar)
        for seed in range(settings.seed, settings.seed + settings.runs)
    ]
    best = max(runs, key=lambda run: run.held_out_accuracy)
    folder = weights_dir / settings.name / settings.version
    manifest = ship(best, fit_detector(best.exported, parts, settings), parts, folder)
    keep_records(best, runs, Path(settings.reports_dir, settings.name))
    return manifest


def run(
    settings: TrainSettings,
    data: Dataset,
    parts: Split,
    taught_by: Teacher | None,
    report: Report,
    *,
    progress_bar: bool,
) -> Run:
    """Trains all members with one seed and measures the export. Raises TrainingError."""
    members = [
        learned(alone(settings, number), parts, taught_by, report, progress_bar=progress_bar)
        for number in range(settings.network.members)
    ]
    logits = mean_logits(members, parts.held_out_images, mirrored=settings.network.mirrored)
    temperature = fit_temperature(logits, parts.held_out_labels)
    network = to_serve(settings.network, len(LABELS), [member.network for member in members], temperature)
    exported = quantized(to_onnx(network), varied(parts, settings, 0, erase=False))
    serving = OnnxRuntime(exported, threads=0, file="the export")
    held_out, _ = in_batches(serving.run, parts.held_out_images)
    held_out_accuracy = float((held_out.argmax(axis=1) == parts.held_out_labels).mean())
    metrics = measure(in_batches(serving.run, data.test_images)[0], data.test_labels, LABELS)
    report(
        f"seed {settings.seed}: test accuracy {metrics.accuracy:.2%} on {metrics.count} pictures, "
        f"held-out {held_out_accuracy:.2%}"
    )
    return Run(settings, members, network, exported, temperature, held_out_accuracy, metrics)


def alone(settings: TrainSettings, number: int) -> TrainSettings:
    """The settings of one member, counting from 0, as if it were the only one.

    Each member has its own initial weights, so that their mistakes differ.
    """
    return replace(
        settings,
        seed=settings.seed + SEEDS_APART * number,
        runs=1,
        epochs=settings.later_epochs if number else settings.epochs,
        later_epochs=0,
        network=replace(settings.network, members=1, mirrored=False),
    )


def learned(
    settings: TrainSettings, data: Split, taught_by: Teacher | None, report: Report, *, progress_bar: bool
) -> Member:
    """Trains one member for its remaining epochs. Raises TrainingError."""
    checkpoints = checkpoints_of(settings)
    progress = checkpoints.progress()
    if done := progress.epochs_done:
        report(f"seed {settings.seed}: resuming after epoch {done} of {settings.epochs}")
    if done < settings.epochs:
        progress = learn(settings, data, checkpoints, report, taught_by, progress_bar=progress_bar)
    network = untrained(settings)
    network.load_weights(checkpoints.best(progress))
    return Member(progress, network)


def mean_logits(members: Sequence[Member], images: Pictures, *, mirrored: bool) -> NDArray[np.float32]:
    """The mean logits of the members and, if mirrored, of mirror images: float32 (n, classes)."""
    views = (images, images[:, :, ::-1]) if mirrored else (images,)
    answers = [logits_of(member.network, view) for member in members for view in views]
    logits: NDArray[np.float32] = np.mean(answers, axis=0)
    return logits


def fit_detector(exported: bytes, parts: Split, settings: TrainSettings) -> Detector:
    """Fits the detector on the training pictures, as they are and augmented as in the first epoch."""
    serving = OnnxRuntime(exported, threads=0, file="the export")

    def features(images: Pictures) -> Features:
        return in_batches(serving.run, images)[1]

    pictures = np.concatenate((parts.images, varied(parts, settings, 0, erase=True)))
    labels = np.concatenate((parts.labels, parts.labels))
    return ood.fit(features, pictures, labels, parts.held_out_images)


def ship(run: Run, detector: Detector, parts: Split, folder: Path) -> Manifest:
    """Writes the model folder: its files, the record of the training, and last the manifest."""
    settings, network = run.settings, run.network
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    network.save(folder / "model.keras")
    keras_sha256, detecting = sha256((folder / "model.keras").read_bytes()), detector.to_bytes()
    height, width = network.input_shape[1:]
    record = Record(
        keras_sha256=keras_sha256,
        metrics=run.metrics,
        temperature=run.temperature,
        held_out_accuracy=run.held_out_accuracy,
        parameters=network.count_params(),
        multiply_adds=multiply_adds(network, settings.network),
        epochs=len(run.history),
        best_epochs=tuple(member.progress.best_epoch for member in run.members),
        wall_seconds=run.seconds,
        backend=run.members[0].progress.backend,
        settings=recipe(settings),
        data_sha256=DIGESTS,
        software={
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "onnx": onnx.__version__,
        },
    )
    manifest = Manifest(
        name=settings.name,
        version=settings.version,
        labels=LABELS,
        input=PictureInput(height=height, width=width, channels=1, dtype="uint8", layout="NHW"),
        preprocessing=GarmentPreprocessing(),
        output="probabilities",
        keras=File(file="model.keras", sha256=keras_sha256),
        onnx=Export(file="model.onnx", sha256=sha256(run.exported), exported_from=keras_sha256),
        detector=File(file="detector.npz", sha256=sha256(detecting)),
        golden=tuple(golden(run.exported, parts, folder)),
        accuracy=run.metrics.accuracy,
        served=settings.served,
    )
    manifests.replace(folder / "model.onnx", run.exported)
    manifests.replace(folder / "detector.npz", detecting)
    manifests.replace(folder / figures.RECORD_FILE, figures.encode(record))
    manifests.write(folder, manifest)
    return manifest


def golden(exported: bytes, parts: Split, folder: Path) -> Iterator[Golden]:
    """Writes a picture of each label: of the held-out ones, the first that is classified correctly."""
    probabilities, _ = in_batches(OnnxRuntime(exported, 0, "the export").run, parts.held_out_images)
    answers = probabilities.argmax(axis=1)
    for index, label in enumerate(LABELS):
        right = np.flatnonzero((answers == index) & (parts.held_out_labels == index))
        if not right.size:
            continue
        name = f"golden/{re.sub(r'[^a-z]+', '-', label.lower())}.png"
        file = BytesIO()
        Image.fromarray(parts.held_out_images[right[0]]).save(file, "PNG", optimize=True)
        manifests.replace(folder / name, file.getvalue())
        probability = round(float(probabilities[right[0], index]), 4)
        yield Golden(file=name, sha256=sha256(file.getvalue()), label=label, probability=probability)


def keep_records(shipped: Run, runs: Sequence[Run], folder: Path) -> None:
    """Writes history.json with the epochs of the shipped run, and seeds.json with the results of all."""
    folder.mkdir(parents=True, exist_ok=True)
    results = [
        Seed(
            seed=each.settings.seed,
            accuracy=each.metrics.accuracy,
            held_out_accuracy=each.held_out_accuracy,
            seconds=each.seconds,
        )
        for each in runs
    ]
    manifests.replace(folder / "history.json", figures.encode(History(history=shipped.history)))
    manifests.replace(folder / "seeds.json", figures.encode(results))
