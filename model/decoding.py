"""From the bytes of a picture file to an upright picture, grey or RGB, white behind what is transparent."""

import warnings
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

PNG_END = b"IEND\xaeB`\x82"
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(ValueError):
    """Not a picture that can be used; the message is fit to show to whoever sent it."""


def open_upright(picture: bytes, *, max_pixels: int, longest_edge: int) -> Image.Image:
    """The picture in a PNG, JPEG or WebP file, mode L or RGB, made smaller if an edge is longer than that.

    Of an animation, the first frame. Raises PictureError, and whatever Pillow raises on a damaged file.
    """
    image = open_whole(picture, max_pixels, longest_edge)
    orientation = exif_orientation(image) if image.info else 1
    plain = grey_or_rgb(over_white(image))
    if max(plain.size) > longest_edge:
        plain.thumbnail((longest_edge, longest_edge), Image.Resampling.BOX)
    turn = TURNS.get(orientation)
    return plain if turn is None else plain.transpose(turn)


def open_whole(picture: bytes, max_pixels: int, longest_edge: int) -> ImageFile:
    """The picture, loaded; its size is checked before. Raises PictureError, and whatever Pillow raises."""
    image = reader(picture)(BytesIO(picture))
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(f"The picture has {width} x {height} pixels; at most {max_pixels} are allowed.")
    image.draft("RGB", (longest_edge, longest_edge))
    image.load()
    return image


def reader(picture: bytes) -> type[ImageFile]:
    """What reads this file, by its first bytes. Raises PictureError.

    Image.open would try other formats, and warn of large pictures in its own way.
    """
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        if PNG_END not in picture:  # Pillow reads such a file without complaint
            raise PictureError("The PNG picture is cut off: its end is missing.")
        return PngImageFile
    if picture.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        return WebPImageFile
    raise PictureError("This is not a PNG, JPEG or WebP picture.")


def exif_orientation(image: Image.Image) -> int:
    """1 (upright) to 8, as in the EXIF standard; 1 if the EXIF data cannot be read, as picture viewers do."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def over_white(image: Image.Image) -> Image.Image:
    """The picture in 8 bits a channel, with white behind what is transparent."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)


def grey_or_rgb(image: Image.Image) -> Image.Image:
    """The picture in mode L or RGB."""
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")
