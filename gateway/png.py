"""Grey pixels as a PNG picture, without a picture library."""

import base64
import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY_8_BIT = (8, 0, 0, 0, 0)


def data_uri(pixels: bytes, width: int = 28) -> str:
    """What an <img> shows. pixels: one byte each, row by row."""
    return "data:image/png;base64," + base64.b64encode(encode(pixels, width)).decode()


def encode(pixels: bytes, width: int) -> bytes:
    """A PNG file (RFC 2083): header, the rows each after its filter's number, end."""
    starts = range(0, len(pixels), width)
    header = struct.pack(">IIBBBBB", width, len(starts), *_GREY_8_BIT)
    rows = b"".join(b"\0" + pixels[start : start + width] for start in starts)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
