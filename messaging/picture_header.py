"""Reads what the header of a picture file declares, and estimates what the picture costs, without decoding.

The gateway checks uploads; the worker checks again, because anyone may publish a request. Few bytes can
declare many pixels, so whatever requests share is divided by declared cost: the worker's lanes and batches,
the requests in flight at the gateway, and the time that a picture may take.

The cost is the processor time to decode and prepare the picture on one core, estimated from its type, size,
scans and bytes. docs/decisions/0011-cost-of-a-picture.md has the measurements behind the weights.
"""

import re
from collections.abc import Callable
from enum import IntEnum
from itertools import islice
from struct import Struct
from typing import NamedTuple

PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"

MAX_SCANS = 100
"""The most that a JPEG may have. Encoders write 10 to 20; TurboJPEG's TJFLAG_LIMITSCANS allows 500."""

SMALL_MS = 0.5
"""The most that a small picture costs. One of 28 x 28 pixels, the model's input, costs 0.02 to 0.1 ms."""

MEDIUM_MS = 100.0
"""The most that a medium one costs. A phone's photo, a JPEG of 12 megapixels, costs 50 ms."""


class Size(IntEnum):
    """A picture's class of cost. It never waits for a picture of a larger size."""

    SMALL = 0
    MEDIUM = 1
    LARGE = 2


class HeaderError(ValueError):
    """The file cannot be decoded, or at too high a cost for its size. The message is for the sender."""


class PictureHeader(NamedTuple):
    """decode_ms: the estimated processor time to decode the pixels."""

    media_type: str
    width: int
    height: int
    scans: int
    decode_ms: float

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def cost_ms(self, mode: str = "auto") -> float:
        """decode_ms plus the most that preparing the picture in this mode takes."""
        if mode == "raw28" or (mode == "auto" and self.pixels <= _RAW_PIXELS):
            return self.decode_ms
        return self.decode_ms + _PREPARING_MS + _PREPARING_PIXEL_MS * min(self.pixels, _PREPARED_PIXELS)


def size_of(cost_ms: float) -> Size:
    if cost_ms <= SMALL_MS:
        return Size.SMALL
    return Size.MEDIUM if cost_ms <= MEDIUM_MS else Size.LARGE


def read(picture: bytes) -> PictureHeader | None:
    """The header; None for a type that is not accepted. Raises HeaderError.

    A PNG of 28 x 28 pixels takes 1 µs. The number of chunks and segments that are read is bounded.
    """
    found = _BEGINNING.match(picture)
    return None if found is None else _TYPES[(found.lastindex or 1) - 1].read(picture)


def media_type_of(beginning: bytes) -> str | None:
    """The type that the first bytes show; None for one that is not accepted."""
    found = _BEGINNING.match(beginning)
    return None if found is None else _TYPES[(found.lastindex or 1) - 1].media_type


# Milliseconds per pixel and per byte of the file, on one core, as measured.
_NS = 1e-6
_PNG_PIXEL, _PNG_BYTE, _PNG_CHUNK = 10 * _NS, 12 * _NS, 2_000 * _NS
_ALPHA_PIXEL, _KEY_PIXEL = 15 * _NS, 25 * _NS
_JPEG_PIXEL, _JPEG_SHOWN_PIXEL, _JPEG_BYTE, _JPEG_ARITHMETIC_BYTE = 1 * _NS, 12 * _NS, 12 * _NS, 100 * _NS
_JPEG_SCAN_PIXEL, _JPEG_SCAN_BYTE = 0.4 * _NS, 35 * _NS
_JPEG_CUT_PIXEL, _JPEG_CUT_TIMES = 18 * _NS, 3
_WEBP_PIXEL, _WEBP_SCALED_PIXEL, _WEBP_CANVAS_PIXEL = 10 * _NS, 2 * _NS, 22 * _NS
_WEBP_SCALED_ALPHA_PIXEL, _WEBP_LOSSLESS_BYTE, _WEBP_LOSSY_BYTE = 3 * _NS, 15 * _NS, 70 * _NS
_PREPARING_MS, _PREPARING_PIXEL_MS = 2.0, 280 * _NS
_PREPARED_PIXELS, _RAW_PIXELS = 150 * 150, 28 * 28

# While decoding, a JPEG is scaled down by 2, 4 or 8 if both edges stay at least this long, and a WebP if one
# edge is at least that long.
_WORKING_EDGE, _WEBP_SCALED_EDGE = 256, 2_048

# A PNG of 10 MiB has 1,300, because libpng writes chunks of 8 KiB.
_MAX_PNG_CHUNKS = 16_384
# Metadata of 10 MiB takes 160, at 64 KiB each.
_MAX_JPEG_SEGMENTS = 1_000
_MAX_JPEG_FILL = 4_096
_JPEG_END_BYTES = 65_536
_MAX_WEBP_CHUNKS = 16

_PNG_HEADER = Struct(">4sIIBBBBB")
_PNG_CHUNK_HEAD = Struct(">I4s")
_JPEG_FRAME = Struct(">HBHHB")
_SHORT = Struct(">H")
_WEBP_CHUNK_HEAD = Struct("<4sI")
_WEBP_LOSSY_SIZE = Struct("<HH")
_WEBP_LOSSLESS_SIZE = Struct("<I")


def _png(picture: bytes) -> PictureHeader:
    """Of an APNG, too, the default image is decoded, whose size is in IHDR."""
    if len(picture) < 33 or picture[12:16] != b"IHDR":
        raise HeaderError("The PNG picture is damaged: it does not begin with its header.")
    _, width, height, _, colours, *_ = _PNG_HEADER.unpack_from(picture, 12)
    pixel = _PNG_PIXEL + (_ALPHA_PIXEL if colours in (4, 6) else 0.0)
    at, last, chunks = 33, len(picture) - 8, 1
    while at <= last:
        size, kind = _PNG_CHUNK_HEAD.unpack_from(picture, at)
        if kind == b"IEND":
            break
        if kind == b"tRNS":
            pixel = _PNG_PIXEL + (_ALPHA_PIXEL if colours == 3 else _KEY_PIXEL)
        chunks += 1
        if chunks > _MAX_PNG_CHUNKS:
            raise HeaderError(f"The PNG picture has over {_MAX_PNG_CHUNKS} chunks.")
        at += 12 + size
    decode_ms = width * height * pixel + len(picture) * _PNG_BYTE + chunks * _PNG_CHUNK
    return PictureHeader(PNG, width, height, 1, decode_ms)


_SOF_KINDS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE, _ARITHMETIC = (0xC2, 0xCA), (0xC9, 0xCA)
_SOS, _EOI = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_END = b"\xff\xd9"
_USUAL_SCANS = 20
_APPARENT_SCAN = re.compile(rb"\xff\xda")  # searches 1.6 GB/s; the others 0.3
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def _jpeg(picture: bytes) -> PictureHeader:
    at, fill, frame = 2, 0, None
    for _ in range(_MAX_JPEG_SEGMENTS):
        found = _MARKER.search(picture, at, at + _MAX_JPEG_FILL)
        if found is None:
            break
        fill += found.start() - at
        at = found.start() + 2
        marker = picture[at - 1]
        if marker == _SOS and frame is not None:
            return _jpeg_of(picture, at - 2, *frame)
        if fill > _MAX_JPEG_FILL or marker in (_SOS, _EOI):
            break
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in _SOF_KINDS:
            if frame is not None or at + _JPEG_FRAME.size > len(picture):
                break
            _, _, height, width, components = _JPEG_FRAME.unpack_from(picture, at)
            frame = marker, width, height, components
        if at + 2 > len(picture):
            break
        at += _SHORT.unpack_from(picture, at)[0]
    raise HeaderError("The JPEG picture is damaged: its header is incomplete or too long.")


def _jpeg_of(
    picture: bytes, first_scan: int, kind: int, width: int, height: int, components: int
) -> PictureHeader:
    size = len(picture)
    times = next((times for times in (8, 4, 2) if min(width, height) >= times * _WORKING_EDGE), 1)
    pixel, byte = _JPEG_PIXEL, _JPEG_ARITHMETIC_BYTE if kind in _ARITHMETIC else _JPEG_BYTE
    in_first_scan = picture[first_scan + 4] if first_scan + 4 < size else 0
    scans = 1
    # Unless the first scan is the whole picture, libjpeg reads all scans before it decodes pixels.
    if kind in _PROGRESSIVE or in_first_scan < components:
        scans = _jpeg_scans(picture, first_scan)
        pixel += scans * _JPEG_SCAN_PIXEL
        byte = max(byte, _JPEG_SCAN_BYTE)
    pixel += _JPEG_SHOWN_PIXEL / times**2
    if picture.rfind(_JPEG_END, max(first_scan, size - _JPEG_END_BYTES)) < 0:  # an unknown part is missing
        pixel, byte = pixel * _JPEG_CUT_TIMES + _JPEG_CUT_PIXEL, byte * _JPEG_CUT_TIMES
    return PictureHeader(JPEG, width, height, scans, width * height * pixel + size * byte)


def _jpeg_scans(picture: bytes, at: int) -> int:
    """Count the scans from the first one on, up to one above MAX_SCANS.

    Up to _USUAL_SCANS, whatever looks like a scan counts. Beyond, what is inside other segments or after the
    end does not.
    """
    apparent = sum(1 for _ in islice(_APPARENT_SCAN.finditer(picture, at), _USUAL_SCANS + 1))
    if apparent <= _USUAL_SCANS:
        return apparent
    scans = 0
    for _ in range(_MAX_JPEG_SEGMENTS):
        found = _MARKER_IN_SCAN.search(picture, at)
        if found is None or picture[found.start() + 1] == _EOI:
            return scans
        at = found.start() + 2
        scans += picture[at - 1] == _SOS
        if scans > MAX_SCANS:
            return scans
        if picture[at - 1] not in _WITHOUT_LENGTH and at + 2 <= len(picture):
            at += _SHORT.unpack_from(picture, at)[0]
    return MAX_SCANS + 1


def _webp(picture: bytes) -> PictureHeader:
    """Of an animation, the first frame is decoded onto a canvas of the declared size."""
    kind = picture[12:16]
    if len(picture) < 30 and not (kind == b"VP8L" and len(picture) >= 25):
        raise HeaderError("The WebP picture is damaged: its header is incomplete.")
    alpha, lossless, whole = False, False, True
    if kind == b"VP8X":
        alpha = picture[20] & 0x10 != 0
        width, height = _three_bytes(picture, 24) + 1, _three_bytes(picture, 27) + 1
        lossless, whole = _webp_first_frame(picture, (width, height))
    elif kind == b"VP8L":
        (bits,) = _WEBP_LOSSLESS_SIZE.unpack_from(picture, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        alpha, lossless = bits >> 28 & 1 == 1, True
    elif kind == b"VP8 ":
        width, height = (edge & 0x3FFF for edge in _WEBP_LOSSY_SIZE.unpack_from(picture, 26))
    else:
        raise HeaderError("The WebP picture is damaged: it does not begin with its header.")
    if not whole:
        pixel = _WEBP_CANVAS_PIXEL
    elif max(width, height) >= _WEBP_SCALED_EDGE:
        pixel = _WEBP_SCALED_PIXEL + (_WEBP_SCALED_ALPHA_PIXEL if alpha else 0.0)
    else:
        pixel = _WEBP_PIXEL + (_ALPHA_PIXEL if alpha else 0.0)
    byte = _WEBP_LOSSLESS_BYTE if lossless else _WEBP_LOSSY_BYTE
    return PictureHeader(WEBP, width, height, 1, width * height * pixel + len(picture) * byte)


def _webp_first_frame(picture: bytes, canvas: tuple[int, int]) -> tuple[bool, bool]:
    """Whether it is lossless, and whether it fills the canvas. If unclear, the answers that cost more."""
    at, whole = 30, True
    for _ in range(_MAX_WEBP_CHUNKS):
        if at + 24 > len(picture):
            break
        kind, size = _WEBP_CHUNK_HEAD.unpack_from(picture, at)
        if kind in (b"VP8L", b"VP8 ", b"ALPH"):
            return bool(kind == b"VP8L"), whole
        if kind == b"ANMF":
            whole = canvas == (_three_bytes(picture, at + 14) + 1, _three_bytes(picture, at + 17) + 1)
            at += 24
        else:
            at += 8 + size + size % 2
    return False, False


def _three_bytes(picture: bytes, at: int) -> int:
    return int.from_bytes(picture[at : at + 3], "little")


class _Type(NamedTuple):
    """A type's first bytes as a pattern, its name, and the function that reads its header."""

    beginning: bytes
    media_type: str
    read: Callable[[bytes], PictureHeader]


_TYPES = (
    _Type(rb"\x89PNG\r\n\x1a\n", PNG, _png),
    _Type(rb"\xff\xd8\xff", JPEG, _jpeg),
    _Type(rb"RIFF....WEBP", WEBP, _webp),
)
_BEGINNING = re.compile(b"|".join(b"(%s)" % each.beginning for each in _TYPES), re.DOTALL)
