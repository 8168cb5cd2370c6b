"""Turning paths, bytes, files, Pillow images and arrays into uploads. Imports neither Pillow nor NumPy."""

import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias

from mlaas_client.errors import PictureUnreadable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

Picture: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image | NDArray[Any]"
Row: TypeAlias = "Sequence[Any] | NDArray[Any]"

_ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_WITH_ALPHA = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
_JPEG_PIXELS = 1 << 20  # PNG of larger images takes seconds, and may exceed the gateway's limit
_JPEG_EDGE = 65_500
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's, by number of channels


class Upload(NamedTuple):
    content: bytes
    filename: str = "picture"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def read(picture: Picture) -> Upload:
    """Raises PictureUnreadable."""
    try:
        return _read(picture)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PictureUnreadable(f"the picture cannot be read: {reason}") from error


def _read(picture: Any) -> Upload:
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return Upload(bytes(picture))
    if isinstance(picture, (str, os.PathLike)):
        path = Path(os.fsdecode(picture))
        return Upload(path.read_bytes(), _sendable(path.name))
    if hasattr(picture, "save") and hasattr(picture, "mode"):
        return Upload(_of_image(picture))
    if hasattr(picture, "tobytes") and hasattr(picture, "shape"):
        return Upload(_of_array(picture))
    content = picture.read() if hasattr(picture, "read") else None
    if not isinstance(content, bytes):
        raise ValueError(f"{type(picture).__name__} is not a path, bytes, binary file, Pillow image or array")
    return Upload(content, _sendable(os.path.basename(str(getattr(picture, "name", "")))) or "picture")


def _sendable(name: str) -> str:
    """Replaces bytes that are not UTF-8, which a form cannot carry."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _of_image(image: Any) -> bytes:
    """A PNG or JPEG file of a Pillow image, turned upright."""
    try:
        image = _in_a_mode_of_png(_upright(image))
        buffer = io.BytesIO()
        if _is_for_jpeg(image):
            image.save(buffer, "JPEG", quality=95, subsampling=0)
        else:
            image.save(buffer, "PNG", icc_profile=None)
        return buffer.getvalue()
    except (OSError, ValueError):
        raise
    except Exception as error:  # Pillow loads lazily and raises various types for damaged files
        raise ValueError(f"Pillow cannot write it ({type(error).__name__}: {error})") from error


def _upright(image: Any) -> Any:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # likewise; viewers ignore damaged EXIF data
        turn = None
    if turn is None:
        return image
    from PIL.Image import Transpose

    return image.transpose(Transpose[turn])


def _in_a_mode_of_png(image: Any) -> Any:
    if image.mode in ("I", "F"):
        scale, top = _scale(*image.getextrema(), is_float=image.mode == "F")
        if not math.isfinite(image.reduce(image.size).getpixel((0, 0))):
            raise ValueError("the image contains values that are not finite")
        scaled = image.point(lambda value: value * scale + 0)
        return scaled.convert("L" if top == 255 else "I;16")
    if image.mode.startswith("I;16"):
        return image if image.mode == "I;16" else image.convert("I").convert("I;16")
    return image if image.mode in _PNG_MODES else image.convert(_WITH_ALPHA.get(image.mode, "RGB"))


def _is_for_jpeg(image: Any) -> bool:
    is_large = image.width * image.height > _JPEG_PIXELS and max(image.size) <= _JPEG_EDGE
    return is_large and image.mode in ("L", "RGB") and "transparency" not in image.info


def _of_array(array: Any) -> bytes:
    """A PNG file. Channels may be grey, grey and alpha, RGB, or RGB and alpha."""
    height, width, *depth = array.shape if len(array.shape) in (2, 3) else (0, 0)
    channels = depth[0] if depth else 1
    if channels not in _COLOUR_TYPES or not height * width:
        raise ValueError(f"an array of shape {tuple(array.shape)}; {_SHAPES}")
    if array.dtype.kind not in "buif":
        raise ValueError(f"an array of {array.dtype}; its values must be integers, floats or booleans")
    if array.dtype.kind == "b":
        array, top = array * 255, 255
    elif str(array.dtype) == "uint8":
        top = 255
    else:
        scale, top = _scale(array.min().item(), array.max().item(), is_float=array.dtype.kind == "f")
        array = (array * scale).round() if array.dtype.kind == "f" else array
    bits, kind = (8, "u1") if top == 255 else (16, ">u2")
    return _png(array.astype(kind).tobytes(), width, height, bits, channels)


_SHAPES = (
    "a picture is height x width, or height x width x channels with 1 to 4 channels last: "
    "array.transpose(1, 2, 0) moves them there; pass one of several pictures, array[0], or use predict_many"
)


def _scale(lowest: float, highest: float, *, is_float: bool) -> tuple[float, int]:
    """A factor for the values, and the value of white after scaling."""
    if is_float and lowest >= 0 and highest <= 1:
        return 255, 255
    if lowest >= 0 and highest <= 255:
        return 1, 255
    if not is_float and lowest >= 0 and highest <= 65_535:
        return 1, 65_535
    known = "0 to 1, or 0 to 255" if is_float else "0 to 255, or 0 to 65535"
    raise ValueError(f"its values range from {lowest:g} to {highest:g}: scale them to {known}")


def _png(pixels: bytes, width: int, height: int, bits: int, channels: int) -> bytes:
    """A PNG file (RFC 2083) without row filters."""
    row = width * channels * bits // 8
    rows = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row))
    header = struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
