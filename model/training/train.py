"""From data to weights: `mlaas train`."""

from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from model.arrays import Features, Pictures, Probabilities
from model.manifest import Manifest
from model.manifest import replace as write_file
from model.onnx_runtime import OnnxRuntime
from model.ood import Detector
from model.settings import TrainSettings
from model.training import dataset, ood_fit
from model.training.calibration import fit_temperature
from model.training.dataset import LABELS, Dataset
from model.training.ensemble import Run, learn_in_turn, mean_logits
from model.training.evaluate import measure
from model.training.export import quantized, to_onnx
from model.training.figures import History
from model.training.learning import Report
from model.training.lessons import Split, varied
from model.training.network import to_serve
from model.training.ship import ship
from model.training.teaching import Teacher, teacher

AT_ONCE = 256


def train(
    settings: TrainSettings, weights_dir: Path, report: Report, *, progress_bar: bool = True
) -> Manifest:
    """Trains, or goes on with a training that was interrupted; writes weights and records.

    Of several runs the best on the held-out pictures is shipped. The test pictures are used once in each, at
    its end. report gets one line of text at a time; the progress bar goes to standard output.
    Raises DatasetError, TrainingError, and ModelError if there is no such teacher.
    """
    data = limited(dataset.load(Path(settings.data_dir)), settings.limit_pictures)
    parts = split(data, settings)
    taught_by = teacher(settings, weights_dir)
    seeds = range(settings.seed, settings.seed + settings.runs)
    runs = [
        run(replace(settings, seed=seed, runs=1), data, parts, taught_by, report, progress_bar=progress_bar)
        for seed in seeds
    ]
    best = max(runs, key=lambda run: run.held_out_accuracy)
    detector = fit_detector(best.exported, parts, settings)
    manifest = ship(best, detector, weights_dir)
    keep_records(best, runs, Path(settings.reports_dir, settings.name))
    return manifest


def keep_records(best: Run, runs: list[Run], folder: Path) -> None:
    """Writes history.json, the epochs of the run that is shipped, and seeds.json, the result of every run."""
    folder.mkdir(parents=True, exist_ok=True)
    results = [
        {
            "seed": run.settings.seed,
            "accuracy": run.metrics.accuracy,
            "held_out_accuracy": run.held_out_accuracy,
            "seconds": round(run.wall_seconds, 1),
        }
        for run in runs
    ]
    for name, content in (("history", History(history=best.history)), ("seeds", results)):
        write_file(
            folder / f"{name}.json", msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        )


def run(
    settings: TrainSettings,
    data: Dataset,
    parts: Split,
    taught_by: Teacher | None,
    report: Report,
    *,
    progress_bar: bool,
) -> Run:
    """All epochs from one seed, and what is to be served. Raises TrainingError."""
    members = learn_in_turn(settings, parts, taught_by, report, progress_bar=progress_bar)
    logits = mean_logits(members, parts.held_out_images, mirrored=settings.network.mirrored)
    temperature = fit_temperature(logits, parts.held_out_labels)
    trained = [member.network for member in members]
    network = to_serve(settings.network, len(LABELS), trained, temperature)
    exported = quantized(to_onnx(network), varied(parts, settings, 0, erase=False))
    held_out, _ = answers(exported, parts.held_out_images)
    held_out_accuracy = float((held_out.argmax(axis=1) == parts.held_out_labels).mean())
    metrics = measure(answers(exported, data.test_images)[0], data.test_labels, LABELS)
    report(
        f"seed {settings.seed}: test accuracy {metrics.accuracy:.2%} on {metrics.count} pictures, "
        f"held-out {held_out_accuracy:.2%}"
    )
    return Run(settings, members, network, exported, temperature, held_out_accuracy, metrics)


def answers(exported: bytes, pictures: Pictures) -> tuple[Probabilities, Features]:
    """What the export makes of any number of pictures."""
    runtime = OnnxRuntime(exported, threads=0, file="the export")
    parts = [runtime.run(pictures[at : at + AT_ONCE]) for at in range(0, len(pictures), AT_ONCE)]
    probabilities, features = map(np.concatenate, zip(*parts, strict=True))
    return probabilities, features


def limited(data: Dataset, pictures: int) -> Dataset:
    """The first so many pictures of both sets; all of them for 0."""
    end = pictures or None
    return Dataset(
        data.train_images[:end], data.train_labels[:end], data.test_images[:end], data.test_labels[:end]
    )


def split(data: Dataset, settings: TrainSettings) -> Split:
    """The training set in two, the same way for the same data_seed."""
    out = dataset.held_out(data.train_labels, settings.validation_pictures, settings.data_seed)
    images, labels = data.train_images, data.train_labels
    return Split(images[~out], labels[~out], images[out], labels[out])


def fit_detector(exported: bytes, parts: Split, settings: TrainSettings) -> Detector:
    """What knows the features of training pictures, plain and varied as in the first epoch."""

    def features(images: Pictures) -> Features:
        return answers(exported, images)[1]

    pictures = np.concatenate((parts.images, varied(parts, settings, 0, erase=True)))
    labels = np.concatenate((parts.labels, parts.labels))
    return ood_fit.fit(features, pictures, labels, parts.held_out_images)
