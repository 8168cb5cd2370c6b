"""From picture files to the arrays of image classifiers, compared with arrays worked out here."""

from io import BytesIO
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from PIL import Image

from model.inputs import as_input, middle, prepare_image
from model.manifest import ImagePreprocessing, PictureInput
from model.preprocessing import PictureError

PLAIN = ImagePreprocessing(resize="stretch", scale="0..255")
RGB = PictureInput(height=4, width=6, channels=3, dtype="uint8", layout="NHWC")
GREY = PictureInput(height=4, width=6, channels=1, dtype="uint8", layout="NHW")


def file(pixels, kind="PNG", **options):
    out = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, np.uint8))
    image.save(out, kind, **options)
    return out.getvalue()


class Found(NamedTuple):
    values: np.ndarray
    shown: np.ndarray
    warnings: tuple[str, ...]


def prepared(picture, into=RGB, max_pixels=10**6, **declared):
    declared = msgspec.structs.replace(PLAIN, **declared)
    found = prepare_image(picture, declared, into, max_pixels=max_pixels)
    (values,) = as_input(found.pixels[None], declared, into)
    return Found(values, found.pixels, found.warnings)


@pytest.fixture
def noise():
    return np.random.default_rng(5).integers(0, 256, (4, 6, 3), np.uint8)


def test_a_picture_of_the_right_size_is_taken_as_it_is(noise):
    found = prepared(file(noise))
    assert (found.values == noise).all()
    assert (found.shown == noise).all()
    assert found.warnings == ()


@pytest.mark.parametrize(("layout", "axes"), [("NHWC", (0, 1, 2)), ("NCHW", (2, 0, 1))])
def test_the_axes_are_in_the_order_of_the_layout(noise, layout, axes):
    into = msgspec.structs.replace(RGB, layout=layout)
    found = prepared(file(noise), into)
    assert found.values.shape == into.shape
    assert (found.values == noise.transpose(axes)).all()
    assert found.values.flags.c_contiguous


@pytest.mark.parametrize(("layout", "shape"), [("NHW", (4, 6)), ("NHWC", (4, 6, 1)), ("NCHW", (1, 4, 6))])
def test_grey_is_the_weighted_sum_of_the_colours(noise, layout, shape):
    found = prepared(file(noise), msgspec.structs.replace(GREY, layout=layout))
    assert found.values.shape == shape
    weighted = noise @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found.values.reshape(4, 6) - weighted).max() <= 1


def test_a_grey_picture_has_three_equal_channels_for_a_network_of_colours(noise):
    found = prepared(file(noise[..., 0]))
    assert (found.values == noise[..., :1]).all()


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"scale": "0..255"}, lambda x: x),
        ({"scale": "0..1"}, lambda x: x / 255),
        ({"scale": "-1..1"}, lambda x: x / 127.5 - 1),
        ({"scale": "0..1", "invert": True}, lambda x: (255 - x) / 255),
        (
            {"scale": "0..1", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
            lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        ),
        ({"scale": "0..255", "mean": (100.0, 110.0, 120.0)}, lambda x: x - [100.0, 110.0, 120.0]),
    ],
)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_values_are_scaled_as_declared(noise, declared, expected, layout):
    into = msgspec.structs.replace(RGB, dtype="float32", layout=layout)
    found = prepared(file(noise), into, **declared)
    assert found.values.dtype == np.float32
    wanted = expected(noise.astype(np.float64))
    np.testing.assert_allclose(
        found.values, wanted if layout == "NHWC" else wanted.transpose(2, 0, 1), atol=1e-5
    )
    assert found.shown.dtype == np.uint8


def halves(width, height):
    """Black on the left, white on the right."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2 :] = 255
    return picture


def test_stretch_changes_the_proportions():
    found = prepared(file(halves(60, 10)))
    assert (found.values[:, :2] == 0).all()
    assert (found.values[:, -2:] == 255).all()


def test_fit_keeps_them_and_adds_a_border():
    found = prepared(file(np.full((10, 60, 3), 200)), resize="fit", border=7, interpolation="area")
    inside = (found.values == 200).all(axis=2)
    assert inside.sum() == 6  # 60 x 10 fits as 6 x 1
    assert (found.values[~inside] == 7).all()


def test_crop_takes_the_middle():
    picture = np.full((4, 18, 3), 9)
    picture[:, 6:12] = 200
    assert (prepared(file(picture), resize="crop").values == 200).all()


def test_crop_may_leave_out_an_edge():
    picture = np.full((80, 120, 3), 9)
    picture[10:70, 15:105] = 200
    found = prepared(file(picture), resize="crop", crop_fraction=0.75, interpolation="nearest")
    assert (found.values == 200).all()


@pytest.mark.parametrize(
    ("size", "fraction", "box"),
    [
        ((6, 4), 1.0, (0, 0, 6, 4)),
        ((12, 4), 1.0, (3, 0, 9, 4)),
        ((6, 8), 1.0, (0, 2, 6, 6)),
        ((60, 40), 0.5, (15, 10, 45, 30)),
    ],
)
def test_the_box_in_the_middle_has_the_proportions_of_the_input(size, fraction, box):
    assert middle(size, (6, 4), fraction) == pytest.approx(box)


def test_the_camera_s_orientation_is_undone():
    upright = halves(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the file's rows are the picture's columns
    turned = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    assert (prepared(file(turned, exif=exif)).values == prepared(file(upright)).values).all()


def test_what_is_transparent_is_white():
    picture = np.zeros((4, 6, 4), np.uint8)
    picture[:, :3, 3] = 255
    found = prepared(file(picture))
    assert (found.values[:, :3] == 0).all()
    assert (found.values[:, 3:] == 255).all()


def test_a_large_photo_is_close_to_what_resizing_it_at_once_gives():
    rows, columns = np.mgrid[0:2000, 0:3000]
    waves = 127 + 60 * np.sin(rows / 300) + 60 * np.cos(columns / 200)
    picture = np.repeat(waves.astype(np.uint8)[..., None], 3, axis=2)
    into = PictureInput(height=64, width=64, channels=3, dtype="uint8", layout="NHWC")
    at_once = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR))
    found = prepared(file(picture, "JPEG", quality=95), into, max_pixels=10**7)
    assert np.abs(found.values.astype(int) - at_once).mean() < 1


def test_a_picture_far_smaller_than_the_input_has_a_warning():
    assert prepared(file(np.zeros((2, 2, 3)))).warnings == ("picture very small",)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", file(np.zeros((9, 9)))[:-20]])
def test_what_cannot_be_decoded_is_refused(content):
    with pytest.raises(PictureError):
        prepared(content)


def test_a_picture_of_too_many_pixels_is_refused():
    with pytest.raises(PictureError, match="pixels"):
        prepared(file(np.zeros((50, 50))), max_pixels=2_499)


def test_a_batch_is_scaled_at_once(noise):
    into = msgspec.structs.replace(RGB, dtype="float32", layout="NCHW")
    declared = msgspec.structs.replace(PLAIN, scale="-1..1", mean=(0.1, 0.2, 0.3))
    batch = as_input(np.stack([noise, 255 - noise]), declared, into)
    assert batch.shape == (2, *into.shape)
    for one, pixels in zip(batch, (noise, 255 - noise), strict=True):
        assert (one == as_input(pixels[None], declared, into)[0]).all()
