"""From photos to the folder of a model that serves: fine-tuned, calibrated, exported, measured, described.

python -m model.training.photo_model configs/clothing-photo.yaml
"""

import hashlib
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import msgspec
import numpy as np
import onnxruntime
import tensorflow as tf
from keras import layers, ops
from numpy.typing import NDArray

from model import manifest as manifests
from model.garment import Pictures
from model.manifest import Export, File, Golden, Manifest, ModelError, sha256
from model.runtimes import OnnxRuntime, Probabilities
from model.training import drawn_clothes, imagenet
from model.training.dataset import DatasetError, Labels
from model.training.evaluate import (
    confusion,
    fit_temperature,
    measure,
    top_accuracy,
    with_temperature,
)
from model.training.export import quantized, to_onnx
from model.training.figures import RECORD_FILE, Metrics
from model.training.fine_tuning import AT_ONCE, FineTuningSettings, learn, logits_of, read_settings
from model.training.learning import Progress, Report, TrainingError
from model.training.photo_variation import KEPT_SIDE, PREPROCESSING, Photos, input_of, read, seen, varied
from model.training.photos import read_folder

KERAS_FILE, ONNX_FILE = "model.keras", "model.onnx"
TEMPLATE = Path(__file__).with_name("photo_card.md")
CALIBRATION_PHOTOS = 256
FOLDS = 5
TIMED_RUNS = 60
GOLDEN_SEEDS = 12
"""How many drawings of a kind are tried for one that the model recognizes."""
GOLDEN_CONFIDENCE = 0.9
AGREEMENT = 0.98
"""Of the export and Keras, at least: a worse quantization is not written."""


class Measured(NamedTuple):
    """The figures of a model, on the photos that chose it; probabilities are those of the export."""

    metrics: Metrics
    unfitted_ece: float
    """Expected calibration error with temperatures fitted on other photos than it is measured on."""
    top2_accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    float32_accuracy: float
    agreement: float
    """The share of photos with the same answer in float32 and in 8-bit integers."""
    milliseconds: float
    """The time of one picture on one core, the best of many runs."""


def ship(
    settings: FineTuningSettings,
    progress: Progress,
    trained: keras.Model,
    photos: Photos,
    chosen_by: Photos,
    report: Report,
) -> Path:
    """Writes weights/<name>/<version>/ and the card beside it. Raises TrainingError."""
    temperature = fit_temperature(mean_logits(settings, trained, chosen_by.images), chosen_by.labels)
    network = to_serve(settings, trained, temperature)
    exported = to_onnx(network)
    calibration = calibration_photos(settings, photos)
    integers = quantized(exported, calibration)
    found = figures(settings, exported, integers, chosen_by)
    report(
        f"{found.metrics.accuracy:.2%} of {found.metrics.count} photos, calibration error "
        f"{found.metrics.ece:.2%} ({found.unfitted_ece:.2%} with temperatures of other photos), "
        f"float32 {found.float32_accuracy:.2%}, same answer {found.agreement:.2%}, "
        f"{len(integers) / 1e6:.2f} MB, {found.milliseconds:.1f} ms"
    )
    if found.agreement < AGREEMENT:
        raise TrainingError(
            f"8-bit integers change {1 - found.agreement:.2%} of the answers: train for longer"
        )
    folder = folder_of(settings)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    (new / "golden").mkdir(parents=True)
    network.save(new / KERAS_FILE)
    (new / ONNX_FILE).write_bytes(integers)
    golden = golden_pictures(settings, integers)
    for name, (picture, _) in golden.items():
        (new / name).write_bytes(picture)
    manifests.write(new, manifest(settings, new, found.metrics.accuracy, golden))
    (new / RECORD_FILE).write_bytes(
        msgspec.json.format(
            msgspec.json.encode(record(settings, progress, temperature, network, found)), indent=2
        )
        + b"\n"
    )
    (new / "card.md").write_text(card(settings, progress, temperature, network, found, new), encoding="utf-8")
    new.rename(folder)
    report(f"{folder} is written")
    return folder


def folder_of(settings: FineTuningSettings) -> Path:
    """Where the model will be. Raises TrainingError if it is there."""
    folder = Path(settings.weights_dir, settings.name, settings.version)
    if folder.exists():
        raise TrainingError(f"{folder} exists. Set another version, or remove the folder to train it again")
    return folder


def to_serve(settings: FineTuningSettings, trained: keras.Model, temperature: float) -> keras.Model:
    """The network by Keras's own layers, its answer the softmax of the logits divided by the temperature.

    Input: "pixels", uint8 (n, side, side, 3). If mirrored, features are the means over the picture and its
    mirror image. The layer "features" outputs float32 (n, 1280).
    """
    pixels = keras.Input((settings.side, settings.side, 3), dtype="uint8", name="pixels")
    both = ops.concatenate([pixels, ops.flip(pixels, axis=2)], axis=0) if settings.mirrored else pixels
    x = imagenet.features_to_serve(both)
    if settings.mirrored:
        x = ops.mean(ops.reshape(x, (2, -1, imagenet.HEAD)), axis=0)
    x = layers.Identity(name="features")(x)
    network = keras.Model(pixels, layers.Dense(len(settings.labels), "softmax", name="probabilities")(x))
    imagenet.fold(trained, network)
    kernel, bias = trained.get_layer("logits").get_weights()
    network.get_layer("probabilities").set_weights([kernel / temperature, bias / temperature])
    return network


def mean_logits(settings: FineTuningSettings, trained: keras.Model, images: Pictures) -> NDArray[np.float32]:
    """Over the pictures and their mirror images if mirrored, as the served network computes them."""
    views = (images, images[:, :, ::-1]) if settings.mirrored else (images,)
    logits: NDArray[np.float32] = np.mean([logits_of(trained, view) for view in views], axis=0)
    return logits


def calibration_photos(settings: FineTuningSettings, photos: Photos) -> Pictures:
    """Training photos that set the ranges of 8-bit integers, of every kind, varied as in training."""
    chosen = np.random.default_rng(settings.seed).permutation(len(photos.images))[:CALIBRATION_PHOTOS]
    some = Photos(photos.images[chosen], photos.labels[chosen])
    return varied(some, settings.side, settings.variation, (settings.seed, settings.epochs))


# Measuring.


def figures(settings: FineTuningSettings, exported: bytes, integers: bytes, chosen_by: Photos) -> Measured:
    """The figures of both exports."""
    before, after = (
        probabilities_of(OnnxRuntime(content, threads=0, file="the export"), chosen_by.images)
        for content in (exported, integers)
    )
    return Measured(
        metrics=measure(after, chosen_by.labels, settings.labels),
        unfitted_ece=unfitted_ece(after, chosen_by.labels, settings.labels, settings.seed),
        top2_accuracy=top_accuracy(after, chosen_by.labels, 2),
        confusion=confusion(after, chosen_by.labels),
        float32_accuracy=float((before.argmax(axis=1) == chosen_by.labels).mean()),
        agreement=float((before.argmax(axis=1) == after.argmax(axis=1)).mean()),
        milliseconds=milliseconds(integers, chosen_by.images[:1]),
    )


def probabilities_of(runtime: OnnxRuntime, images: Pictures) -> Probabilities:
    """(n, labels)."""
    parts = [runtime.run(images[at : at + AT_ONCE])[0] for at in range(0, len(images), AT_ONCE)]
    return np.concatenate(parts)


def unfitted_ece(probabilities: Probabilities, labels: Labels, names: tuple[str, ...], seed: int) -> float:
    """The calibration error if each fifth of the photos has the temperature that suits the others.

    The temperature of the model was fitted on these photos, and would make the error look too small.
    """
    fold = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    logits, moved = np.log(np.maximum(probabilities, 1e-30)), probabilities.copy()
    for number in range(FOLDS):
        temperature = fit_temperature(logits[fold != number], labels[fold != number])
        moved[fold == number] = with_temperature(probabilities[fold == number], temperature)
    return measure(moved, labels, names).ece


def milliseconds(exported: bytes, picture: Pictures) -> float:
    """The time of one picture on one core: the best of many runs, since others may use the core, too."""
    runtime = OnnxRuntime(exported, threads=1, file="the export")
    times = []
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        runtime.run(picture)
        times.append(time.perf_counter() - started)
    return round(min(times) * 1000, 2)


# The folder.


def golden_pictures(settings: FineTuningSettings, exported: bytes) -> dict[str, tuple[bytes, float]]:
    """A drawing of each kind that the model recognizes, as a file, and how probable it finds the kind.

    Whoever loads the model must get these answers from these files.
    """
    runtime, golden = OnnxRuntime(exported, threads=0, file="the export"), {}
    for kind in sorted(drawn_clothes.GARMENTS.keys() & set(settings.labels)):
        for seed in range(GOLDEN_SEEDS):
            picture = drawn_clothes.as_jpeg(drawn_clothes.draw(kind, seed))
            (row,) = runtime.run(seen(picture, settings.side)[None])[0]
            if settings.labels[row.argmax()] == kind and row.max() >= GOLDEN_CONFIDENCE:
                golden[f"golden/{kind}.jpg"] = picture, round(float(row.max()), 4)
                break
    return golden


def manifest(
    settings: FineTuningSettings, folder: Path, accuracy: float, golden: Mapping[str, tuple[bytes, float]]
) -> Manifest:
    """What serving has to know of the model, and the digests of its files."""
    keras_sha256 = digest(folder / KERAS_FILE)
    return Manifest(
        name=settings.name,
        version=settings.version,
        labels=settings.labels,
        input=input_of(settings.side),
        preprocessing=PREPROCESSING,
        output="probabilities",
        keras=File(file=KERAS_FILE, sha256=keras_sha256),
        onnx=Export(file=ONNX_FILE, sha256=digest(folder / ONNX_FILE), exported_from=keras_sha256),
        accuracy=round(accuracy, 4),
        golden=tuple(
            Golden(file=name, sha256=sha256(picture), label=Path(name).stem, probability=probability)
            for name, (picture, probability) in golden.items()
        ),
    )


def record(
    settings: FineTuningSettings,
    progress: Progress,
    temperature: float,
    network: keras.Model,
    found: Measured,
) -> dict[str, Any]:
    """How the model came to be, and its figures: nothing that serving needs."""
    return {
        "temperature": temperature,
        "parameters": network.count_params(),
        "figures": {**found._asdict(), "metrics": found.metrics},
        "best_epoch": progress.best_epoch,
        "history": progress.history,
        "settings": settings_without_folders(settings),
        "initial_weights": {
            "package": imagenet.PACKAGE,
            "sha256": imagenet.SHA256,
            "license": imagenet.LICENSE,
        },
        "photos_sha256": {
            "train": digest_of_photos(Path(settings.train_dir)),
            "choose": digest_of_photos(Path(settings.choose_dir)),
        },
        "processor": platform.machine(),
        "software": {
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def settings_without_folders(settings: FineTuningSettings) -> dict[str, Any]:
    """The settings but for where things are on the machine that trained it."""
    its: dict[str, Any] = msgspec.to_builtins(settings)
    return {name: value for name, value in its.items() if not name.endswith("_dir")}


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return sha256(path.read_bytes())


def digest_of_photos(folder: Path) -> str:
    """The SHA-256 over the kinds, names and contents of the photos in a folder, in order."""
    total = hashlib.sha256()
    for path in read_folder(folder):
        total.update(f"{path.parent.name}/{path.name} {digest(path)}\n".encode())
    return total.hexdigest()


def card(
    settings: FineTuningSettings,
    progress: Progress,
    temperature: float,
    network: keras.Model,
    found: Measured,
    folder: Path,
) -> str:
    """The model card: the template photo_card.md with these figures."""
    counts = np.array(found.confusion)
    rows = []
    for index, label in enumerate(settings.labels):
        others = {settings.labels[i]: n for i, n in enumerate(counts[index].tolist()) if n and i != index}
        mistaken = ", ".join(f"{name} ({n})" for name, n in sorted(others.items(), key=lambda each: -each[1]))
        rows.append(
            f"| {label} | {counts[index, index]} of {counts[index].sum()} | "
            f"{found.metrics.per_class[label]:.1%} | {mistaken or '–'} |"
        )
    epochs = progress.history
    return TEMPLATE.read_text(encoding="utf-8").format(
        settings=settings,
        labels=", ".join(settings.labels),
        found=found,
        error=(found.metrics.accuracy * (1 - found.metrics.accuracy) / found.metrics.count) ** 0.5,
        rows="\n".join(rows),
        temperature=temperature,
        parameters=network.count_params(),
        megabytes=(folder / ONNX_FILE).stat().st_size / 1e6,
        epochs=len(epochs),
        best_epoch=progress.best_epoch,
        blocks=max(0, settings.frozen_blocks - 1),
        minutes=sum(epoch.seconds for epoch in epochs) / 60,
        imagenet=imagenet,
        mirrored="yes" if settings.mirrored else "no",
    )


def main(arguments: list[str]) -> None:
    """Trains by the settings in a file, or goes on with an interrupted training, and writes the folder."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m model.training.photo_model configs/clothing-photo.yaml")
    try:
        settings = read_settings(Path(arguments[0]))
        folder_of(settings)  # before hours of training, not after them
        photos = read(Path(settings.train_dir), settings.labels, KEPT_SIDE)
        chosen_by = read(Path(settings.choose_dir), settings.labels, settings.side)
        progress, network = learn(settings, photos, chosen_by, say, progress_bar=sys.stdout.isatty())
        ship(settings, progress, network, photos, chosen_by, say)
    except (DatasetError, ModelError, TrainingError, imagenet.ImagenetError) as error:
        raise SystemExit(f"error: {error}") from error


def say(line: str) -> None:
    """Prints it at once, into a file, too."""
    print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
