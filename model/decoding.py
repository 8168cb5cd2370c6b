"""Decodes picture files to upright pictures in grey or RGB, on white where they are transparent."""

from math import ceil
from typing import NamedTuple

import numpy as np
from PIL import Image

from model.formats import Found, PictureError, read

__all__ = ["PictureError", "Upright", "open_upright"]

BAND_PIXELS = 1 << 20
REDUCING_GAP = 2.0  # as in Pillow's thumbnail(): reduce by an integer factor, then resize exactly
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Upright(NamedTuple):
    """A decoded picture."""

    image: Image.Image
    """In mode L or RGB, on a white background."""
    opacity: Image.Image | None
    """In mode L: 255 is opaque, 0 is transparent. None if the whole picture is opaque."""
    cut_off: bool
    """Whether the end of the file is missing, which cost at most a tenth of the picture."""


def open_upright(picture: bytes, *, max_pixels: int, longest_edge: int) -> Upright:
    """Decodes a PNG, JPEG or WebP file, reduced so that no edge is longer than longest_edge.

    An animation gives its first frame. Raises PictureError, and any error of Pillow's for a damaged file.
    """
    found = read(picture, max_pixels, longest_edge)
    plain, opacity = made_smaller(found, longest_edge)
    turn = TURNS.get(found.orientation)
    if turn is not None:
        plain, opacity = plain.transpose(turn), opacity and opacity.transpose(turn)
    return Upright(plain, opacity, found.cut_off)


def made_smaller(found: Found, longest_edge: int) -> tuple[Image.Image, Image.Image | None]:
    """Image and opacity as in Upright, with no edge longer than longest_edge.

    Modes that Pillow cannot reduce are converted in bands, so that no second copy in full size exists.
    """
    image = found.image
    if max(image.size) <= longest_edge:
        return over_white(found)
    size = fitting_size(image.width, image.height, longest_edge)
    if image.mode in ("L", "RGB") and not found.key:
        return image.resize(size, Image.Resampling.BOX, reducing_gap=REDUCING_GAP), None
    across, down = (int(edge / new / REDUCING_GAP) or 1 for edge, new in zip(image.size, size, strict=True))
    reduced = (-(-image.width // across), -(-image.height // down))
    plain, opacity = Image.new("RGB", reduced), Image.new("L", reduced, 255)
    rows = max(1, BAND_PIXELS // (image.width * down)) * down
    for top in range(0, image.height, rows):
        band = (0, top, image.width, min(image.height, top + rows))
        lower_bytes = found.lower_bytes and found.lower_bytes.crop(band)
        colours, seen = over_white(found._replace(image=image.crop(band), lower_bytes=lower_bytes))
        plain.paste(colours.reduce((across, down)), (0, top // down))
        if seen is not None:
            opacity.paste(seen.reduce((across, down)), (0, top // down))
    used = (0, 0, image.width / across, image.height / down)
    plain, opacity = (one.resize(size, Image.Resampling.BOX, used) for one in (plain, opacity))
    return plain, None if opacity.getextrema() == (255, 255) else opacity


def fitting_size(width: int, height: int, longest_edge: int) -> tuple[int, int]:
    """The size with this longest edge and the closest aspect ratio, computed as in Pillow's thumbnail()."""
    aspect = width / height
    if aspect <= 1:
        exact = longest_edge * aspect
        nearest = min(int(exact), ceil(exact), key=lambda edge: abs(aspect - edge / longest_edge))
        return max(1, nearest), longest_edge
    exact = longest_edge / aspect
    nearest = min(int(exact), ceil(exact), key=lambda edge: edge and abs(aspect - longest_edge / edge))
    return longest_edge, max(1, nearest)


def over_white(found: Found) -> tuple[Image.Image, Image.Image | None]:
    """Image and opacity as in Upright, at full size."""
    image = found.image
    if found.key:
        return without_key(found)
    if image.mode == "I;16":  # Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)), None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opacity = image.getchannel("A")
        if opacity.getextrema() != (255, 255):
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=opacity)
            return white, opacity
    if image.mode in ("L", "RGB"):
        return image, None
    return image.convert("L" if image.mode in ("1", "LA") else "RGB"), None


def without_key(found: Found) -> tuple[Image.Image, Image.Image]:
    """Image and opacity of a picture with a transparent colour: white and transparent where it occurs."""
    image = found.image.convert("L") if found.image.mode == "1" else found.image
    upper = np.asarray(image)
    layers = [np.atleast_3d(upper)]
    if found.lower_bytes is not None:
        layers.append(np.asarray(found.lower_bytes))
    channels = [layer[..., channel] for layer in layers for channel in range(layer.shape[2])]
    opaque = np.zeros(upper.shape[:2], bool)
    for channel, value in zip(channels, found.key, strict=True):
        opaque |= channel != value
    plain = (upper >> 8 if image.mode == "I;16" else upper).astype(np.uint8)
    plain[~opaque] = 255
    return Image.fromarray(plain), Image.fromarray(np.where(opaque, np.uint8(255), np.uint8(0)))
