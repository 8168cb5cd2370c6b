"""From data to weights: `mlaas train`."""

from dataclasses import dataclass
from pathlib import Path

import keras
import msgspec
import numpy as np
from msgspec.structs import replace

from model import dataset, ood_fit
from model.arrays import Features, Pictures
from model.calibration import fit_temperature
from model.checkpoint import Checkpoints, Progress
from model.dataset import LABELS, Dataset
from model.evaluate import measure
from model.learning import Report, learn, mean_logits, untrained
from model.lessons import Split, varied
from model.manifest import Manifest, Metrics
from model.manifest import replace as write_file
from model.network import to_serve
from model.ood import Detector
from model.settings import TrainSettings
from model.ship import ship
from model.teaching import Teacher, teacher


@dataclass(frozen=True, slots=True)
class Run:
    """One training from one seed: its best epoch, calibrated, and measured on the test pictures."""

    settings: TrainSettings
    progress: Progress
    network: keras.Model
    temperature: float
    metrics: Metrics


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
    best = max(runs, key=lambda run: run.progress.best.held_out_accuracy)
    detector = fit_detector(best.network, parts, settings)
    manifest = ship(
        best.network, detector, best.metrics, best.temperature, best.progress, best.settings, weights_dir
    )
    keep_records(best, runs, Path(settings.reports_dir, settings.name))
    return manifest


def keep_records(best: Run, runs: list[Run], folder: Path) -> None:
    """Writes history.json, the epochs of the run that is shipped, and seeds.json, the result of every run."""
    folder.mkdir(parents=True, exist_ok=True)
    results = [
        {
            "seed": run.settings.seed,
            "accuracy": run.metrics.accuracy,
            "held_out_accuracy": run.progress.best.held_out_accuracy,
            "seconds": round(run.progress.wall_seconds, 1),
        }
        for run in runs
    ]
    for name, content in (("history", best.progress), ("seeds", results)):
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
    """All epochs from one seed. Raises TrainingError."""
    checkpoints = Checkpoints(settings)
    if done := checkpoints.progress().epochs_done:
        report(f"seed {settings.seed}: going on after epoch {done} of {settings.epochs}")
    progress = learn(settings, parts, checkpoints, report, taught_by, progress_bar=progress_bar)
    trained = untrained(settings)
    trained.load_weights(checkpoints.best(progress))
    temperature = fit_temperature(mean_logits(trained, parts.held_out_images), parts.held_out_labels)
    network = to_serve(settings.network, len(LABELS), trained, temperature)
    metrics = measure(network.predict(data.test_images, batch_size=256, verbose=0), data.test_labels, LABELS)
    report(
        f"seed {settings.seed}: test accuracy {metrics.accuracy:.2%} on {metrics.count} pictures, "
        f"epoch {progress.best_epoch}, held-out {progress.best.held_out_accuracy:.2%}"
    )
    return Run(settings, progress, network, temperature, metrics)


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


def fit_detector(network: keras.Model, parts: Split, settings: TrainSettings) -> Detector:
    """What knows the features of training pictures, plain and varied as in the first epoch."""
    reader = keras.Model(network.input, network.get_layer("features").output)

    def features(images: Pictures) -> Features:
        found: Features = reader.predict(images, batch_size=256, verbose=0)
        return found

    pictures = np.concatenate((parts.images, varied(parts, settings, 0, erase=True)))
    labels = np.concatenate((parts.labels, parts.labels))
    return ood_fit.fit(features, pictures, labels, parts.held_out_images)
