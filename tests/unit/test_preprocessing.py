import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from model.preprocessing import bright_on_black, decode

MAX_PIXELS = 1_000_000


def encode(image, kind="PNG", **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def seen(image, kind="PNG", **options):
    return decode(encode(image, kind, **options), max_pixels=MAX_PIXELS)


def garment():
    """Grey, bright on black, nothing at the border."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[2:26, 8:20] = np.random.default_rng(1).integers(60, 256, (24, 12))
    return pixels


def photo(size=(300, 400), box=(100, 50, 200, 350), colour="navy", background="#fdfdfd"):
    image = Image.new("RGB", size, background)
    image.paste(colour, box)
    return image


def test_a_28x28_picture_in_the_style_of_the_data_set_is_untouched():
    assert np.array_equal(seen(Image.fromarray(garment())), garment())


def test_a_28x28_picture_with_a_bright_border_is_negated():
    assert np.array_equal(seen(Image.fromarray(255 - garment())), garment())


def test_a_28x28_picture_in_colour_is_only_made_grey():
    assert np.array_equal(seen(Image.fromarray(garment()).convert("RGB")), garment())


def test_what_comes_out_is_28x28_bytes():
    for image in (
        photo(),
        photo((28, 28), (5, 5, 20, 20)),
        photo((1, 1), (0, 0, 1, 1)),
        photo((3000, 2), (9, 0, 99, 2)),
    ):
        picture = seen(image)
        assert (picture.shape, picture.dtype) == ((28, 28), np.uint8)


def test_a_photo_is_trimmed_and_its_longest_edge_fills_the_picture():
    rows, columns = np.nonzero(seen(photo()) > 50)
    assert (rows.min(), rows.max()) == (0, 27)
    assert (columns.min(), columns.max()) == (9, 17)


def test_a_photo_becomes_bright_on_black():
    picture = seen(photo())
    assert picture[14, 14] > 200
    assert picture[14, 2] == 0


def test_a_colour_within_five_percent_of_the_corners_is_trimmed():
    assert np.count_nonzero(seen(photo(background=(240, 240, 240), colour=(250, 230, 240))) > 100) == 0


def test_a_photo_with_nothing_on_it_is_black():
    assert seen(photo(colour="white", background="white")).max() == 0


def test_the_orientation_in_the_exif_data_is_applied():
    upright = photo((300, 400), (100, 50, 160, 350))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(seen(turned, exif=exif), seen(upright))
    assert not np.array_equal(seen(turned), seen(upright))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_jpeg_and_webp_are_read_like_png(kind):
    difference = seen(photo(), kind, quality=95).astype(int) - seen(photo())
    assert np.abs(difference).max() < 12


def test_transparent_is_white():
    cut_out = photo(background="black").convert("RGBA")
    cut_out.putalpha(Image.fromarray((np.asarray(cut_out)[:, :, 2] > 0).astype(np.uint8) * 255))
    assert np.array_equal(seen(cut_out), seen(photo(background="white")))


def test_a_palette_and_its_transparent_colour_are_understood():
    plain = photo(background="white")
    assert np.array_equal(seen(plain.quantize(4)), seen(plain))
    clear = photo(background="red").quantize(4)
    clear.info["transparency"] = clear.getpixel((0, 0))
    assert np.array_equal(seen(clear), seen(plain))


def test_a_palette_with_bytes_of_transparency_is_understood():
    clear = photo(background="red").quantize(2)
    opacity = [255, 255]
    opacity[clear.getpixel((0, 0))] = 0
    assert np.array_equal(seen(clear, transparency=bytes(opacity)), seen(photo(background="white")))


def test_sixteen_bits_are_scaled_not_cut():
    deep = Image.fromarray(garment().astype(np.uint16) * 257)
    assert np.array_equal(seen(deep), garment())


def test_black_and_white_pictures_are_understood():
    assert np.array_equal(seen(Image.fromarray(garment() > 0)), (garment() > 0) * np.uint8(255))


def test_cmyk_is_understood():
    difference = seen(photo().convert("CMYK"), "JPEG", quality=95).astype(int) - seen(photo())
    assert np.abs(difference).max() < 30


def test_the_first_frame_of_an_animation_is_taken():
    frames = [photo(colour=colour) for colour in ("navy", "olive")]
    moving = seen(frames[0], save_all=True, append_images=frames[1:])
    assert np.array_equal(moving, seen(frames[0]))


def test_the_border_tells_which_way_round_a_picture_is():
    assert np.array_equal(bright_on_black(garment()), garment())
    assert np.array_equal(bright_on_black(255 - garment()), garment())


@pytest.mark.parametrize("module", ["model.preprocessing", "model.classifier", "model.predict"])
def test_no_runtime_is_loaded_by_importing(module):
    runtimes = {"keras", "tensorflow", "onnx", "onnxruntime"}
    check = f"import sys, {module}; assert not {runtimes} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
