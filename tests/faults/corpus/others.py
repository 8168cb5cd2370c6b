"""JPEG and WebP files that lie or break off, and files that are no pictures."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

ACCEPTED = ("PNG", "JPEG", "WEBP")
REFUSED = ("GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "DDS", "SGI")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F", "HSV", "LAB", "YCbCr")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes | None:
    """None where the format has no such picture."""
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
    for name, content in (*_modes(), *_jpegs(), *_webps(), *_strangers(), *_bytes()):
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
