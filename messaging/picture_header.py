"""Reads what the header of a picture file declares, and estimates what the picture costs, without decoding.

The gateway checks uploads; the worker checks again, because anyone may publish a request. Few bytes can
declare many pixels, so whatever requests share is divided by declared cost: the worker's lanes and batches,
the requests in flight at the gateway, and the time that a picture may take.

The cost is the processor time to decode and prepare the picture on one core, estimated from its type, size,
scans and bytes. docs/decisions/0011-cost-of-a-picture.md has the measurements behind the weights.
"""

import re
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import islice
from struct import Struct
from typing import NamedTuple

PNG, JPEG, WEBP, GIF, BMP = "image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"
TIFF, AVIF, HEIC = "image/tiff", "image/avif", "image/heic"

ACCEPTED = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
MEDIA_TYPES = (PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF, HEIC)

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


def other_kind(beginning: bytes) -> str:
    """What a file is that is no accepted picture, as far as its first bytes show it."""
    found = _OTHER_BEGINNING.match(beginning[:512].lstrip())
    return "" if found is None else _OTHER_KINDS[(found.lastindex or 1) - 1][1]


# Milliseconds per pixel and per byte of the file, on one core, as measured.
_NS = 1e-6
_PNG_PIXEL, _PNG_BYTE, _PNG_CHUNK = 10 * _NS, 12 * _NS, 2_000 * _NS
_ALPHA_PIXEL, _KEY_PIXEL = 15 * _NS, 25 * _NS
_JPEG_PIXEL, _JPEG_SHOWN_PIXEL, _JPEG_BYTE, _JPEG_ARITHMETIC_BYTE = 1 * _NS, 12 * _NS, 12 * _NS, 100 * _NS
_JPEG_SCAN_PIXEL, _JPEG_SCAN_BYTE = 0.4 * _NS, 35 * _NS
_JPEG_CUT_PIXEL, _JPEG_CUT_TIMES = 18 * _NS, 3
_WEBP_PIXEL, _WEBP_SCALED_PIXEL, _WEBP_CANVAS_PIXEL = 10 * _NS, 2 * _NS, 22 * _NS
_WEBP_SCALED_ALPHA_PIXEL, _WEBP_LOSSLESS_BYTE, _WEBP_LOSSY_BYTE = 3 * _NS, 15 * _NS, 70 * _NS
_GIF_PIXEL, _GIF_BYTE = 12 * _NS, 20 * _NS
_BMP_PIXEL, _BMP_BYTE = 5 * _NS, 2 * _NS
_TIFF_PIXEL, _TIFF_RAW_BYTE, _TIFF_BYTE, _TIFF_JPEG_BYTE = 12 * _NS, 2 * _NS, 10 * _NS, 35 * _NS
_AVIF_PIXEL, _AVIF_BYTE = 30 * _NS, 200 * _NS
_HEIC_PIXEL, _HEIC_BYTE = 25 * _NS, 330 * _NS
_PREPARING_MS, _PREPARING_PIXEL_MS = 2.0, 280 * _NS
_PREPARED_PIXELS, _RAW_PIXELS = 150 * 150, 28 * 28
# Added for the less common types, so that none of them is small: the model process leaves them to a decoder.
_APART_MS = 2 * SMALL_MS

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
_MAX_GIF_BLOCKS = 16_384  # of 255 bytes: 4 MiB of comments and profiles
_MAX_TIFF_TAGS, _MAX_TIFF_STRIPS = 1_000, 65_536  # decoders take memory for each
_MAX_BOXES = 4_096  # a photo of a phone has 50 tiles, each with several properties at most

_PNG_HEADER = Struct(">4sIIBBBBB")
_PNG_CHUNK_HEAD = Struct(">I4s")
_JPEG_FRAME = Struct(">HBHHB")
_SHORT = Struct(">H")
_WEBP_CHUNK_HEAD = Struct("<4sI")
_WEBP_LOSSY_SIZE = Struct("<HH")
_WEBP_LOSSLESS_SIZE = Struct("<I")
_GIF_SCREEN, _GIF_FRAME = Struct("<HHB"), Struct("<HHHH")
_BMP_CORE, _BMP_INFO = Struct("<IHHHH"), Struct("<IIiHH")
_BOX, _LONG_BOX, _EXTENT = Struct(">I4s"), Struct(">Q"), Struct(">4xII")


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


def _gif(picture: bytes) -> PictureHeader:
    """The screen, enlarged by the first frame where that exceeds it, as Pillow does."""
    try:
        width, height, flags = _GIF_SCREEN.unpack_from(picture, 6)
        at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        blocks = _MAX_GIF_BLOCKS
        while picture[at] == _GIF_EXTENSION and blocks:
            at += 2
            while (size := picture[at]) and blocks:
                at, blocks = at + 1 + size, blocks - 1
            at += 1
        if picture[at] == _GIF_IMAGE:
            left, top, its_width, its_height = _GIF_FRAME.unpack_from(picture, at + 1)
            width, height = max(width, left + its_width), max(height, top + its_height)
            decode_ms = width * height * _GIF_PIXEL + len(picture) * _GIF_BYTE + _APART_MS
            return PictureHeader(GIF, width, height, 1, decode_ms)
    except (IndexError, struct.error):
        pass
    raise HeaderError("The GIF picture is damaged: it has no picture, or it comes too late.")


_GIF_EXTENSION, _GIF_IMAGE = 0x21, 0x2C


def _bmp(picture: bytes) -> PictureHeader:
    try:
        size, width, height, _, bits = _BMP_INFO.unpack_from(picture, 14)
        if size == _BMP_CORE.size:
            _, width, height, _, bits = _BMP_CORE.unpack_from(picture, 14)
    except struct.error:
        raise HeaderError("The BMP picture is damaged: its header is incomplete.") from None
    pixels = width * abs(height)
    pixel = _BMP_PIXEL + (_ALPHA_PIXEL if bits == 32 else 0.0)
    return PictureHeader(BMP, width, abs(height), 1, pixels * pixel + len(picture) * _BMP_BYTE + _APART_MS)


_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SUBFILE, _WIDTH, _LENGTH, _COMPRESSION, _STRIPS, _TILES, _DNG = 254, 256, 257, 259, 273, 324, 50706
_TIFF_BYTES = {1: _TIFF_RAW_BYTE, 32773: _TIFF_RAW_BYTE, 7: _TIFF_JPEG_BYTE}


def _tiff(picture: bytes) -> PictureHeader:
    """The first page of a TIFF file. Camera raw files have a reduced picture there, and are refused."""
    order = "<" if picture[:2] == b"II" else ">"
    values, size_bytes, strips = {_COMPRESSION: 1}, 0, 0
    try:
        (at,) = struct.unpack_from(f"{order}I", picture, 4)
        (count,) = struct.unpack_from(f"{order}H", picture, at)
        for number in range(min(count, _MAX_TIFF_TAGS + 1)):
            tag, kind, length = struct.unpack_from(f"{order}HHI", picture, at + 2 + 12 * number)
            size_bytes += length * _TIFF_SIZES.get(kind, 8)
            if tag in (_STRIPS, _TILES):
                strips = max(strips, length)
            (values[tag],) = struct.unpack_from(
                f"{order}{'H' if kind == 3 else 'I'}", picture, at + 10 + 12 * number
            )
        width, height = values[_WIDTH], values[_LENGTH]
    except (KeyError, struct.error):
        raise HeaderError("The TIFF picture is damaged: its header is incomplete.") from None
    if values.get(_SUBFILE, 0) & 1 or _DNG in values or picture[8:10] == b"CR":
        raise HeaderError("A camera's raw file cannot be read; convert it to JPEG.")
    if count > _MAX_TIFF_TAGS or size_bytes > len(picture) or strips > _MAX_TIFF_STRIPS:
        raise HeaderError("The TIFF picture is damaged, or has too many tags or strips.")
    byte = _TIFF_BYTES.get(values[_COMPRESSION], _TIFF_BYTE)
    decode_ms = width * height * (_TIFF_PIXEL + _ALPHA_PIXEL) + len(picture) * byte + _APART_MS
    return PictureHeader(TIFF, width, height, 1, decode_ms)


def _heif(picture: bytes) -> PictureHeader:
    """The largest picture that the file describes: the others are its tiles and thumbnails."""
    (end,) = _BOX.unpack_from(picture)[:1]
    is_avif = re.search(rb"avi[fs]", picture[8 : min(end, 256)]) is not None
    kind, pixel, byte = (AVIF, _AVIF_PIXEL, _AVIF_BYTE) if is_avif else (HEIC, _HEIC_PIXEL, _HEIC_BYTE)
    found = [(0, len(picture))]
    for name, header_bytes in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0), (b"ispe", 0)):
        boxes = (box for start, end in found for box in _boxes(picture, start, end))
        found = [(start + header_bytes, end) for its, start, end in boxes if its == name]
    sizes = [_EXTENT.unpack_from(picture, start) for start, end in found if end - start >= _EXTENT.size]
    if not sizes:
        raise HeaderError(f"The {kind[6:].upper()} picture is damaged: its header is incomplete.")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return PictureHeader(kind, width, height, 1, width * height * pixel + len(picture) * byte + _APART_MS)


def _boxes(picture: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an ISO base media file (ISO/IEC 14496-12, 4.2): name, and where the content is."""
    for _ in range(_MAX_BOXES):
        if at + _BOX.size > end:
            return
        size, name = _BOX.unpack_from(picture, at)
        start = at + _BOX.size
        if size == 1 and start + _LONG_BOX.size <= end:
            (size,) = _LONG_BOX.unpack_from(picture, start)
            start += _LONG_BOX.size
        until = min(end, at + size) if size else end
        if until < start:
            return
        yield name, start, until
        at = until


class _Type(NamedTuple):
    """A type's first bytes as a pattern, its name, and the function that reads its header."""

    beginning: bytes
    media_type: str
    read: Callable[[bytes], PictureHeader]


_TYPES = (
    _Type(rb"\x89PNG\r\n\x1a\n", PNG, _png),
    _Type(rb"\xff\xd8\xff", JPEG, _jpeg),
    _Type(rb"RIFF....WEBP", WEBP, _webp),
    _Type(rb"GIF8[79]a", GIF, _gif),
    _Type(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", BMP, _bmp),
    _Type(rb"II\*\0|MM\0\*", TIFF, _tiff),
    _Type(rb"....ftypavi[fs]", AVIF, _heif),
    _Type(rb"....ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)", HEIC, _heif),
)
_BEGINNING = re.compile(b"|".join(b"(%s)" % each.beginning for each in _TYPES), re.DOTALL)
_OTHER_KINDS = (
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (rb"\0\0\0\x0cjP {2}|\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"II\+\0|MM\0\+", "a BigTIFF picture"),
    (rb"8BPS", "a Photoshop file"),
    (rb"\0\0[\1\2]\0[^\0]", "an icon"),
    (rb"%PDF-", "a PDF document"),
    (rb"(?:<\?xml.{0,400}?)?<svg", "an SVG drawing"),
    (rb"<(?i:!doctype html|html)", "an HTML page"),
    (rb"....ftyp|\x1aE\xdf\xa3", "a video"),
    (rb"PK\3\4", "a ZIP archive"),
)
_OTHER_BEGINNING = re.compile(b"|".join(b"(%s)" % beginning for beginning, _ in _OTHER_KINDS), re.DOTALL)
