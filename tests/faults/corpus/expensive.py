"""Small files that take long to decode. `python -m tests.faults.corpus.expensive` measures their cost."""

import io
import struct
import sys
import time
import zlib
from pathlib import Path

from PIL import Image

from messaging import picture_header
from model.preprocessing import prepare
from tests.faults.corpus.files import END, SIGNATURE, png_chunk

SIDE = 5_000
"""25 megapixels, the most that are accepted."""

# 16 x 16 pixels of one colour by libwebp. No pixel takes any bits, so any size fits these bytes.
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
    """A PNG of one colour. padding is the size of a chunk that decoders skip."""
    deflate = zlib.compressobj(9)
    row = b"\0" + bytes(range(1, 1 + _CHANNELS[colours])) * side
    pixels = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, colours, 0, 0, 0)
    skipped = png_chunk(b"skIp", bytes(padding)) if padding else b""
    return SIGNATURE + png_chunk(b"IHDR", header) + skipped + png_chunk(b"IDAT", pixels) + END


def jpeg(scans: int, side: int = 2_720) -> bytes:
    """A progressive JPEG of one colour that repeats its last refinement of the luminance."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 40)).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    last, end = whole.rindex(_SCAN), whole.rindex(_END)
    return whole[:end] + whole[last:end] * (scans - whole.count(_SCAN)) + _END


def main() -> None:
    """Print the declared cost and the measured processor time of the named files, or of those made here."""
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
