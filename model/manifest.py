"""The manifest of a model, weights/<name>.json: how it was trained, and the digests of its files."""

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec

from model.settings import TrainSettings

FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class ModelError(Exception):
    """The model cannot be loaded. The message names the file and the cause."""


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


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model, its files and its training.

    input_shape: of one picture, uint8. onnx_from_sha256: digest of the .keras file that the export was made
    from. ood_file: the detector of model.ood. metrics: on the test pictures. temperature: the divisor of the
    logits. epochs: the sum over all members; best_epochs: for each member, counting from 1. Digests are
    SHA-256; those of the data are of the decompressed arrays.
    """

    name: FileName
    version: str
    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    keras_file: FileName
    keras_sha256: Digest
    onnx_file: FileName
    onnx_sha256: Digest
    onnx_from_sha256: Digest
    ood_file: FileName
    ood_sha256: Digest
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

    def has_current_export(self) -> bool:
        """Whether the .onnx file was exported from the current .keras file."""
        return self.onnx_from_sha256 == self.keras_sha256


def path(weights_dir: Path, name: str) -> Path:
    """The path of the manifest of a model."""
    return weights_dir / f"{name}.json"


def read(weights_dir: Path, name: str) -> Manifest:
    """Reads the manifest of a model. Raises ModelError."""
    place = path(weights_dir, name)
    try:
        return msgspec.json.decode(place.read_bytes(), type=Manifest)
    except OSError as error:
        raise ModelError(f"{place} cannot be read ({error.strerror}). Run: mlaas train") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{place} is not a model's manifest: {error}") from error


def write(weights_dir: Path, manifest: Manifest) -> None:
    """Writes the manifest atomically."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    replace(path(weights_dir, manifest.name), encoded + b"\n")


def verify(path: Path, digest: str) -> bytes:
    """Reads a file whose SHA-256 digest must be this one. Raises ModelError.

    Call it before parsing the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from error
    if sha256(content) != digest:
        raise ModelError(
            f"{path} is not the file that was trained: its SHA-256 digest is not {digest}, as in the manifest"
        )
    return content


def sha256(content: bytes) -> str:
    """The SHA-256 digest as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def replace(path: Path, content: bytes) -> None:
    """Writes a file atomically: a reader sees either the old content or the new."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)
