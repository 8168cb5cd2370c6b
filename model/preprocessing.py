"""Prepares a picture file for the network: uint8 (28, 28), grey, bright clothing on black.

Training, evaluation and serving share this path. The modes are implemented in product.py and photo.py.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from model.decoding import PictureError, open_upright
from model.formats import plain_pixels
from model.garment import (
    OPAQUE,
    SIDE,
    Pictures,
    as_the_authors_did,
    border,
    box_around,
    cut_out,
    cut_out_by,
    fit,
    is_cut_out,
    on_plain_ground,
    trim_box,
)

__all__ = ["MODES", "Mode", "PictureError", "Prepared", "prepare"]

Mode = Literal["auto", "raw28", "product", "photo"]
"""raw28: like a picture of the data set, only resized and inverted if necessary. product: the steps of the
data set's authors. photo: cuts the garment out of its background. auto: selects one of these.

If transparency separates garment and background, product trims to the opaque pixels, photo takes them as the
mask, and raw28 puts them on black."""

MODES: tuple[Mode, ...] = get_args(Mode)

WORKING_EDGE = 256
SMALL_EDGE = 2 * SIDE
DARK_MEAN = 40
WHITE_MEDIAN = 60  # photo, which brightens them, serves lighter clothes better than product
BLACK = 8


class Prepared(NamedTuple):
    """A picture as the network sees it."""

    pixels: Pictures
    """uint8 (h, w) or (h, w, 3): (28, 28) for clothing."""
    mode: str
    """How it was prepared: raw28, product or photo, or image."""
    warnings: tuple[str, ...]
    """Why the prediction may be wrong, in words for the user."""


def prepare(picture: bytes, *, mode: Mode = "auto", max_pixels: int) -> Prepared:
    """Prepares the picture in a file. Raises PictureError."""
    if mode in ("auto", "raw28") and max_pixels >= SIDE * SIDE:
        plain = plain_pixels(picture, SIDE)
        if plain is not None:
            return Prepared(bright_plain(plain), "raw28", ())
    try:
        image, transparency, cut_off = open_upright(picture, max_pixels=max_pixels, longest_edge=WORKING_EDGE)
        opacity = None if transparency is None else np.asarray(transparency)
        if opacity is not None and not is_cut_out(opacity):
            opacity = None
        used = suitable_mode(image, opacity) if mode == "auto" else mode
        prepared = PREPARATIONS[used](image, opacity)
        return prepared._replace(warnings=(*prepared.warnings, "picture cut off")) if cut_off else prepared
    except PictureError:
        raise
    except Exception as error:
        raise PictureError("The picture is damaged or incomplete.") from error


def suitable_mode(image: Image.Image, opacity: Pictures | None) -> Mode:
    """Selects the mode for a picture in L or RGB. opacity, if any, is of a garment without background."""
    if image.size == (SIDE, SIDE):
        return "raw28"
    if opacity is not None:
        return "photo" if darkness(grey(image), opacity) < WHITE_MEDIAN else "product"
    if is_enlarged_raw28(image):
        return "raw28"
    return "product" if on_plain_ground(rgb(image)) else "photo"


def is_like_the_data_set(picture: bytes, *, max_pixels: int) -> bool:
    """Whether auto would take a picture for one of the data set, enlarged or not. Raises PictureError."""
    try:
        image, transparency, _ = open_upright(picture, max_pixels=max_pixels, longest_edge=WORKING_EDGE)
        opacity = None if transparency is None else np.asarray(transparency)
        return suitable_mode(image, opacity) == "raw28"
    except PictureError:
        raise
    except Exception as error:
        raise PictureError("The picture is damaged or incomplete.") from error


def is_enlarged_raw28(image: Image.Image) -> bool:
    """Whether a picture looks like one of the data set enlarged: square, grey, with a black border."""
    if image.width != image.height or np.median(border(grey(image))) > BLACK:
        return False
    return image.mode == "L" or bool(np.ptp(np.asarray(image), axis=2).max() <= BLACK)


def as_raw28(image: Image.Image, opacity: Pictures | None) -> Prepared:
    """Fits a picture of another size into 28x28 without trimming, and inverts it if its border is bright.

    A garment without background goes on black, inverted if it is dark.
    """
    if image.size == (SIDE, SIDE):
        return Prepared(bright_on_black(grey(image), opacity), "raw28", ())
    scale = SIDE / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)

    def small(values: Pictures) -> Pictures:
        return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BOX))

    bright = bright_on_black(small(grey(image)), None if opacity is None else small(opacity))
    return Prepared(np.asarray(fit(Image.fromarray(bright), "black")), "raw28", doubts(image))


def as_product(image: Image.Image, opacity: Pictures | None) -> Prepared:
    """Prepares a picture as the authors of the data set did."""
    box = trim_box(rgb(image)) if opacity is None else box_around(opacity >= OPAQUE)
    blank = () if box else ("nothing but background",)
    return Prepared(as_the_authors_did(image.convert("RGB"), box), "product", doubts(image) + blank)


def as_photo(image: Image.Image, opacity: Pictures | None) -> Prepared:
    """Cuts the garment out of its background."""
    if opacity is not None:
        return Prepared(cut_out_by(opacity >= OPAQUE, image), "photo", doubts(image))
    pixels, separable = cut_out(image.convert("RGB"))
    lost = () if separable else ("background not separable",)
    return Prepared(pixels, "photo", doubts(image) + lost)


PREPARATIONS = {"raw28": as_raw28, "product": as_product, "photo": as_photo}


def doubts(image: Image.Image) -> tuple[str, ...]:
    """Warnings about the picture itself."""
    small = ("picture very small",) if max(image.size) < SMALL_EDGE else ()
    dark = ("picture too dark",) if grey(image).mean() < DARK_MEAN else ()
    return small + dark


def grey(image: Image.Image) -> Pictures:
    """The luma of a picture by ITU-R 601: (h, w)."""
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def rgb(image: Image.Image) -> Pictures:
    """The colours of a picture: (h, w, 3)."""
    return np.asarray(image.convert("RGB"))


def bright_on_black(picture: Pictures, opacity: Pictures | None = None) -> Pictures:
    """Inverts a picture if its border is bright, which is right for all 70,000 pictures of the data set.

    With the opacity of a garment without background, it makes the garment bright and the rest black.
    """
    if opacity is None:
        return 255 - picture if border(picture).mean() > 127 else picture
    if darkness(picture, opacity) > 127:
        return 255 - picture
    return np.maximum(picture, 255 - opacity) - (255 - opacity)  # replaces the white background by black


def bright_plain(pixels: bytes) -> Pictures:
    """As bright_on_black() for the bytes of a 28x28 picture, in a tenth of the time."""
    edges = pixels[:SIDE], pixels[-SIDE:], pixels[SIDE:-SIDE:SIDE], pixels[2 * SIDE - 1 : -SIDE : SIDE]
    picture = np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)
    edge = b"".join(edges)
    return 255 - picture if sum(edge) > 127 * len(edge) else picture


def darkness(picture: Pictures, opacity: Pictures) -> float:
    """The median darkness of the opaque pixels, from 0 (white) to 255."""
    return float(np.median(255 - picture[opacity >= min(OPAQUE, opacity.max())]))
