"""The manifest of a model, weights/<name>.json: what is known of it, and the digests of its files."""

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec

from model.settings import TrainSettings

FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class ModelError(Exception):
    """The model cannot be served; the message says which file is wrong, and why."""


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How good the probabilities of count pictures are.

    accuracy: the share of pictures whose most probable class is right; per_class: of the pictures of each
    class. ece: expected calibration error over 15 bins of equal width; classwise_ece: the same for the
    probability of each class, averaged. nll: mean negative log likelihood, in nats. brier: mean squared
    error, summed over the classes.
    """

    accuracy: float
    per_class: dict[str, float]
    count: int
    ece: float
    classwise_ece: float
    nll: float
    brier: float


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model.

    input_shape: of one picture, uint8. onnx_from_sha256: digest of the .keras file that was exported.
    ood_file: the detector of model.ood. metrics: over the test pictures. temperature: what the logits are
    divided by. epochs: of all members together; best_epochs: of each member, counting from 1. Digests are
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
        """Whether the .onnx file was made from this .keras file."""
        return self.onnx_from_sha256 == self.keras_sha256


def path(weights_dir: Path, name: str) -> Path:
    """Where the manifest of the model of this name is."""
    return weights_dir / f"{name}.json"


def read(weights_dir: Path, name: str) -> Manifest:
    """The manifest of the model of this name. Raises ModelError."""
    place = path(weights_dir, name)
    try:
        return msgspec.json.decode(place.read_bytes(), type=Manifest)
    except OSError as error:
        raise ModelError(f"{place} cannot be read ({error.strerror}). Run: mlaas train") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{place} is not a model's manifest: {error}") from error


def write(weights_dir: Path, manifest: Manifest) -> None:
    """Writes weights/<name>.json in one step."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    replace(path(weights_dir, manifest.name), encoded + b"\n")


def verify(path: Path, digest: str) -> bytes:
    """The bytes of the file, once they have this SHA-256. Raises ModelError.

    To be called before anything looks into the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from error
    if sha256(content) != digest:
        raise ModelError(
            f"{path} is not the file that was trained: its SHA-256 is not the manifest's {digest}"
        )
    return content


def sha256(content: bytes) -> str:
    """The digest as the manifest has it: 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def replace(path: Path, content: bytes) -> None:
    """Writes the file in one step: a reader sees the old content or the new."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)
