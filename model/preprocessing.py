"""From a picture file to what the network sees: uint8 (28, 28), grey, bright clothing on black.

The one way in, for training, evaluation and serving alike. What the modes do is in product.py and photo.py.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from model.arrays import Pictures
from model.decoding import PictureError, open_upright
from model.photo import cut_out
from model.product import SIDE, as_the_authors_did, border, fit, on_plain_ground, trim_box

__all__ = ["MODES", "Mode", "PictureError", "Prepared", "prepare"]

Mode = Literal["auto", "raw28", "product", "photo"]
"""raw28: as in the data set, at most resized and negated. product: the seven steps of the data set's authors.
photo: the garment is cut out of whatever is behind it. auto: whichever of them suits the picture."""

MODES: tuple[Mode, ...] = get_args(Mode)

WORKING_EDGE = 256
SMALL_EDGE = 2 * SIDE
DARK_MEAN = 40
BLACK = 8


class Prepared(NamedTuple):
    """What the network sees of a picture."""

    pixels: Pictures
    """uint8 (28, 28)."""
    mode: str
    """Which one was used: raw28, product or photo."""
    warnings: tuple[str, ...]
    """Why the prediction may be wrong, in a few words each."""


def prepare(picture: bytes, *, mode: Mode = "auto", max_pixels: int) -> Prepared:
    """The picture in a PNG, JPEG or WebP file, ready for the network. Raises PictureError."""
    try:
        image = open_upright(picture, max_pixels=max_pixels, longest_edge=WORKING_EDGE)
        return PREPARATIONS[suitable_mode(image) if mode == "auto" else mode](image)
    except PictureError:
        raise
    except Exception as error:
        raise PictureError("The picture is damaged or incomplete.") from error


def suitable_mode(image: Image.Image) -> Mode:
    """The mode for a picture in L or RGB."""
    if image.size == (SIDE, SIDE) or is_enlarged_raw28(image):
        return "raw28"
    return "product" if on_plain_ground(rgb(image)) else "photo"


def is_enlarged_raw28(image: Image.Image) -> bool:
    """Whether it looks like a picture of the data set made larger: square, grey, black around."""
    if image.width != image.height or np.median(border(grey(image))) > BLACK:
        return False
    return image.mode == "L" or bool(np.ptp(np.asarray(image), axis=2).max() <= BLACK)


def as_raw28(image: Image.Image) -> Prepared:
    """As it is, or negated if its border is bright; another size is fitted into 28x28, nothing trimmed."""
    if image.size == (SIDE, SIDE):
        return Prepared(bright_on_black(grey(image)), "raw28", ())
    scale = SIDE / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    small = image.convert("L").resize((width, height), Image.Resampling.BOX)
    bright = Image.fromarray(bright_on_black(np.asarray(small)))
    return Prepared(np.asarray(fit(bright, "black")), "raw28", doubts(image))


def as_product(image: Image.Image) -> Prepared:
    """The way of the data set's authors."""
    blank = () if trim_box(rgb(image)) else ("nothing but background",)
    return Prepared(as_the_authors_did(image.convert("RGB")), "product", doubts(image) + blank)


def as_photo(image: Image.Image) -> Prepared:
    """Cut out of what is behind it."""
    pixels, separable = cut_out(image.convert("RGB"))
    lost = () if separable else ("background not separable",)
    return Prepared(pixels, "photo", doubts(image) + lost)


PREPARATIONS = {"raw28": as_raw28, "product": as_product, "photo": as_photo}


def doubts(image: Image.Image) -> tuple[str, ...]:
    """What is wrong with the picture itself."""
    small = ("picture very small",) if max(image.size) < SMALL_EDGE else ()
    dark = ("picture too dark",) if grey(image).mean() < DARK_MEAN else ()
    return small + dark


def grey(image: Image.Image) -> Pictures:
    """Its lightness, (h, w), by the weights of ITU-R 601."""
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def rgb(image: Image.Image) -> Pictures:
    """Its colours, (h, w, 3)."""
    return np.asarray(image.convert("RGB"))


def bright_on_black(picture: Pictures) -> Pictures:
    """The picture, negated if its border is bright. On all 70,000 pictures of the data set this is right."""
    return 255 - picture if border(picture).mean() > 127 else picture
