"""Picture files that are damaged, lie about themselves, or are no pictures."""

import io
import itertools
import random
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

ACCEPTED = ("PNG", "JPEG", "WEBP")
REFUSED = ("GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "DDS", "SGI")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F", "HSV", "LAB", "YCbCr")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIZES = (0, 1, 27, 65_535, 100_000, 2**31 - 1, 2**32 - 1)
_KINDS = ((1, 0), (8, 0), (16, 0), (8, 2), (16, 6), (8, 3), (4, 3), (3, 0), (8, 7))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes | None:
    """None if the format cannot store the picture."""
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError):
        return None
    return file.getvalue()


def noise(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pictures() -> Iterator[tuple[str, bytes]]:
    """Crafted files by name."""
    pngs = (*_png_sizes(), *_png_bombs(), *_broken_pngs())
    for name, content in (*pngs, *_modes(), *_jpegs(), *_webps(), *_strangers(), *_bytes()):
        if content is not None:
            yield name, content


def _modes() -> Iterator[tuple[str, bytes | None]]:
    for kind in (*ACCEPTED, *REFUSED):
        for mode in MODES if kind in ACCEPTED else ("RGB",):
            try:
                image = noise().convert(mode)
            except ValueError:
                continue
            yield f"{kind} {mode}", encoded(image, kind)
    for width, height in ((1, 1), (1, 3000), (3000, 1), (2, 2), (4999, 4999)):
        yield f"JPEG {width} x {height}", encoded(Image.new("L", (width, height)), "JPEG")
        yield f"PNG {width} x {height}", encoded(Image.new("L", (width, height)), "PNG")
    frames = [noise(), noise().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    yield "animated PNG", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "animated WebP", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def _jpegs() -> Iterator[tuple[str, bytes | None]]:
    for options in ({}, {"progressive": True}, {"quality": 1}, {"subsampling": 2}, {"optimize": True}):
        whole = encoded(noise(), "JPEG", **options) or b""
        yield f"jpeg {options}", whole
        for part in range(1, 8):
            yield f"jpeg {options} cut at {part}/8", whole[: len(whole) * part // 8]
    whole = encoded(noise(), "JPEG") or b""
    size = whole.index(b"\xff\xc0") + 5
    for height, width in ((0, 0), (65_535, 65_535), (1, 65_535), (0, 40)):
        yield (
            f"jpeg says {width} x {height}",
            whole[:size] + struct.pack(">HH", height, width) + whole[size + 4 :],
        )
    for marker in (b"\xff\xc4", b"\xff\xdb", b"\xff\xda", b"\xff\xc0"):
        at = whole.index(marker)
        yield f"jpeg without {marker.hex()}", whole[:at] + whole[at + 2 :]
        yield f"jpeg {marker.hex()} of length 0", whole[: at + 2] + b"\0\0" + whole[at + 4 :]
        yield f"jpeg {marker.hex()} of length 65535", whole[: at + 2] + b"\xff\xff" + whole[at + 4 :]
    for orientation in range(12):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"jpeg orientation {orientation}", encoded(noise(), "JPEG", exif=exif.tobytes())
    for name, segment in (("exif", b"Exif\0\0MM\0*\xff\xff\xff\xff"), ("icc", b"ICC_PROFILE\0\1\1garbage")):
        garbage = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
        yield f"jpeg {name} garbage", whole[:2] + garbage + whole[2:]
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    yield "jpeg 6 MB of comments", whole[:2] + comment * 100 + whole[2:]
    yield "jpeg start and end", b"\xff\xd8\xff\xd9"
    yield "jpeg twice", whole + whole
    yield "jpeg 2,000 scans", whole[:-2] + whole[whole.index(b"\xff\xda") : -2] * 2_000 + b"\xff\xd9"


def _webps() -> Iterator[tuple[str, bytes | None]]:
    for options in ({}, {"lossless": True}):
        whole = encoded(noise(), "WEBP", **options) or b""
        for part in range(1, 8):
            yield f"webp {options} cut at {part}/8", whole[: len(whole) * part // 8]
        yield f"webp {options} size of zero", whole[:4] + bytes(4) + whole[8:]
        yield f"webp {options} size of 4 GB", whole[:4] + b"\xff" * 4 + whole[8:]
    large = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff" * 6
    yield "webp canvas of 16 million squared", b"RIFF" + struct.pack("<I", len(large) + 4) + b"WEBP" + large


def _strangers() -> Iterator[tuple[str, bytes | None]]:
    heads = {
        "html": b"<!doctype html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "svg bomb": b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;">]><svg>&c;</svg>',
        "pdf": b"%PDF-1.7\n",
        "zip": b"PK\3\4" + bytes(100),
        "gzip": b"\x1f\x8b\x08" + bytes(100),
        "elf": b"\x7fELF\2\1\1" + bytes(100),
        "heic": b"\0\0\0\x18ftypheic" + bytes(100),
        "avif": b"\0\0\0\x18ftypavif" + bytes(100),
        "mp4": b"\0\0\0\x18ftypisom" + bytes(100),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "shell": b"#!/bin/sh\nexit 1\n",
        "pickle": b"\x80\x04cos\nsystem\n(S'exit'\ntR.",
        "psd": b"8BPS\0\1" + bytes(100),
        "fits": b"SIMPLE  =                    T" + b" " * 2850,
        "json": b'{"picture": null}',
        "java class": b"\xca\xfe\xba\xbe" + bytes(60),
    }
    yield from heads.items()


def _bytes() -> Iterator[tuple[str, bytes | None]]:
    chance = np.random.default_rng(2)
    for size in (0, 1, 2, 7, 8, 100, 10_000, 1_000_000, 10 * 2**20, 10 * 2**20 + 1):
        yield f"{size} zeros", bytes(size)
        yield f"{size} random bytes", chance.bytes(size)
    for signature in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\0\1\0\0WEBPVP8 "):
        yield f"{signature[:4]!r} and noise", signature + chance.bytes(5_000)
        yield f"{signature[:4]!r} alone", signature


def png_chunk(name: bytes, data: bytes, *, crc: int | None = None, length: int | None = None) -> bytes:
    right = zlib.crc32(name + data)
    head = struct.pack(">I", len(data) if length is None else length)
    return head + name + data + struct.pack(">I", right if crc is None else crc)


def _header(width: int = 28, height: int = 28, depth: int = 8, kind: int = 0, interlace: int = 0) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace))


PIXELS = zlib.compress(bytes(29 * 28))
DATA, END = png_chunk(b"IDAT", PIXELS), png_chunk(b"IEND", b"")


def _png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


def _png_sizes() -> Iterator[tuple[str, bytes]]:
    for width, height in itertools.product(_SIZES, _SIZES):
        yield f"png {width} x {height}", _png(_header(width, height), DATA, END)
    for (depth, kind), interlace in itertools.product(_KINDS, (0, 1, 2)):
        yield (
            f"png depth {depth} kind {kind} interlace {interlace}",
            _png(_header(depth=depth, kind=kind, interlace=interlace), DATA, END),
        )


def _png_bombs() -> Iterator[tuple[str, bytes]]:
    zeros = zlib.compress(bytes(20_000_000), 9)
    yield "png 20 MB of zeros for 28 x 28", _png(_header(), png_chunk(b"IDAT", zeros), END)
    for side in (5_001, 20_000, 60_000):
        pixels = zlib.compress(bytes(min(side * (side + 1), 50_000_000)), 9)
        yield f"png bomb of {side} x {side}", _png(_header(side, side), png_chunk(b"IDAT", pixels), END)
    for name, prefix in ((b"iCCP", b"profile\0\0"), (b"zTXt", b"comment\0\0"), (b"iTXt", b"c\0\1\0\0\0")):
        yield f"png {name.decode()} bomb", _png(_header(), png_chunk(name, prefix + zeros), DATA, END)
    yield "png 20,000 text chunks", _png(_header(), *[png_chunk(b"tEXt", b"a\0b")] * 20_000, DATA, END)
    yield "png 50,000 empty IDAT", _png(_header(), *[png_chunk(b"IDAT", b"")] * 50_000, DATA, END)
    frame = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 28, 28, 0, 0, 1, 1, 0, 0))
    control = png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield "apng of two billion frames", _png(_header(), control, frame, DATA, END)
    yield (
        "apng frame larger than the picture",
        _png(
            _header(),
            png_chunk(b"acTL", struct.pack(">II", 2, 0)),
            png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 60_000, 60_000, 0, 0, 1, 1, 0, 0)),
            DATA,
            END,
        ),
    )


def _broken_pngs() -> Iterator[tuple[str, bytes]]:
    whole = _png(_header(), DATA, END)
    for length in range(0, len(whole), 7):
        yield f"png cut after {length}", whole[:length]
    yield "png no header", _png(DATA, END)
    yield "png two headers", _png(_header(), _header(1, 1), DATA, END)
    yield "png data before header", _png(DATA, _header(), END)
    yield "png no data", _png(_header(), END)
    yield "png no end", _png(_header(), DATA)
    yield "png wrong crc of header", _png(_header()[:-4] + b"\0\0\0\0", DATA, END)
    yield "png wrong crc of data", _png(_header(), png_chunk(b"IDAT", PIXELS, crc=1), END)
    yield "png huge length", _png(_header(), png_chunk(b"IDAT", PIXELS, length=2**32 - 1), END)
    yield "png negative length", _png(_header(), png_chunk(b"IDAT", PIXELS, length=2**31), END)
    yield "png garbage for data", _png(_header(), png_chunk(b"IDAT", b"\xff" * 800), END)
    yield "png too little data", _png(_header(), png_chunk(b"IDAT", zlib.compress(bytes(10))), END)
    yield "png palette without palette", _png(_header(kind=3), DATA, END)
    yield "png palette of 300", _png(_header(kind=3), png_chunk(b"PLTE", bytes(900)), DATA, END)
    yield "png palette of 1 byte", _png(_header(kind=3), png_chunk(b"PLTE", b"\0"), DATA, END)
    yield "png odd transparency", _png(_header(), png_chunk(b"tRNS", b"\0"), DATA, END)
    yield (
        "png index over the palette",
        _png(
            _header(kind=3),
            png_chunk(b"PLTE", bytes(3)),
            png_chunk(b"IDAT", zlib.compress(b"\0" + b"\xff" * 28) * 28),
            END,
        ),
    )
    yield "png gamma of zero", _png(_header(), png_chunk(b"gAMA", bytes(4)), DATA, END)
    yield "png exif garbage", _png(_header(), png_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"), DATA, END)
    yield "png unknown critical chunk", _png(_header(), png_chunk(b"ABCD", b"x"), DATA, END)
    yield "png and a zip behind it", whole + b"PK\3\4" + bytes(500)
    yield "png signature damaged by line ends", whole.replace(b"\r\n", b"\n", 1)


def mutated(originals: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Copies of the originals with random damage, reproducible by the seed."""
    chance = random.Random(seed)
    for _ in range(count):
        content = bytearray(chance.choice(originals))
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            chance.choice(_CHANGES)(content, chance)
        yield bytes(content)


def _flip(content: bytearray, chance: random.Random) -> None:
    if content:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def _overwrite(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content) + 1)
    content[at : at + 4] = chance.choice(
        (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", chance.randbytes(4))
    )


def _insert(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content) + 1)
    content[at:at] = chance.randbytes(chance.randrange(1, 20))


def _remove(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content) + 1)
    del content[at : at + chance.randrange(1, 20)]


def _repeat(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content) + 1)
    content[at:at] = content[at : at + chance.randrange(1, 200)]


def _cut(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content) + 1) :]


_CHANGES = (_flip, _flip, _flip, _overwrite, _insert, _remove, _repeat, _cut)
