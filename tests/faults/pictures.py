"""Pictures of which no two are alike, and what must be answered to each."""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.answer import grey_png
from mlaas.settings import load
from model import classifier
from model.preprocessing import prepare

_SLICE = Path(__file__).parents[2] / "tests" / "data" / "fashion-mnist-test-500.npz"
_AFTER_HEADER = 33  # of a PNG file: its signature and IHDR


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, the SHA-256 that its answer must carry, and the label."""

    content: bytes
    sha256: str
    label: str


class Pictures:
    """Test pictures, each with its number in a text chunk; labels from the same model, asked here."""

    def __init__(self) -> None:
        with np.load(_SLICE) as arrays:
            images = arrays["images"]
        self._files = [grey_png(image.tobytes(), 28) for image in images]
        settings = load(None, {}).model
        asked = classifier.load(Path(settings.weights_dir), settings.names[0], settings.runtime, threads=1)
        pixels = np.stack(
            [prepare(file, mode="auto", max_pixels=settings.max_pixels).pixels for file in self._files]
        )
        labels = asked.manifest.labels
        self._labels = [labels[row] for row in asked.predict(pixels).probabilities.argmax(axis=1)]

    def __call__(self, number: int, mark: bytes = b"") -> Picture:
        """Picture number so-and-so; mark is appended, where decoders ignore it."""
        which = number % len(self._files)
        content = with_text(self._files[which], f"number\0{number}".encode()) + mark
        return Picture(content, hashlib.sha256(content).hexdigest(), self._labels[which])


def with_text(png: bytes, text: bytes) -> bytes:
    """The PNG file with a text chunk (RFC 2083) after its header."""
    chunk = b"tEXt" + text
    whole = struct.pack(">I", len(text)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:_AFTER_HEADER] + whole + png[_AFTER_HEADER:]
