import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from model.classifier import load
from model.preprocessing import MODES, bright_on_black, prepare

MAX_PIXELS = 4_000_000
SLICE = Path("tests/data/fashion-mnist-test-500.npz")


def encode(image, kind="PNG", **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def prepared(image, kind="PNG", mode="auto", **options):
    return prepare(encode(image, kind, **options), mode=mode, max_pixels=MAX_PIXELS)


def seen(image, kind="PNG", mode="auto", **options):
    return prepared(image, kind, mode, **options).pixels


def garment():
    """Grey, bright on black, nothing at the border."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[2:26, 8:20] = np.random.default_rng(1).integers(60, 256, (24, 12))
    return pixels


def product(size=(300, 400), box=(100, 50, 200, 350), colour="navy", background="#fdfdfd"):
    image = Image.new("RGB", size, background)
    image.paste(colour, box)
    return image


def on_a_shop_page(pixels):
    """A picture of the data set as it was before: dark on #fdfdfd, large, off-centre."""
    large = Image.fromarray(np.minimum(255 - pixels, 253)).resize((196, 196), Image.Resampling.BICUBIC)
    page = Image.new("RGB", (300, 400), "#fdfdfd")
    page.paste(large, (80, 30))
    return page


def test_a_28x28_picture_in_the_style_of_the_data_set_is_untouched():
    picture = prepared(Image.fromarray(garment()))
    assert np.array_equal(picture.pixels, garment())
    assert (picture.mode, picture.warnings) == ("raw28", ())


def test_a_28x28_picture_with_a_bright_border_is_negated():
    assert np.array_equal(seen(Image.fromarray(255 - garment())), garment())


def test_a_28x28_picture_in_colour_is_only_made_grey():
    assert np.array_equal(seen(Image.fromarray(garment()).convert("RGB")), garment())


def test_an_enlarged_picture_of_the_data_set_is_only_made_smaller_again():
    enlarged = Image.fromarray(garment()).resize((280, 280), Image.Resampling.NEAREST)
    for image in (enlarged, enlarged.convert("RGB")):
        picture = prepared(image)
        assert picture.mode == "raw28"
        assert np.abs(picture.pixels.astype(int) - garment()).max() <= 1


def test_raw28_fits_another_shape_in_without_trimming():
    picture = seen(product((100, 200), (40, 80, 60, 120), "black", "white"), mode="raw28")
    assert picture[:, :7].max() == 0
    assert picture[14, 14] > 200
    assert (picture[:9].max(), picture[19:].max()) == (0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_what_comes_out_is_28x28_bytes(mode):
    for image in (
        product(),
        product((28, 28), (5, 5, 20, 20)),
        product((1, 1), (0, 0, 1, 1)),
        product((2, 3), (0, 0, 1, 1), background="black"),
        product((3000, 2), (9, 0, 99, 2)),
        product((400, 3), (9, 0, 99, 2), background="green"),
    ):
        picture = seen(image, mode=mode)
        assert (picture.shape, picture.dtype) == ((28, 28), np.uint8)


def test_a_picture_on_a_plain_bright_background_goes_the_way_of_the_authors():
    assert prepared(product()).mode == "product"
    assert np.array_equal(seen(product()), seen(product(), mode="product"))


@pytest.mark.parametrize("background", ["black", "green", "saddlebrown"])
def test_a_picture_on_another_background_is_a_photo(background):
    picture = prepared(product(colour="white", background=background))
    assert picture.mode == "photo"
    assert picture.pixels[14, 14] > 100
    assert picture.pixels[14, 2] == 0


def test_a_product_picture_is_trimmed_and_its_longest_edge_fills_the_picture():
    rows, columns = np.nonzero(seen(product()) > 50)
    assert (rows.min(), rows.max()) == (0, 27)
    assert (columns.min(), columns.max()) == (9, 17)


def test_a_product_picture_becomes_bright_on_black():
    picture = seen(product())
    assert picture[14, 14] > 200
    assert picture[14, 2] == 0


def test_a_colour_within_five_percent_of_the_corners_is_trimmed():
    assert np.count_nonzero(seen(product(background=(240, 240, 240), colour=(250, 230, 240))) > 100) == 0


def test_a_picture_with_nothing_on_it_is_black_and_says_so():
    picture = prepared(product(colour="white", background="white"))
    assert picture.pixels.max() == 0
    assert picture.warnings == ("nothing but background",)


def test_what_may_spoil_the_prediction_is_said():
    assert prepared(product()).warnings == ()
    assert prepared(product((40, 50), (10, 10, 30, 40))).warnings == ("picture very small",)
    dark = prepared(product(colour=(30, 20, 20), background=(2, 2, 5)))
    assert "picture too dark" in dark.warnings


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_the_exif_data_is_applied(orientation):
    upright = product((300, 400), (60, 50, 120, 300))
    ImageDraw.Draw(upright).rectangle((60, 50, 180, 90), "navy")
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        assert np.array_equal(seen(stored, kind, exif=exif, **options), seen(upright))
    if orientation in undo:
        assert not np.array_equal(seen(stored), seen(upright))


def test_exif_data_that_cannot_be_read_is_ignored():
    assert np.array_equal(seen(product(), exif=b"Exif\0\0nonsense"), seen(product()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_jpeg_and_webp_are_read_like_png(kind):
    difference = seen(product(), kind, quality=95).astype(int) - seen(product())
    assert np.abs(difference).max() < 12


def test_a_large_jpeg_is_read_like_a_small_one():
    large = product((1500, 2000), (500, 250, 1000, 1750))
    difference = seen(large, "JPEG", quality=95).astype(int) - seen(product())
    assert np.abs(difference).max() < 40


def test_transparent_is_white():
    cut_out = product(background="black").convert("RGBA")
    cut_out.putalpha(Image.fromarray((np.asarray(cut_out)[:, :, 2] > 0).astype(np.uint8) * 255))
    assert np.array_equal(seen(cut_out), seen(product(background="white")))


def test_transparent_grey_is_white():
    cut_out = Image.new("LA", (300, 400), (0, 0))
    cut_out.paste((40, 255), (100, 50, 200, 350))
    solid = product(colour=(40, 40, 40), background="white")
    assert np.array_equal(seen(cut_out), seen(solid))


def test_a_palette_and_its_transparent_colour_are_understood():
    plain = product(background="white")
    assert np.array_equal(seen(plain.quantize(4)), seen(plain))
    clear = product(background="red").quantize(4)
    clear.info["transparency"] = clear.getpixel((0, 0))
    assert np.array_equal(seen(clear), seen(plain))


def test_a_palette_with_bytes_of_transparency_is_understood():
    clear = product(background="red").quantize(2)
    opacity = [255, 255]
    opacity[clear.getpixel((0, 0))] = 0
    assert np.array_equal(seen(clear, transparency=bytes(opacity)), seen(product(background="white")))


def test_sixteen_bits_are_scaled_not_cut():
    deep = Image.fromarray(garment().astype(np.uint16) * 257)
    assert np.array_equal(seen(deep), garment())


def test_black_and_white_pictures_are_understood():
    assert np.array_equal(seen(Image.fromarray(garment() > 0)), (garment() > 0) * np.uint8(255))


def test_cmyk_is_understood():
    """Pillow writes CMYK as Adobe does: inverted, with Adobe's marker."""
    file = encode(product().convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in file
    difference = prepare(file, max_pixels=MAX_PIXELS).pixels.astype(int) - seen(product())
    assert np.abs(difference).max() < 30


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_taken(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    frames = [product(colour=colour) for colour in ("navy", "olive")]
    moving = seen(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(moving, seen(frames[0]))


def test_the_border_tells_which_way_round_a_picture_is():
    assert np.array_equal(bright_on_black(garment()), garment())
    assert np.array_equal(bright_on_black(255 - garment()), garment())


@pytest.mark.parametrize("mode", ["auto", "product"])
def test_pictures_of_the_data_set_survive_a_shop_page(mode):
    with np.load(SLICE) as arrays:
        pictures, labels = arrays["images"], arrays["labels"]
    classifier = load(Path("weights"), "fashion-mnist", "onnx", 1)
    again = np.stack([seen(on_a_shop_page(picture), mode=mode) for picture in pictures])
    right = classifier.predict(again).answers.argmax(axis=1) == labels
    assert right.mean() >= 0.92


def cut_out(pixels, tone, margin=0):
    """A picture of the data set as a large garment of that lightness, without background, trimmed."""
    shape = Image.fromarray((pixels > 12).astype(np.uint8) * 255).resize((224, 224), Image.Resampling.NEAREST)
    texture = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC)).astype(int)
    grey = Image.fromarray(np.clip(tone(texture), 0, 255).astype(np.uint8))
    left, top, right, bottom = shape.getbbox()
    box = (left - margin, top - margin, right + margin, bottom + margin)
    picture = grey.convert("RGB").crop(box)
    picture.putalpha(shape.crop(box))
    return picture


def white(texture):
    return np.clip(225 + (texture - 128) * 25 // 128, 195, 255)


def dark(texture):
    return 255 - texture


def over(colour, picture):
    """The picture on a background."""
    ground = Image.new("RGBA", picture.size, colour)
    return Image.alpha_composite(ground, picture).convert("RGB")


@pytest.mark.parametrize(
    "kind, options", [("PNG", {}), ("WEBP", {"lossless": True}), ("WEBP", {"quality": 90})]
)
def test_a_white_garment_without_background_is_seen_like_one_on_another(kind, options):
    picture = cut_out(np.asarray(Image.open("samples/trouser.png").convert("L")), white, 20)
    there = prepared(picture, kind, **options)
    assert (there.mode, there.warnings) == ("photo", ())
    shape, on_grey = there.pixels > 60, seen(over((90, 90, 90), picture)) > 60
    assert (shape & on_grey).sum() > 0.85 * (shape | on_grey).sum()
    assert 100 < np.median(there.pixels[shape]) < 160


@pytest.mark.parametrize("margin", [0, 20])
def test_a_dark_garment_without_background_goes_the_way_of_the_authors(margin):
    picture = cut_out(np.asarray(Image.open("samples/dress.png").convert("L")), dark, margin)
    there = prepared(picture)
    assert there.mode == "product"
    assert np.array_equal(there.pixels, seen(over("white", picture), mode="product"))


def test_what_is_asked_for_is_done_without_a_background_too():
    picture = cut_out(np.asarray(Image.open("samples/dress.png").convert("L")), white, 30)
    rows = np.flatnonzero((seen(picture, mode="product") > 20).any(axis=1))
    assert (rows.min(), rows.max()) == (0, 27)
    dark_one = cut_out(np.asarray(Image.open("samples/dress.png").convert("L")), dark)
    difference = seen(dark_one, mode="photo").astype(int) - seen(dark_one, mode="product")
    assert np.abs(difference).mean() < 8
    assert prepared(dark_one, mode="photo").mode == "photo"


@pytest.mark.parametrize("side", [28, 280])
def test_raw28_puts_a_garment_without_background_on_black_and_makes_it_bright(side):
    garment_only = garment()
    garment_only[2:26, 8:20] = np.maximum(garment_only[2:26, 8:20], 140)
    alpha = np.where(garment_only > 0, 255, 0).astype(np.uint8)
    alpha[3:9, 8:11] = 0
    wanted = np.where(alpha > 0, garment_only, 0)
    for values in (garment_only, 255 - garment_only):
        picture = Image.fromarray(values)
        picture.putalpha(Image.fromarray(alpha))
        picture = picture.resize((side, side), Image.Resampling.NEAREST)
        assert np.abs(seen(picture, mode="raw28").astype(int) - wanted).max() <= 1


def test_half_transparent_pixels_are_half_as_bright_on_black():
    values = np.full((28, 28), 200, np.uint8)
    alpha = np.zeros((28, 28), np.uint8)
    alpha[5:20, 5:15] = 255
    alpha[20:24, 5:9] = 128
    picture = Image.fromarray(values)
    picture.putalpha(Image.fromarray(alpha))
    there = seen(picture)
    assert (there[10, 10], there[0, 0]) == (200, 0)
    assert abs(int(there[22, 6]) - 100) <= 1


@pytest.mark.parametrize("shape", ["circle", "card", "everything", "nothing", "speck", "veil"])
def test_transparency_that_is_not_of_a_garment_is_only_white(shape):
    photo = Image.effect_noise((200, 200), 60).convert("RGB")
    photo.paste("navy", (60, 50, 140, 150))
    opacity = Image.new("L", photo.size, 0)
    drawing = ImageDraw.Draw(opacity)
    if shape == "circle":
        drawing.ellipse((0, 0, 199, 199), 255)
    elif shape == "card":
        drawing.rounded_rectangle((10, 10, 189, 189), 20, 255)
    elif shape == "everything":
        drawing.rectangle((0, 0, 199, 197), 255)
    elif shape == "speck":
        drawing.rectangle((50, 50, 60, 70), 255)
        drawing.rectangle((50, 50, 55, 90), 255)
    elif shape == "veil":
        drawing.rectangle((0, 0, 199, 199), 100)
    photo.putalpha(opacity)
    assert np.array_equal(seen(photo), seen(over("white", photo)))


@pytest.mark.parametrize("tone, least", [(white, 0.78), (dark, 0.92)])
@pytest.mark.parametrize("margin", [0, 20])
def test_pictures_of_the_data_set_survive_being_cut_out(tone, least, margin):
    with np.load(SLICE) as arrays:
        pictures, labels = arrays["images"][:300], arrays["labels"][:300]
    classifier = load(Path("weights"), "fashion-mnist", "onnx", 1)
    again = np.stack([seen(cut_out(picture, tone, margin)) for picture in pictures])
    right = classifier.predict(again).answers.argmax(axis=1) == labels
    assert right.mean() >= least


@pytest.mark.parametrize("module", ["model.preprocessing", "model.classifier", "model.classifier"])
def test_no_runtime_is_loaded_by_importing(module):
    runtimes = {"keras", "tensorflow", "onnx", "onnxruntime"}
    check = f"import sys, {module}; assert not {runtimes} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
