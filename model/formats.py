"""Reads the pixels of PNG, JPEG and WebP files.

It parses only what the pixels need, so damaged or oversized metadata never makes a sound picture unreadable.
"""

import re
import zlib
from contextlib import suppress
from io import BytesIO
from itertools import product
from struct import Struct, error, unpack_from
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, _imaging
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from model.webp import first_frame, scaled

PNG = b"\x89PNG\r\n\x1a\n"
CHUNK, HEADER, NUMBER = Struct(">I4s"), Struct(">IIBBBBB"), Struct(">H")
MOST_CHUNKS = 65_536  # as many as 10 MiB hold at 160 bytes each; encoders write 8 KiB or more
GREY, COLOUR, PALETTE = 0, 2, 3
# Pillow's mode and raw mode for each bit depth and colour type.
PNG_MODES = {
    (1, GREY): ("1", "1"),
    (2, GREY): ("L", "L;2"),
    (4, GREY): ("L", "L;4"),
    (8, GREY): ("L", "L"),
    (16, GREY): ("I;16", "I;16B"),
    (8, COLOUR): ("RGB", "RGB"),
    (16, COLOUR): ("RGB", "RGB;16B"),
    (1, PALETTE): ("P", "P;1"),
    (2, PALETTE): ("P", "P;2"),
    (4, PALETTE): ("P", "P;4"),
    (8, PALETTE): ("P", "P"),
    (8, 4): ("LA", "LA"),
    (16, 4): ("RGBA", "LA;16B"),
    (8, 6): ("RGBA", "RGBA"),
    (16, 6): ("RGBA", "RGBA;16B"),
}
# A file of 8-bit grey pixels with one chunk between header and end. First what precedes the width, width,
# height, the rest of the header, its checksum, and length and name of the chunk; behind the data, their
# checksum and the end.
PLAIN_BEGINNING, PLAIN_END = Struct(">16sII5sII4s"), Struct(">I12s")
PLAIN = (PNG + b"\0\0\0\rIHDR", b"\x08\0\0\0\0", b"IDAT", b"\0\0\0\0IEND\xaeB`\x82")
DECODED = (-1, 0)  # what Pillow's decoders return at their end
LOWER_BYTES = "RGB;16L"  # reads the second byte of each sample, which is the lower one in PNG
# Text chunks that may hold the orientation: ImageMagick's copy of the EXIF data, and XMP.
TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
XMP = b"XML:com.adobe.xmp"
TEXT_OF_USE = re.compile(rb"Raw profile type (?:exif|APP1)\0|" + re.escape(XMP) + rb"\0")
MOST_TEXT = 1 << 18

START_OF_SCAN, END_OF_IMAGE, EXIF_OR_XMP = 0xDA, 0xD9, 0xE1
START_OF_SCAN_MARK = 0xFFDA
STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
READABLE_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
METADATA = frozenset((0xFE, *range(0xE0, 0xF0)))
COLOUR_SPACES = frozenset(((0xE0, b"JFIF\0"), (0xEE, b"Adobe")))
BETWEEN_SCANS = METADATA | {0xC4, 0xCC, START_OF_SCAN, 0xDB, 0xDC, 0xDD}
MOST_SEGMENTS = 10_000  # 10 MiB take 160 segments of the largest size
MOST_SCANS = 100  # as in messaging.picture_header; progressive files have about 10
MARKER = re.compile(rb"\xff[^\x00\xff]")
MARKER_BEHIND_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
OTHER_BITS = bytes(range(254, 0, -1))  # begins with ones, because libjpeg pads with zeros
JUDGED_EDGE = 1024
LEAST_ROWS = 0.9

LEAST_TIMES = 4  # below this reduction, Pillow needs little memory for a WebP picture

ORIENTATION, LONG = 0x0112, 4
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


class PictureError(ValueError):
    """The file cannot be used as a picture. The message is for the user."""


class Found(NamedTuple):
    """A picture as stored in its file."""

    image: Image.Image
    """In any mode."""
    orientation: int = 1
    """1 (upright) to 8, as defined by EXIF."""
    cut_off: bool = False
    key: tuple[int, ...] = ()
    """The transparent colour: a value for each channel of image, then of lower_bytes. () for none."""
    lower_bytes: Image.Image | None = None
    """The lower bytes of a picture with 16 bits per channel, whose upper bytes are in image."""


class BareJpeg(NamedTuple):
    """A JPEG file without its metadata."""

    file: bytes
    scans_at: int
    """The offset of the first scan."""
    components: bytes
    """The identifiers of the colour components, a byte each."""
    orientation: int


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises PictureError if the number of pixels is 0 or above max_pixels."""
    if width * height > max_pixels:
        raise PictureError(f"The picture has {width} x {height} pixels; at most {max_pixels} are allowed.")
    if not width * height:
        raise PictureError("The picture has no pixels.")


def read_png(picture: bytes, max_pixels: int, longest_edge: int) -> Found:
    """Reads a PNG file; for an animation, the picture that decoders without APNG support show."""
    chunks, pixels, ended = png_chunks(picture)
    width, height, depth, colour, compression, filtering, interlaced = HEADER.unpack(chunks[b"IHDR"])
    check_size(width, height, max_pixels)
    if (depth, colour) not in PNG_MODES or compression or filtering or interlaced > 1:
        raise PictureError("The header of the PNG picture has values that the PNG standard does not define.")
    mode, raw_mode = PNG_MODES[depth, colour]
    size, data = (width, height), pixels[0] if len(pixels) == 1 else b"".join(pixels)
    try:
        image = inflated(mode, raw_mode, size, data, interlaced)
    except ValueError as broken:
        raise broken if ended else PictureError("The PNG picture is cut off: its end is missing.") from broken
    if len(chunks) == 1:
        return Found(image, cut_off=not ended)
    key: tuple[int, ...] = ()
    lower_bytes = None
    transparent = bytes(chunks.get(b"tRNS", b""))
    if colour == PALETTE:
        palette = bytes(chunks[b"PLTE"])
        image.putpalette(palette.ljust(3 * 256, b"\0"))
        if 0 < len(transparent) <= len(palette) // 3:
            image.info["transparency"] = transparent
    elif colour in (GREY, COLOUR) and len(transparent) == 2 * len(image.getbands()):
        key = transparent_colour(transparent, depth, colour)
        if (depth, colour) == (16, COLOUR):
            lower_bytes = inflated(mode, LOWER_BYTES, size, data, interlaced)
    return Found(image, png_orientation(chunks), not ended, key, lower_bytes)


def plain_pixels(picture: bytes, side: int) -> bytes | None:
    """The pixels of a sound PNG file of side x side 8-bit grey pixels, in one chunk, with nothing beside it.

    None for any other file: read_png() reads it, or says what is wrong. This takes half as long.
    """
    if len(picture) < PLAIN_BEGINNING.size + PLAIN_END.size:
        return None
    head, width, height, kind, checksum, length, name = PLAIN_BEGINNING.unpack_from(picture)
    data_checksum, end = PLAIN_END.unpack_from(picture, len(picture) - PLAIN_END.size)
    data = memoryview(picture)[PLAIN_BEGINNING.size : -PLAIN_END.size]
    is_plain = (
        (head, kind, name, end) == PLAIN
        and width == height == side
        and length == len(data)
        and zlib.crc32(picture[12:29]) == checksum
        and zlib.crc32(data, zlib.crc32(name)) == data_checksum
    )
    return decoded_plain(data, (side, side)) if is_plain else None


def decoded_plain(data: memoryview, size: tuple[int, int]) -> bytes | None:
    """As inflated() for 8-bit grey pixels, without Pillow's layer of Python; None if anything is odd."""
    box, last = (0, 0, *size), (size[0] - 1, size[1] - 1)
    with suppress(Exception):
        image = _imaging.new("L", size)
        for mark in (1, 0):
            image.putpixel(last, mark)
            decoder = _imaging.zip_decoder("L", "L", 0)
            decoder.setimage(image, box)
            if decoder.decode(data) != DECODED:
                return None
            if image.getpixel(last) != mark:
                encoder = _imaging.raw_encoder("L", "L", 0, 1)
                encoder.setimage(image, box)
                _, _, pixels = encoder.encode(size[0] * size[1])
                return bytes(pixels) if len(pixels) == size[0] * size[1] else None
    return None


def transparent_colour(transparent: bytes, depth: int, colour: int) -> tuple[int, ...]:
    """The colour in a tRNS chunk, in the scale of Pillow's pixels."""
    top = (1 << depth) - 1
    values = [value & top for (value,) in NUMBER.iter_unpack(transparent)]
    if depth == 16 and colour == COLOUR:
        return (*(value >> 8 for value in values), *(value & 255 for value in values))
    return tuple(value if depth >= 8 else value * 255 // top for value in values)


def png_chunks(picture: bytes) -> tuple[dict[bytes, memoryview], list[memoryview], bool]:
    """The first chunk of each useful type, all IDAT chunks, and whether the file has its end.

    Skips an ancillary chunk with a wrong checksum. Raises PictureError for a critical one.
    """
    view, at = memoryview(picture), len(PNG)
    found: dict[bytes, memoryview] = {}
    pixels: list[memoryview] = []
    for _ in range(MOST_CHUNKS):
        if len(picture) < at + 12:
            return found, pixels, False
        length, name = CHUNK.unpack_from(picture, at)
        content, end = view[at + 8 : at + 8 + length], at + 12 + length
        if name == b"IEND" or len(picture) < end:
            return found, pixels, name == b"IEND"
        critical = name in (b"IDAT", b"IHDR", b"PLTE")
        if critical or name in (b"tRNS", b"eXIf") or (name in TEXTS and TEXT_OF_USE.match(content)):
            sound = zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")
            if critical and not sound:
                raise PictureError(
                    f"The PNG picture is damaged: its {name.decode()} chunk has a wrong checksum."
                )
            if name == b"IDAT":
                pixels.append(content)
            elif sound and not (pixels and name in (b"PLTE", b"tRNS")):
                found.setdefault(name, content)
        at = end
    raise PictureError(f"The PNG picture has more than {MOST_CHUNKS} chunks.")


def inflated(
    mode: str, raw_mode: str, size: tuple[int, int], data: bytes | memoryview, interlaced: int
) -> Image.Image:
    """Decompresses the data of a PNG file. Raises ValueError if rows are missing.

    Pillow ignores missing rows if the data ends after a complete one, so the last pixel is marked first.
    """
    last = last_pixel(*size) if interlaced else (size[0] - 1, size[1] - 1)
    for mark in (1, 0):
        image = Image.new(mode, size, None)
        image.putpixel(last, mark)
        marked = image.getpixel(last)
        image.frombytes(data, "zip", raw_mode, interlaced)
        if image.getpixel(last) != marked:
            return image
    raise ValueError("There are fewer rows than the header says.")


def last_pixel(width: int, height: int) -> tuple[int, int]:
    """The pixel that an interlaced PNG stores last: in the odd rows or, if there are none, odd columns."""
    if height > 1:
        return width - 1, height // 2 * 2 - 1
    return max(0, width // 2 * 2 - 1), 0


def png_orientation(chunks: dict[bytes, memoryview]) -> int:
    """The orientation from the eXIf chunk, or else from text chunks used in its place."""
    exif, xmp = bytes(chunks.get(b"eXIf", b"")), b""
    for name in TEXTS & chunks.keys():
        keyword, _, content = bytes(chunks[name]).partition(b"\0")
        with suppress(ValueError, zlib.error):
            text = png_text(name, content)
            if keyword == XMP:
                xmp = text
            else:  # a line break, the name, the length, and then hexadecimal digits
                exif = exif or bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode())
    return orientation_of(exif, xmp)


def png_text(name: bytes, content: bytes) -> bytes:
    """The text after the keyword of a text chunk, up to 256 KiB. Raises ValueError and zlib.error."""
    if name == b"tEXt":
        return content
    compressed, at = True, 1
    if name == b"iTXt":
        compressed, at = content[:1] == b"\1", content.index(b"\0", content.index(b"\0", 2) + 1) + 1
    text = content[at:]
    return zlib.decompressobj().decompress(text, MOST_TEXT) if compressed else text


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation, 1 to 8, from EXIF or else XMP data; 1 if unreadable, as viewers assume."""
    tiff = re.sub(rb"\A(?:Exif\0\0){1,2}", b"", exif)
    order = ">" if tiff[:2] == b"MM" else "<"
    try:
        (entry,) = unpack_from(f"{order}I", tiff, 4)
        (count,) = unpack_from(f"{order}H", tiff, entry)
        for at in range(entry + 2, entry + 2 + 12 * count, 12):
            tag, kind = unpack_from(f"{order}HH", tiff, at)
            if tag == ORIENTATION:
                return int(unpack_from(f"{order}{'I' if kind == LONG else 'H'}", tiff, at + 8)[0])
    except error:
        pass
    found = XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1


def read_jpeg(picture: bytes, max_pixels: int, longest_edge: int) -> Found:
    """Reads a JPEG file; if it holds several pictures, the first."""
    bare = without_metadata(picture)
    if marks_of_scans(bare) > MOST_SCANS:  # though some may follow the picture
        end_of_scans(bare)
    try:
        image = decoded_jpeg(bare.file, max_pixels, longest_edge)
        return Found(image, bare.orientation, bare.file.rfind(b"\xff\xd9", bare.scans_at) < 0)
    except OSError:
        end = end_of_scans(bare)
        if end is None:
            raise
    return Found(jpeg_without_end(bare.file[:end], max_pixels), bare.orientation, cut_off=True)


def without_metadata(picture: bytes) -> BareJpeg:
    """Drops the segments that the pixels do not need. Raises PictureError and ValueError."""
    kept, components, exif, xmp, at = [b"\xff\xd8"], b"", b"", b"", 2
    for _ in range(MOST_SEGMENTS):
        marker = MARKER.search(picture, at)
        if marker is None or len(picture) < marker.end() + 2:
            raise ValueError("The file ends before the first scan.")
        at, kind = marker.end(), picture[marker.end() - 1]
        if kind in STANDALONE:
            continue
        if kind == START_OF_SCAN:
            head = b"".join(kept)
            file = head + memoryview(picture)[at - 2 :]
            return BareJpeg(file, len(head), components, orientation_of(exif, xmp))
        (length,) = NUMBER.unpack_from(picture, at)
        content = picture[at + 2 : at + length]
        if kind in FRAMES:
            if kind not in READABLE_FRAMES or content[:1] != b"\x08":
                raise PictureError("This kind of JPEG cannot be read. Save it as baseline JPEG, or as PNG.")
            components = content[6::3]
        if kind not in METADATA or ((kind, content[:5]) in COLOUR_SPACES and len(content) >= 12):
            kept.append(picture[at - 2 : at + length])
        elif kind == EXIF_OR_XMP and content.startswith(b"Exif\0"):
            exif = exif or content
        elif kind == EXIF_OR_XMP:
            xmp = xmp or content
        at += max(2, length)
    raise PictureError(f"The JPEG picture has more than {MOST_SEGMENTS} segments.")


def marks_of_scans(bare: BareJpeg) -> int:
    """How often the mark of a scan occurs, as pairs of bytes from even and from odd places.

    In 3 MB, bytes.count() takes 2.8 ms, this 0.3.
    """
    data = np.frombuffer(bare.file, np.uint8, offset=bare.scans_at)
    pairs = (data[first : first + (len(data) - first) // 2 * 2].view(">u2") for first in (0, 1))
    return sum(int(np.count_nonzero(each == START_OF_SCAN_MARK)) for each in pairs)


def decoded_jpeg(file: bytes, max_pixels: int, longest_edge: int) -> Image.Image:
    """Decodes a JPEG file, reduced up to 8 times if it stays above longest_edge.

    Raises PictureError and OSError.
    """
    image = JpegImageFile(BytesIO(file))
    check_size(*image.size, max_pixels)
    image.draft("RGB", (longest_edge, longest_edge))
    image.load()
    return image


def jpeg_without_end(file: bytes, max_pixels: int) -> Image.Image:
    """The rows present in a truncated JPEG file. Raises PictureError if they are below 90 % of the height.

    A row counts as missing if different data after the end of the file would change it.
    """
    shown, other = (
        decoded_jpeg(file + data + b"\xff\xd9", max_pixels, JUDGED_EDGE) for data in (b"", other_data(file))
    )
    differing = np.asarray(ImageChops.difference(shown, other)).reshape(shown.height, -1).any(axis=1)
    rows = int(differing.argmax()) if differing.any() else shown.height
    if rows < LEAST_ROWS * shown.height:
        share = 100 * rows // shown.height
        raise PictureError(f"The picture is damaged or incomplete: only {share} % of its rows are present.")
    return shown.crop((0, 0, shown.width, rows))


def other_data(file: bytes) -> bytes:
    """Data that decodes to something other than the grey that libjpeg assumes for missing data.

    Where a restart marker is due, libjpeg skips to the marker with the next number.
    """
    last = max(range(8), key=lambda number: file.rfind(bytes((0xFF, 0xD0 + number))))
    begun = file.rfind(bytes((0xFF, 0xD0 + last))) > file.rfind(b"\xff\xda")
    numbers = [(last + 1 + place) % 8 if begun else place for place in range(8)]
    return OTHER_BITS + b"".join(bytes((0xFF, 0xD0 + number)) + OTHER_BITS for number in numbers)


def end_of_scans(bare: BareJpeg) -> int | None:
    """The offset of the end of the last scan if the end marker is missing; None if there is one.

    Raises PictureError if there are too many scans, or too few: each scan of a progressive file holds some
    bits of some coefficients, and all coefficients must be present.
    """
    file, at, scans = bare.file, bare.scans_at, 0
    missing = set(product(bare.components, range(64)))
    for _ in range(MOST_SEGMENTS):
        marker = MARKER_BEHIND_DATA.search(file, at)
        at, kind = (marker.start(), file[marker.end() - 1]) if marker else (len(file), None)
        if kind == END_OF_IMAGE:
            return None
        length = int.from_bytes(file[at + 2 : at + 4], "big")
        content = file[at + 4 : at + 2 + length]
        if kind not in BETWEEN_SCANS or len(content) + 2 != length:
            break
        if kind == START_OF_SCAN and len(content) >= 4:
            scans += 1
            if scans > MOST_SCANS:
                raise PictureError(f"The JPEG picture has more than {MOST_SCANS} scans.")
            first, last, bits = content[-3:]
            if bits & 15 == 0:
                missing -= set(product(content[1:-3:2], range(first, min(last, 63) + 1)))
        at += 2 + length
    if missing:
        raise PictureError("The picture is damaged or incomplete: some of its scans are missing.")
    return len(file[:at].rstrip(b"\xff"))


def read_webp(picture: bytes, max_pixels: int, longest_edge: int) -> Found:
    """Reads a WebP file; for an animation, the first frame."""
    still = first_frame(picture)
    check_size(*still.size, max_pixels)
    times = max(still.size) // (2 * longest_edge)
    image = scaled(still, times) if times >= LEAST_TIMES else None
    if image is None:
        image = WebPImageFile(BytesIO(still.file))
        image.load()
    return Found(image, orientation_of(still.exif, still.xmp), still.cut_off)
