"""Reads WebP files: extracts the first frame, and decodes it at a reduced size with libwebp.

Pillow decodes every WebP file as an animation, with four copies in full size. Large pictures are decoded
directly by the libwebp that Pillow links to or, if that library is out of reach, by Pillow.
"""

import ctypes
from collections.abc import Mapping
from functools import cache
from struct import Struct
from typing import NamedTuple

from PIL import Image, _webp

Size = tuple[int, int]
"""Width and height."""
Chunks = Mapping[bytes, bytes | memoryview]
"""The content of each chunk by name."""

CHUNK = Struct("<4sI")
FILE_HEADER, FRAME_HEADER = 12, 16
MOST_CHUNKS = 65_536
ALPHA = 0x10
DECODER_ABI = 0x0208  # that of libwebp 0.6; the library rejects an ABI that it does not support
MODE_RGB, MODE_RGBA = 0, 1


class Still(NamedTuple):
    """A still picture from a WebP file."""

    file: bytes
    """A WebP file whose first picture is this one."""
    size: Size
    has_alpha: bool
    exif: bytes
    xmp: bytes
    cut_off: bool
    """Whether the end of the original file is missing; this picture is complete."""


def first_frame(picture: bytes) -> Still:
    """Extracts the picture from a WebP file; from an animation, the first frame.

    Raises ValueError or KeyError if the picture is not complete.
    """
    declared = 8 + int.from_bytes(picture[4:8], "little")
    chunks, whole = chunks_of(memoryview(picture)[:declared], FILE_HEADER)
    cut_off = not whole or declared > len(picture)
    exif, xmp = (bytes(chunks.get(name, b"")) for name in (b"EXIF", b"XMP "))
    if b"ANMF" not in chunks:
        size, has_alpha = of_still(chunks)
        return Still(riff(chunks) if cut_off else picture, size, has_alpha, exif, xmp, cut_off)
    header, frame = chunks[b"VP8X"], memoryview(chunks[b"ANMF"])
    size, frame_size = canvas(header[4:]), canvas(frame[6:])
    parts, _ = chunks_of(frame, FRAME_HEADER)
    if frame_size != size:  # the canvas around the frame is transparent
        one = riff({name: chunks[name] for name in (b"VP8X", b"ANIM", b"ANMF") if name in chunks})
        return Still(one, size, True, exif, xmp, cut_off)
    has_alpha = of_still(parts)[1]
    flags = bytes((ALPHA if has_alpha else 0, 0, 0, 0))
    return Still(riff({b"VP8X": flags + header[4:], **parts}), size, has_alpha, exif, xmp, cut_off)


def chunks_of(data: memoryview, at: int) -> tuple[dict[bytes, memoryview], bool]:
    """The first complete chunk of each name from offset at, and whether no chunk is cut off."""
    found: dict[bytes, memoryview] = {}
    for _ in range(MOST_CHUNKS):
        if len(data) < at + CHUNK.size:
            break
        name, size = CHUNK.unpack_from(data, at)
        content = data[at + CHUNK.size : at + CHUNK.size + size]
        if len(content) < size:
            return found, False
        found.setdefault(name, content)
        at += CHUNK.size + size + size % 2
    return found, at >= len(data)


def of_still(chunks: Chunks) -> tuple[Size, bool]:
    """The size of a still picture, and whether it has an alpha channel. Raises ValueError or KeyError."""
    if b"VP8L" in chunks:
        bits = int.from_bytes(chunks[b"VP8L"][1:5], "little")
        return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), bool(bits >> 28 & 1)
    lossy = chunks[b"VP8 "]
    width, height = (int.from_bytes(lossy[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return (width, height), b"ALPH" in chunks


def canvas(header: bytes | memoryview) -> Size:
    """Decodes width and height, three bytes each."""
    width, height = (int.from_bytes(header[at : at + 3], "little") + 1 for at in (0, 3))
    return width, height


def riff(chunks: Chunks) -> bytes:
    """A WebP file with these chunks."""
    parts = [b"WEBP"]
    for name, content in chunks.items():
        parts += (CHUNK.pack(name, len(content)), bytes(content), b"\0" * (len(content) % 2))
    return b"".join((CHUNK.pack(b"RIFF", sum(map(len, parts))), *parts))


def scaled(still: Still, times: int) -> Image.Image | None:
    """Decodes a picture with its edges divided by times; None if libwebp is out of reach or fails."""
    library = libwebp()
    config = DecoderConfig()
    if library is None or not library.WebPInitDecoderConfigInternal(ctypes.byref(config), DECODER_ABI):
        return None
    width, height = (max(1, edge // times) for edge in still.size)
    mode, channels = ("RGBA", 4) if still.has_alpha else ("RGB", 3)
    pixels = ctypes.create_string_buffer(width * height * channels)
    config.options.use_scaling = 1
    config.options.scaled_width, config.options.scaled_height = width, height
    config.output.colorspace = MODE_RGBA if still.has_alpha else MODE_RGB
    config.output.is_external_memory = 1
    config.output.rgba = Plane(ctypes.addressof(pixels), width * channels, len(pixels))
    if library.WebPDecode(still.file, ctypes.c_size_t(len(still.file)), ctypes.byref(config)):
        return None
    return Image.frombuffer(mode, (width, height), pixels.raw, "raw", mode, 0, 1)


@cache
def libwebp() -> ctypes.CDLL | None:
    """The libwebp that Pillow uses; None if it is linked without exported symbols."""
    try:
        library = ctypes.CDLL(_webp.__file__)
        return library if library.WebPInitDecoderConfigInternal and library.WebPDecode else None
    except (AttributeError, OSError):
        return None


# From webp/decode.h.


class Features(ctypes.Structure):
    """WebPBitstreamFeatures."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("width", "height", "has_alpha", "has_animation", "format")),
        ("pad", ctypes.c_uint32 * 5),
    )


class Plane(ctypes.Structure):
    """WebPRGBABuffer."""

    _fields_ = (("pixels", ctypes.c_void_p), ("stride", ctypes.c_int), ("size", ctypes.c_size_t))


class Planes(ctypes.Union):
    """The union in WebPDecBuffer of a WebPRGBABuffer and a WebPYUVABuffer."""

    _fields_ = (("rgba", Plane), ("yuva", ctypes.c_uint64 * 10))


class Buffer(ctypes.Structure):
    """WebPDecBuffer."""

    _anonymous_ = ("planes",)
    _fields_ = (
        *((name, ctypes.c_int) for name in ("colorspace", "width", "height", "is_external_memory")),
        ("planes", Planes),
        ("pad", ctypes.c_uint32 * 4),
        ("private_memory", ctypes.c_void_p),
    )


class Options(ctypes.Structure):
    """WebPDecoderOptions."""

    _fields_ = (
        ("filtering", ctypes.c_int * 2),
        ("cropping", ctypes.c_int * 5),
        *((name, ctypes.c_int) for name in ("use_scaling", "scaled_width", "scaled_height")),
        ("others", ctypes.c_int * 4),
        ("pad", ctypes.c_uint32 * 5),
    )


class DecoderConfig(ctypes.Structure):
    """WebPDecoderConfig."""

    _fields_ = (("input", Features), ("output", Buffer), ("options", Options))
