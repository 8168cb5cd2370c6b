"""Finds, reads, verifies and splits Fashion-MNIST."""

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import TrainSettings
from model.garment import Pictures

LABELS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

Labels = NDArray[np.uint8]
"""(n,): indices into LABELS."""

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")

# Of the arrays, as corrected on 2017-08-31: .gz files differ by source.
DIGESTS = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}


class DatasetError(Exception):
    """A data set is missing or damaged. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """60,000 training pictures and 10,000 test pictures, with their labels."""

    train_images: Pictures
    train_labels: Labels
    test_images: Pictures
    test_labels: Labels

    def limited(self, pictures: int) -> "Dataset":
        """The first pictures of both parts; all for 0."""
        end = pictures or None
        return Dataset(
            self.train_images[:end], self.train_labels[:end], self.test_images[:end], self.test_labels[:end]
        )


@dataclass(frozen=True, slots=True)
class Split:
    """The training pictures, split into those to train on and those held out to choose the epoch."""

    images: Pictures
    labels: Labels
    held_out_images: Pictures
    held_out_labels: Labels


def load(data_dir: Path) -> Dataset:
    """Loads the data set from data_dir, else Debian's package, else a download. Raises DatasetError."""
    folder = find(data_dir, DEBIAN_DIR)
    arrays = download() if folder is None else read_folder(folder)
    check(arrays, DIGESTS, "the download" if folder is None else str(folder))
    return Dataset(*arrays.values())


def find(*folders: Path) -> Path | None:
    """The first folder with all four files, compressed or not; None if there is none."""
    return next((folder for folder in folders if all(_file(folder, name) for name in DIGESTS)), None)


def read_folder(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Reads the four arrays, by file name. Raises DatasetError."""
    return {name: read_idx(path) for name in DIGESTS if (path := _file(folder, name))}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an idx file, compressed with gzip or not. Raises DatasetError."""
    try:
        raw = path.read_bytes()
        return parse_idx(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DatasetError(f"{path} is damaged ({error}). Delete it and download it again.") from error


def parse_idx(raw: bytes) -> NDArray[np.uint8]:
    """Parses the content of an idx file. Raises ValueError."""
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError("not an idx file of bytes")
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">u4", count=dimensions, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def check(arrays: Mapping[str, NDArray[np.uint8]], digests: Mapping[str, str], source: str) -> None:
    """Raises DatasetError unless each array has its SHA-256 digest."""
    for name, array in arrays.items():
        if hashlib.sha256(array.tobytes()).hexdigest() != digests[name]:
            raise DatasetError(
                f"{name} from {source} is not Fashion-MNIST as published since August 2017. Delete it and "
                "download it again: github.com/zalandoresearch/fashion-mnist, folder data/fashion."
            )


def download() -> dict[str, NDArray[np.uint8]]:
    """Downloads the four arrays with Keras, which shows progress and caches files. Raises DatasetError."""
    import keras

    try:
        train, test = keras.datasets.fashion_mnist.load_data()
    except Exception as error:
        raise DatasetError(
            f"Fashion-MNIST could not be downloaded ({error}). Put its four files into the folder that the "
            "setting train.data_dir names, or install Debian's package dataset-fashion-mnist."
        ) from error
    return dict(zip(DIGESTS, (*train, *test), strict=True))


def split(data: Dataset, settings: TrainSettings) -> Split:
    """Splits the training pictures; data_seed determines the split."""
    out = held_out(data.train_labels, settings.validation_pictures, settings.data_seed)
    images, labels = data.train_images, data.train_labels
    return Split(images[~out], labels[~out], images[out], labels[out])


def held_out(labels: Labels, count: int, seed: int) -> NDArray[np.bool_]:
    """Which pictures to hold out: about count of them, the same share of each class, as bool (n,)."""
    random = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[random.permutation(members)[: round(count * len(members) / len(labels))]] = True
    return chosen


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
