"""Pictures of few bytes that take long to decode: `python -m tests.faults.corpus.expensive` measures them."""

import io
import struct
import sys
import time
import zlib
from pathlib import Path

from PIL import Image

from messaging import picture_header
from model.preprocessing import prepare

SIDE = 5_000
"""25 megapixels, as many as are accepted."""

# 16 x 16 pixels of one colour, as libwebp writes them: no pixel takes a bit, so the size can be any.
_WEBP = bytes.fromhex("524946461a000000574542505650384c0e0000002f0fc00310a847918b52c0000000")
_WEBP_SIZE_AT, _WEBP_SIZE_BITS = 21, 28
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_GREY, _RGB, _RGBA = 0, 2, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _RGBA: 4}


def webp(side: int = SIDE) -> bytes:
    """A lossless WebP of 34 bytes, with an alpha channel."""
    (bits,) = struct.unpack_from("<I", _WEBP, _WEBP_SIZE_AT)
    bits = bits >> _WEBP_SIZE_BITS << _WEBP_SIZE_BITS | (side - 1) << 14 | side - 1
    return _WEBP[:_WEBP_SIZE_AT] + struct.pack("<I", bits) + _WEBP[_WEBP_SIZE_AT + 4 :]


def png(side: int = SIDE, colours: int = _RGBA, padding: int = 0) -> bytes:
    """A PNG of one colour; padding: so many bytes more, in a chunk that decoders skip."""
    deflate = zlib.compressobj(9)
    row = b"\0" + bytes(range(1, 1 + _CHANNELS[colours])) * side
    pixels = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, colours, 0, 0, 0)
    skipped = _chunk(b"skIp", bytes(padding)) if padding else b""
    chunks = _chunk(b"IHDR", header) + skipped + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg(scans: int, side: int = 2_720) -> bytes:
    """A progressive JPEG of one colour, whose last refinement of the luminance comes again and again."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 40)).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    last, end = whole.rindex(_SCAN), whole.rindex(_END)
    return whole[:end] + whole[last:end] * (scans - whole.count(_SCAN)) + _END


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def main() -> None:
    """Declared cost beside measured processor time, of the files that are named, or of those made here."""
    files = {name: Path(name).read_bytes() for name in sys.argv[1:]} or {
        "WebP, lossless, alpha": webp(),
        "PNG, RGBA": png(),
        "PNG, RGB": png(colours=_RGB),
        "PNG, grey": png(colours=_GREY),
        "JPEG, progressive, 100 scans": jpeg(100),
    }
    for name, content in files.items():
        header = picture_header.read(content)
        began = time.process_time()
        prepare(content, max_pixels=2 * SIDE * SIDE)
        took_ms = (time.process_time() - began) * 1000
        declared = f"{header.cost_ms():7.1f}" if header else "      ?"
        print(f"{name:30} {len(content):9} bytes  declared {declared} ms  measured {took_ms:7.1f} ms")


if __name__ == "__main__":
    main()
