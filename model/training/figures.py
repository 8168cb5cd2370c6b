"""The figures of a model, as stored in reports/<model>/*.json. Shares and accuracies are fractions."""

from pathlib import Path
from typing import TypeVar

import msgspec

from model import TrainSettings
from model.manifest import ModelError

Figures = TypeVar("Figures")

RECORD_FILE = "training.json"


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The quality of the probabilities for count pictures. Accuracies and errors are fractions.

    accuracy: top-1 accuracy; per_class: the same for each class. ece: expected calibration error, with 15
    bins of equal width; classwise_ece: the same per class, averaged. nll: mean negative log-likelihood, in
    nats. brier: Brier score, summed over the classes.
    """

    accuracy: float
    per_class: dict[str, float]
    count: int
    ece: float
    classwise_ece: float
    nll: float
    brier: float


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The training of a model: training.json, beside its manifest.

    keras_sha256 identifies the weights. metrics: on the test pictures. temperature: divides the logits.
    epochs: the sum over all members; best_epochs: for each member, counting from 1. data_sha256: of the
    decompressed arrays.
    """

    keras_sha256: str
    metrics: Metrics
    temperature: float
    held_out_accuracy: float
    parameters: int
    multiply_adds: int
    epochs: int
    best_epochs: tuple[int, ...]
    wall_seconds: float
    backend: str = "tensorflow"
    settings: TrainSettings
    data_sha256: dict[str, str]
    software: dict[str, str]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The calibration of probabilities; Metrics explains each field."""

    ece: float
    classwise_ece: float
    nll: float
    brier: float


class Robustness(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy on corrupted pictures: for each corruption, by level from mild to severe.

    clean: accuracy on the same pictures without corruption. mean: the mean over corruptions of the mean over
    their levels.
    """

    count: int
    clean: float
    mean: float
    corruptions: dict[str, tuple[float, ...]]


class OodFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How well the detector separates an out-of-distribution set from the test pictures.

    auroc: the probability that a picture of the set scores above a test picture. false_positive_rate: the
    share of the set with a score of at most 1, which passes as clothing. count: the size of the set.
    """

    auroc: float
    false_positive_rate: float
    count: int


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The figures of a model on the test pictures: metrics.json.

    keras_sha256 identifies the weights. before_temperature: without dividing the logits. macs: multiply-adds
    per picture. confusion: counts of pictures, a row for each label and a column for each prediction. ood:
    the figures of each out-of-distribution set, by name.
    """

    model: str
    version: str
    keras_sha256: str
    runtime: str
    accuracy: float
    top2_accuracy: float
    count: int
    ece: float
    classwise_ece: float
    nll: float
    brier: float
    temperature: float
    before_temperature: Calibration
    macs: int
    parameters: int
    per_class: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    robustness: Robustness | None = None
    ood: dict[str, OodFigures] | None = None


class Right(msgspec.Struct, frozen=True, kw_only=True):
    """How many photos of a kind got a label that counts as right."""

    right: int
    total: int
    accuracy: float


class Flagged(msgspec.Struct, frozen=True, kw_only=True):
    """How many photos of a kind scored above 1, as out of distribution."""

    flagged: int
    total: int


class PhotoFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a model on a folder of photos: photos.json.

    baseline: accuracy with simpler preparation of the photos. per_kind: the kinds that the model knows. ood:
    the kinds that it does not know; also auroc, the probability that a photo of these scores above one of a
    known kind, and known_flagged, the share of known kinds that scores above 1. modes, warnings: counts.
    """

    model: str
    version: str
    keras_sha256: str
    accuracy: float
    right: int
    total: int
    baseline: dict[str, float]
    per_kind: dict[str, Right]
    ood: dict[str, Flagged | float]
    modes: dict[str, int]
    warnings: dict[str, int]


class Epoch(msgspec.Struct, frozen=True):
    """An epoch of training. Losses are in nats."""

    loss: float
    accuracy: float
    held_out_loss: float
    held_out_accuracy: float
    seconds: float


class History(msgspec.Struct, frozen=True):
    """The epochs of the shipped run: history.json."""

    history: tuple[Epoch, ...]


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """A run with one of several seeds: an entry of seeds.json."""

    seed: int
    accuracy: float
    held_out_accuracy: float
    seconds: float


def read_record(folder: Path) -> Record:
    """Reads the record of the training of the model in this folder. Raises ModelError if there is none."""
    record = read(folder / RECORD_FILE, Record)
    if record is None:
        raise ModelError(f"{folder} has no {RECORD_FILE}: how the model was trained is not recorded")
    return record


def read(path: Path, kind: type[Figures]) -> Figures | None:
    """Reads figures from a file; None if it does not exist. Raises ModelError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ModelError(f"{path} has unexpected content ({error}). Delete it and write it again.") from error


def encode(figures: object) -> bytes:
    """The JSON content of a file with these figures."""
    return msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n"
