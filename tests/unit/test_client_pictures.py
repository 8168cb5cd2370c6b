"""What may be given as a picture."""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client import errors, pictures
from client.pictures import Upload
from tests.unit.driving import Driven
from tests.unit.gateways import SAMPLES, SANDAL


def pixels_of(upload: Upload) -> np.ndarray:
    with Image.open(io.BytesIO(upload.content)) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("shape", [(28, 28), (5, 9), (5, 9, 3)])
def test_an_array_becomes_a_picture_with_the_same_pixels(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(pixels_of(pictures.read(array)), array)
    assert np.array_equal(pixels_of(pictures.read(array[::-1])), array[::-1])


def test_an_array_may_have_its_one_channel_as_a_third_dimension() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    assert np.array_equal(pixels_of(pictures.read(array)), array[:, :, 0])


@pytest.mark.parametrize(
    "array",
    [np.zeros((28, 28)), np.zeros((3, 4, 4), np.uint8), np.zeros(9, np.uint8), np.zeros((0, 3), np.uint8)],
)
def test_an_array_that_is_no_picture_is_told_what_one_is(array: Any) -> None:
    with pytest.raises(errors.PictureUnreadable, match="an array is uint8"):
        pictures.read(array)


def test_a_path_bytes_a_file_and_an_image_are_pictures(tmp_path: Path) -> None:
    path = SAMPLES / "sandal.png"
    for given in (path, str(path), SANDAL, bytearray(SANDAL), io.BytesIO(SANDAL)):
        assert pictures.read(given).content == SANDAL  # type: ignore[arg-type]
    with path.open("rb") as file, Image.open(path) as image:
        assert pictures.read(file) == Upload(SANDAL, "sandal.png")
        assert np.array_equal(pixels_of(pictures.read(image)), np.asarray(image))


@pytest.mark.parametrize("given", ["nothing.png", io.StringIO("text"), 7, None, "", "nul\0.png"])
def test_what_is_no_picture_is_said_and_nothing_is_sent(given: Any) -> None:
    driven = Driven()
    with pytest.raises(errors.PictureUnreadable, match="cannot be read"):
        driven.run(driven.calls.predict(given))
    assert driven.attempts == []


def test_the_bytes_of_a_png_are_checked_by_its_checksums() -> None:
    content = pictures.read(np.zeros((2, 2), np.uint8)).content
    assert content.endswith(b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big"))
