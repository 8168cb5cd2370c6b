"""What may be given as a picture."""

import io
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlaas_client import errors, pictures
from mlaas_client.pictures import Upload
from model.decoding import open_upright
from tests.unit.driving import Driven
from tests.unit.gateways import SAMPLES, SANDAL


def pixels_of(upload: Upload) -> np.ndarray:
    with Image.open(io.BytesIO(upload.content)) as picture:
        return np.asarray(picture)


# Arrays.


@pytest.mark.parametrize("shape", [(28, 28), (5, 9), (5, 9, 2), (5, 9, 3), (5, 9, 4)])
def test_an_array_becomes_a_picture_with_the_same_pixels(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(pixels_of(pictures.read(array)), array)
    assert np.array_equal(pixels_of(pictures.read(array[::-1])), array[::-1])
    assert np.array_equal(pixels_of(pictures.read(np.asfortranarray(array))), array)


def test_an_array_may_have_its_one_channel_as_a_third_dimension() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    assert np.array_equal(pixels_of(pictures.read(array)), array[:, :, 0])


@pytest.mark.parametrize("kind", ["int8", "int64", ">i4", "uint16", "uint64", "float16", "float32", ">f8"])
def test_numbers_from_0_to_255_are_what_they_are_in_any_type(kind: str) -> None:
    array = np.arange(12).reshape(3, 4) * (10 if kind == "int8" else 23)
    assert np.array_equal(pixels_of(pictures.read(array.astype(kind))), array)


def test_floats_from_0_to_1_and_booleans_are_scaled() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4) * 23
    assert np.array_equal(pixels_of(pictures.read(array / 255)), array)
    assert np.array_equal(pixels_of(pictures.read(array > 100)), (array > 100) * 255)


def test_integers_above_255_are_16_bits() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4) * 5000
    assert np.array_equal(pixels_of(pictures.read(array)), array)
    colours = np.dstack([array] * 3).astype(np.uint16)
    content = pictures.read(colours).content
    assert (content[24], content[25]) == (16, 2)  # bits and colour type, which Pillow reads as 8
    assert np.array_equal(pixels_of(Upload(content)), colours >> 8)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 4, 5)), "channels last: array.transpose"),
        (np.zeros((1, 28, 28, 3)), "pass one of several pictures"),
        (np.zeros(9), "height x width"),
        (np.zeros((0, 3)), "height x width"),
        (np.full((3, 3), 300.0), "from 300 to 300: scale them to 0 to 1, or 0 to 255"),
        (np.full((3, 3), -1), "from -1 to -1: scale them to 0 to 255"),
        (np.full((3, 3), 70_000), "scale them to 0 to 255, or 0 to 65535"),
        (np.array([[0.0, np.nan]]), "nan"),
        (np.array([[0.0, np.inf]]), "inf"),
        (np.zeros((3, 3), complex), "integers, floats or booleans"),
        (np.full((3, 3), "a"), "integers, floats or booleans"),
    ],
)
def test_an_array_that_is_no_picture_is_told_what_one_is(array: Any, said: str) -> None:
    with pytest.raises(errors.PictureUnreadable, match=said):
        pictures.read(array)


# Pillow images.


def striped(side: int = 24) -> Image.Image:
    """Unlike itself however it is turned."""
    rows, columns = np.mgrid[0:side, 0 : side + 8]
    return Image.fromarray(np.dstack([rows * 9, columns * 7, (rows + columns) * 4]).astype(np.uint8))


def opened(image: Image.Image, kind: str = "PNG", **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer)


def seen(content: bytes) -> np.ndarray:
    """As the model's decoding has it."""
    return np.asarray(
        open_upright(content, max_pixels=10**7, longest_edge=10**4).image.convert("RGB")
    ).astype(int)


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_turned_as_its_file_says(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    image = opened(striped(), kind, exif=exif, **lossless)
    content = image.fp.getvalue()  # type: ignore[attr-defined]
    for its in (image, image.convert("RGB")):
        assert np.abs(seen(pictures.read(its).content) - seen(content)).max() <= 1


def test_an_image_with_damaged_exif_data_is_sent_as_it_is() -> None:
    image = opened(striped(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(seen(pictures.read(image).content), np.asarray(striped()))


IN_MODES = {
    **{mode: striped().convert(mode) for mode in ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")},
    **{mode: striped().convert(mode) for mode in ("L", "LA", "1", "P", "I", "F")},
    "PA": striped().convert("P").convert("PA"),
    "La": striped().convert("LA").convert("La"),
    "RGBa": striped().convert("RGBA").convert("RGBa"),
    "F, from 0 to 1": Image.fromarray(np.asarray(striped().convert("L"), np.float32) / 255),
}


@pytest.mark.parametrize("mode", IN_MODES)
def test_an_image_of_any_mode_is_sent(mode: str) -> None:
    image = IN_MODES[mode]
    kept = "1" if mode == "1" else "RGB" if image.mode not in ("L", "LA", "La", "I", "F") else "L"
    want = striped().convert(kept).convert("RGB")
    far = np.abs(seen(pictures.read(image).content) - np.asarray(want, int))
    assert far.mean() <= (20 if mode in ("P", "PA") else 1.5)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_an_image_of_16_bits_keeps_them(mode: str) -> None:
    values = np.arange(768, dtype=np.uint16).reshape(24, 32) * 85
    image = Image.frombytes(mode, (32, 24), values.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    assert np.array_equal(pixels_of(pictures.read(image)), values)
    assert np.array_equal(pixels_of(pictures.read(Image.fromarray(values.astype(np.int32)))), values)


def test_a_cmyk_jpeg_is_the_same_opened_as_by_its_bytes() -> None:
    image = opened(striped().convert("CMYK"), "JPEG", quality=95)
    content = image.fp.getvalue()  # type: ignore[attr-defined]
    assert np.array_equal(seen(pictures.read(image).content), seen(content))


@pytest.mark.parametrize("mode", ["P", "PA", "LA", "RGBA", "L", "RGB"])
def test_what_is_transparent_stays_so(mode: str) -> None:
    image = striped().convert("RGBA" if mode == "PA" else mode)
    if mode in ("LA", "RGBA", "PA"):
        image.putalpha(Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (24, 1))))
    else:
        image.info["transparency"] = {"P": image.getpixel((0, 0)), "L": 9, "RGB": (9, 0, 4)}[mode]
    want = np.asarray(image.convert("RGBA"))[..., 3]
    its = image.convert("P").convert("PA") if mode == "PA" else image
    if mode == "PA":
        want = np.asarray(its.convert("RGBA"))[..., 3]
    assert want.min() < 255
    with Image.open(io.BytesIO(pictures.read(its).content)) as sent:
        assert np.array_equal(np.asarray(sent.convert("RGBA"))[..., 3], want)


def test_a_large_image_is_sent_as_a_jpeg_that_a_gateway_has_room_for() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    large = Image.fromarray(noise).resize((1600, 1200))
    content = pictures.read(large).content
    assert len(content) < 1600 * 1200
    with Image.open(io.BytesIO(content)) as sent:
        assert sent.format == "JPEG"
        assert np.abs(np.asarray(sent).astype(int) - np.asarray(large)).mean() < 2


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (
            Image.fromarray(np.full((3, 3), -5, np.int32)),
            "from -5 to -5: scale them to 0 to 255, or 0 to 65535",
        ),
        (Image.fromarray(np.full((3, 3), 70_000, np.int32)), "to 70000: scale them"),
        (Image.fromarray(np.full((3, 3), 256, np.float32)), "scale them to 0 to 1, or 0 to 255"),
        (Image.fromarray(np.array([[1, np.nan, 2]], np.float32)), "not finite"),
        (Image.new("RGB", (0, 5)), "empty"),
        (Image.open(io.BytesIO(SANDAL[:200])), "cannot be read"),
    ],
)
def test_an_image_that_is_no_picture_is_told_what_one_is(image: Image.Image, said: str) -> None:
    with pytest.raises(errors.PictureUnreadable, match=said):
        pictures.read(image)


# Files.


def test_a_path_bytes_a_file_and_an_image_are_pictures(tmp_path: Path) -> None:
    path = SAMPLES / "sandal.png"
    for given in (path, str(path), SANDAL, bytearray(SANDAL), io.BytesIO(SANDAL)):
        assert pictures.read(given).content == SANDAL  # type: ignore[arg-type]
    with path.open("rb") as file, Image.open(path) as image:
        assert pictures.read(file) == Upload(SANDAL, "sandal.png")
        assert np.array_equal(pixels_of(pictures.read(image)), np.asarray(image))


def test_a_file_name_that_is_not_utf_8_is_sent_with_question_marks(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(SANDAL)
    with path.open("rb") as file:
        assert {pictures.read(its).filename for its in (path, str(path), file)} == {"caf?.png"}
    (entry,) = os.scandir(os.fsencode(tmp_path))
    assert pictures.read(entry) == Upload(SANDAL, "caf?.png")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["nothing.png", io.StringIO("text"), 7, None, "", "nul\0.png"])
def test_what_is_no_picture_is_said_and_nothing_is_sent(given: Any) -> None:
    driven = Driven()
    with pytest.raises(errors.PictureUnreadable, match="cannot be read"):
        driven.run(driven.calls.predict(given))
    assert driven.attempts == []


def test_the_bytes_of_a_png_are_checked_by_its_checksums() -> None:
    content = pictures.read(np.zeros((2, 2), np.uint8)).content
    assert content.endswith(b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big"))
