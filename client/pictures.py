"""A picture's bytes, out of whatever the caller has. Neither Pillow nor NumPy is imported."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias

from client.errors import PictureUnreadable

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray
    from PIL.Image import Image

Picture: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image | NDArray[uint8]"


class Upload(NamedTuple):
    content: bytes
    filename: str = "picture"


def read(picture: Picture) -> Upload:
    """Raises PictureUnreadable."""
    try:
        return _read(picture)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PictureUnreadable(f"the picture cannot be read: {said}") from error


def _read(picture: Any) -> Upload:
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return Upload(bytes(picture))
    if isinstance(picture, (str, os.PathLike)):
        return Upload(Path(picture).read_bytes(), Path(picture).name)
    if hasattr(picture, "save"):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return Upload(buffer.getvalue())
    if hasattr(picture, "tobytes") and hasattr(picture, "shape"):
        return Upload(_png(picture))
    content = picture.read() if hasattr(picture, "read") else None
    if not isinstance(content, bytes):
        raise ValueError(f"{type(picture).__name__} is no path, bytes, binary file, Pillow image or array")
    return Upload(content, os.path.basename(str(getattr(picture, "name", ""))) or "picture")


def _png(array: Any) -> bytes:
    """A PNG file (RFC 2083): header, the rows each after its filter's number, end."""
    height, width, *depth = array.shape if len(array.shape) > 1 else (0, 0)
    if str(array.dtype) != "uint8" or depth not in ([], [1], [3]) or not height * width:
        raise ValueError(f"{array.dtype} of shape {array.shape}; an array is uint8, height x width (x 3)")
    pixels, row = array.tobytes(), width * (*depth, 1)[0]
    rows = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if depth == [3] else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
