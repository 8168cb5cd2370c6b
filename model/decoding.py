"""Decodes picture files to upright pictures in grey or RGB, on white where they are transparent."""

import re
from collections.abc import Callable
from io import BytesIO
from math import ceil
from typing import NamedTuple

import numpy as np
from PIL import AvifImagePlugin, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from model.formats import (
    Found,
    PictureError,
    check_size,
    orientation_of,
    read_jpeg,
    read_png,
    read_webp,
)

__all__ = ["PictureError", "Upright", "open_upright"]

Reader = Callable[[bytes, int, int], Found]
"""Of the file, the most pixels, and the edge below which the picture must not be reduced."""

ACCEPTED = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
TIFF_COMPRESSIONS = (
    "raw",
    "packbits",
    "tiff_lzw",
    "tiff_adobe_deflate",
    "tiff_deflate",
    "jpeg",
)  # Pillow's names
DEEP_MODES = frozenset(("I;16", "I;16B", "I;16L", "I;16N"))
READABLE_MODES = DEEP_MODES | {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}

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
    """Decodes a picture file, reduced so that no edge is longer than longest_edge.

    An animation gives its first frame. Raises PictureError, and any error of Pillow's for a damaged file.
    """
    found = reader(picture)(picture, max_pixels, longest_edge)
    plain, opacity = made_smaller(found, longest_edge)
    turn = TURNS.get(found.orientation)
    if turn is not None:
        plain, opacity = plain.transpose(turn), opacity and opacity.transpose(turn)
    return Upright(plain, opacity, found.cut_off)


def reader(picture: bytes) -> Reader:
    """The function that reads files with these first bytes. Raises PictureError."""
    found = BEGINNING.match(picture)
    if found is None:
        raise PictureError(f"This is not a picture in {ACCEPTED}.")
    return READERS[(found.lastindex or 1) - 1][1]


def whole(opened: Callable[[BytesIO], ImageFile]) -> Reader:
    """A reader of a type that is decoded in full size; of several pictures, the first or the main one."""

    def read_whole(picture: bytes, max_pixels: int, _: int) -> Found:
        image = opened(BytesIO(picture))
        check_size(*image.size, max_pixels)
        image.load()
        check_size(*image.size, max_pixels)  # libheif finds the real size only now
        if image.mode not in READABLE_MODES:
            raise PictureError(f"Its pixels are of kind {image.mode}. Save it with 8 bits per channel.")
        if image.mode in DEEP_MODES:  # in any byte order
            return Found(Image.fromarray(np.asarray(image).astype(np.uint16)))
        return Found(image, orientation_of(image.info.get("exif") or b""))

    return read_whole


def opened_tiff(file: BytesIO) -> ImageFile:
    """Pillow turns the picture upright when it is loaded."""
    image = TiffImageFile(file)
    if image.info["compression"] not in TIFF_COMPRESSIONS:
        raise PictureError("This kind of TIFF cannot be read. Save it without compression, or as PNG.")
    return image


def opened_heif(file: BytesIO) -> ImageFile:
    """The file of a phone, with AV1 (AVIF) or HEVC (HEIC) inside."""
    box = int.from_bytes(file.read(4), "big")
    is_avif = re.search(rb"avi[fs]", file.read(min(box, 256)))
    file.seek(0)
    if is_avif:
        # The memory and the time of a decoder process are meant for one thread.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        return AvifImagePlugin.AvifImageFile(file)
    try:
        from pi_heif import options
        from pi_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise PictureError("HEIC cannot be read here without pi-heif. Save the picture as JPEG.") from error
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    found: ImageFile = HeifImageFile(file)
    return found


READERS = (
    (rb"\x89PNG\r\n\x1a\n", read_png),
    (rb"\xff\xd8\xff", read_jpeg),
    (rb"RIFF....WEBP", read_webp),
    (rb"GIF8[79]a", whole(GifImageFile)),
    (rb"BM", whole(BmpImageFile)),
    (rb"II\*\0|MM\0\*", whole(opened_tiff)),
    (rb"....ftyp(?:avi[fs]|hei[cmsx]|hev[cmsx]|mif1|msf1)", whole(opened_heif)),
)
BEGINNING = re.compile(b"|".join(b"(%s)" % beginning for beginning, _ in READERS), re.DOTALL)


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
