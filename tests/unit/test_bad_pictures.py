import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.decoding import ACCEPTED
from model.preprocessing import MODES, PictureError, prepare

MAX_PIXELS = 1_000_000
HEIC = Path(__file__).parents[1] / "data" / "sandal.heic"


def encode(image, kind="PNG", **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width, height):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def refused(picture):
    with pytest.raises(PictureError) as caught:
        prepare(picture, max_pixels=MAX_PIXELS)
    return str(caught.value)


def with_png_size(width, height):
    """A PNG whose header says so."""
    picture = bytearray(encode(noise(28, 28)))
    picture[16:24] = width.to_bytes(4) + height.to_bytes(4)
    picture[29:33] = zlib.crc32(picture[12:29]).to_bytes(4)
    return bytes(picture)


@pytest.mark.parametrize(
    "picture", [b"", b"\x89PNG\r\n\x1a\n", b"<!doctype html><html></html>", b"\xff\xd8\xff", b"\0" * 99]
)
def test_what_is_not_a_picture_is_refused(picture):
    assert refused(picture)


def test_what_is_wrong_is_said():
    assert refused(b"hello") == f"This is not a picture in {ACCEPTED}."
    assert "its end is missing" in refused(encode(noise(28, 28))[:-13])
    assert refused(encode(noise(28, 28), "JPEG")[:300]) == "The picture is damaged or incomplete."


@pytest.mark.parametrize("kind", ["PPM", "ICO", "JPEG2000"])
def test_other_formats_are_refused(kind):
    assert refused(encode(noise(300, 400), kind)) == f"This is not a picture in {ACCEPTED}."


@pytest.mark.parametrize(
    ("mode", "compression", "says"),
    [("1", "group4", "kind of TIFF"), ("RGB", "zstd", "kind of TIFF"), ("F", "raw", "8 bits per channel")],
)
def test_a_tiff_that_few_programs_write_is_refused_with_what_to_do(mode, compression, says):
    assert says in refused(encode(noise(300, 400).convert(mode), "TIFF", compression=compression))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "AVIF"])
def test_a_file_of_any_type_that_is_cut_off_or_too_large_is_refused(kind):
    whole = encode(noise(1200, 900), kind)
    assert "at most 1000000 are allowed" in refused(whole)
    assert "damaged or incomplete" in refused(encode(noise(300, 400), kind)[: -len(whole) // 40])


def test_heic_without_its_library_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    assert refused(HEIC.read_bytes()) == "HEIC cannot be read here without pi-heif. Save the picture as JPEG."


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_cut_in_half_is_refused(options):
    picture = encode(noise(300, 400), "JPEG", **options)
    assert "damaged or incomplete" in refused(picture[: len(picture) // 2])


@pytest.mark.parametrize("kind, mark", [("PNG", 12), ("JPEG", 2), ("WEBP", 0)])
def test_a_picture_cut_anywhere_before_the_mark_of_its_end_is_refused(kind, mark):
    picture = encode(noise(28, 28), kind)
    for end in range(len(picture) - mark):
        assert refused(picture[:end])
    for end in range(len(picture) - mark, len(picture)):
        prepared = prepare(picture[:end], max_pixels=MAX_PIXELS)
        assert prepared.warnings == ("picture cut off",)
        assert np.array_equal(prepared.pixels, prepare(picture, max_pixels=MAX_PIXELS).pixels)


def test_a_picture_with_a_flipped_bit_is_read_or_refused_and_nothing_else():
    random = np.random.default_rng(3)
    for kind in ("PNG", "JPEG", "WEBP"):
        picture = np.frombuffer(encode(noise(60, 80), kind), np.uint8)
        for place in random.integers(0, len(picture), 200):
            damaged = picture.copy()
            damaged[place] ^= 1 << random.integers(0, 8)
            try:
                prepare(damaged.tobytes(), mode="raw28", max_pixels=MAX_PIXELS)
            except PictureError:
                continue


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_refuses_what_is_damaged(mode):
    with pytest.raises(PictureError):
        prepare(encode(noise(60, 80), "JPEG")[:-200], mode=mode, max_pixels=MAX_PIXELS)


def test_the_first_frame_of_a_damaged_animation_is_refused_when_it_is_cut():
    frames = [noise(40, 40), noise(40, 40).rotate(90)]
    picture = encode(frames[0], save_all=True, append_images=frames[1:])
    assert refused(picture[:2000])


def test_a_hundred_megapixels_are_refused_by_the_header_alone():
    message = refused(with_png_size(10_000, 10_000))
    assert message == "The picture has 10000 x 10000 pixels; at most 1000000 are allowed."


def test_the_limit_itself_is_allowed():
    picture = encode(noise(300, 400))
    assert prepare(picture, max_pixels=300 * 400).pixels.shape == (28, 28)
    with pytest.raises(PictureError):
        prepare(picture, max_pixels=300 * 400 - 1)
