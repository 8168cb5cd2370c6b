"""What a network takes, made of a picture or of numbers as its manifest declares.

A picture is turned upright by its EXIF orientation, put on white where it is transparent, and converted to
the input's channels: grey by the weights of ITU-R 601, or RGB. Then it is resized, and its values are scaled.

Numbers, a row of a table or a window of a signal, go to the network as they are. They come as the JSON that
POST /predict takes, {"inputs": [row]}, or as the bytes that a request carries over the broker:
little-endian, row by row.
"""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model.decoding import PictureError, open_upright
from model.garment import Pictures
from model.manifest import ImagePreprocessing, Input, PictureInput, PicturePreprocessing
from model.preprocessing import Prepared

IMAGE_MODE, TENSOR_MODE = "image", "tensor"
"""What an answer says of how the input was prepared."""

# Larger pictures are made smaller while they are decoded, which takes less time and memory. At least four
# times the size of the input is left, so that the declared resampling still decides.
WORKING_EDGE = 1024
TIMES_INPUT = 4

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SCALES = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (2 / 255, -1.0)}
"""Factor and offset of a value from 0 to 255."""


def prepare_image(
    picture: bytes, declared: ImagePreprocessing, into: PictureInput, *, max_pixels: int
) -> Prepared:
    """The picture in a file, in the size and with the channels of the input. Raises PictureError."""
    edge = max(WORKING_EDGE, TIMES_INPUT * max(into.width, into.height))
    try:
        upright = open_upright(picture, max_pixels=max_pixels, longest_edge=edge)
        pixels = resized(upright.image.convert("L" if into.channels == 1 else "RGB"), declared, into)
    except PictureError:
        raise
    except Exception as error:
        raise PictureError("The picture is damaged or incomplete.") from error
    small = ("picture very small",) if max(upright.image.size) * 2 < max(into.width, into.height) else ()
    return Prepared(pixels, IMAGE_MODE, (*small, *(("picture cut off",) if upright.cut_off else ())))


def resized(image: Image.Image, declared: ImagePreprocessing, into: PictureInput) -> Pictures:
    """The image in L or RGB, in the size of the input."""
    size, resampling = (into.width, into.height), RESAMPLING[declared.interpolation]
    match declared.resize:
        case "stretch":
            image = image.resize(size, resampling)
        case "fit":
            color = declared.border if into.channels == 1 else 3 * (declared.border,)
            image = ImageOps.pad(image, size, resampling, color)
        case "crop":
            image = image.resize(size, resampling, box=middle(image.size, size, declared.crop_fraction))
    values = np.asarray(image)
    return 255 - values if declared.invert else values


def middle(
    size: tuple[int, int], wanted: tuple[int, int], fraction: float
) -> tuple[float, float, float, float]:
    """The largest box in the middle that has the wanted proportions, its edges multiplied by fraction."""
    scale = fraction * min(size[0] / wanted[0], size[1] / wanted[1])
    width, height = wanted[0] * scale, wanted[1] * scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def as_input(pixels: Pictures, declared: PicturePreprocessing, into: PictureInput) -> NDArray[Any]:
    """The batch that the network takes: pixels (n, h, w) or (n, h, w, 3), scaled, their axes in order."""
    values: NDArray[Any] = pixels
    if into.dtype == "float32":
        factor, offset = SCALES[declared.scale]
        values = pixels.astype(np.float32) * np.float32(factor) + np.float32(offset)
        if isinstance(declared, ImagePreprocessing) and declared.mean:
            values = values - np.asarray(declared.mean, np.float32)
        if isinstance(declared, ImagePreprocessing) and declared.std:
            values = values / np.asarray(declared.std, np.float32)
    if into.channels == 3 and into.layout == "NCHW":
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return values.reshape(len(pixels), *into.shape)


Row = NDArray[Any]
"""In the shape and type of the model's input."""


class RowError(Exception):
    """The numbers are not what the model takes. The message is for the user."""


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: list[Any]


def from_json(content: bytes, into: Input) -> Row:
    """The only row of {"inputs": [row]}. Raises RowError."""
    wanted = f'the model takes {into.in_words}, as {{"inputs": [row]}}'
    try:
        (row,) = msgspec.json.decode(content, type=_Body).inputs
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RowError(f"{wanted}: {error}") from error
    except ValueError as error:
        raise RowError(f"{wanted}: there is more or less than one row") from error
    try:
        values = np.array(row)
    except ValueError as error:
        raise RowError(f"{wanted}: the rows differ in length") from error
    if values.shape != into.shape:
        raise RowError(f"{wanted}: the row has the shape {list(values.shape)}, not {list(into.shape)}")
    dtype = np.dtype(into.dtype)
    accepted = {"f": "fiu", "b": "b"}.get(dtype.kind, "iu")
    if values.dtype.kind not in accepted or not _in_range(values, dtype):
        raise RowError(f"{wanted}: a value is not one of {into.dtype}")
    return values.astype(dtype)


def _in_range(values: Row, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "b":
        return True
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return bool(values.min() >= limits.min and values.max() <= limits.max)


def from_bytes(content: bytes, into: Input) -> Row:
    """The row that these bytes are. Raises RowError."""
    dtype = np.dtype(into.dtype).newbyteorder("<")
    size = math.prod(into.shape) * dtype.itemsize
    if len(content) != size:
        raise RowError(f"the model takes {into.in_words}: {size} bytes, not {len(content)}")
    if dtype.kind == "b":
        values = np.frombuffer(content, np.uint8)
        if values.max() > 1:
            raise RowError(f"the model takes {into.in_words}: each is 0 or 1")
        return values.astype(np.bool_).reshape(into.shape)
    row = np.frombuffer(content, dtype).reshape(into.shape)
    if dtype.kind == "f" and not np.isfinite(row).all():
        raise RowError(f"the model takes {into.in_words}: NaN and infinity are not among them")
    return row.astype(into.dtype, copy=False)
