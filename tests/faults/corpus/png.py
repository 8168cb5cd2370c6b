"""PNG files that lie, burst or break off (RFC 2083; APNG)."""

import itertools
import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIZES = (0, 1, 27, 65_535, 100_000, 2**31 - 1, 2**32 - 1)
KINDS = ((1, 0), (8, 0), (16, 0), (8, 2), (16, 6), (8, 3), (4, 3), (3, 0), (8, 7))


def chunk(name: bytes, data: bytes, *, crc: int | None = None, length: int | None = None) -> bytes:
    right = zlib.crc32(name + data)
    head = struct.pack(">I", len(data) if length is None else length)
    return head + name + data + struct.pack(">I", right if crc is None else crc)


def header(width: int = 28, height: int = 28, depth: int = 8, kind: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace))


PIXELS = zlib.compress(bytes(29 * 28))
DATA, END = chunk(b"IDAT", PIXELS), chunk(b"IEND", b"")


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


def pictures() -> Iterator[tuple[str, bytes]]:
    yield from _sizes()
    yield from _bombs()
    yield from _broken()


def _sizes() -> Iterator[tuple[str, bytes]]:
    for width, height in itertools.product(SIZES, SIZES):
        yield f"png {width} x {height}", png(header(width, height), DATA, END)
    for (depth, kind), interlace in itertools.product(KINDS, (0, 1, 2)):
        yield (
            f"png depth {depth} kind {kind} interlace {interlace}",
            png(header(depth=depth, kind=kind, interlace=interlace), DATA, END),
        )


def _bombs() -> Iterator[tuple[str, bytes]]:
    zeros = zlib.compress(bytes(20_000_000), 9)
    yield "png 20 MB of zeros for 28 x 28", png(header(), chunk(b"IDAT", zeros), END)
    for side in (5_001, 20_000, 60_000):
        pixels = zlib.compress(bytes(min(side * (side + 1), 50_000_000)), 9)
        yield f"png bomb of {side} x {side}", png(header(side, side), chunk(b"IDAT", pixels), END)
    for name, prefix in ((b"iCCP", b"profile\0\0"), (b"zTXt", b"comment\0\0"), (b"iTXt", b"c\0\1\0\0\0")):
        yield f"png {name.decode()} bomb", png(header(), chunk(name, prefix + zeros), DATA, END)
    yield "png 20,000 text chunks", png(header(), *[chunk(b"tEXt", b"a\0b")] * 20_000, DATA, END)
    yield "png 50,000 empty IDAT", png(header(), *[chunk(b"IDAT", b"")] * 50_000, DATA, END)
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 28, 28, 0, 0, 1, 1, 0, 0))
    control = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield "apng of two billion frames", png(header(), control, frame, DATA, END)
    yield (
        "apng frame larger than the picture",
        png(
            header(),
            chunk(b"acTL", struct.pack(">II", 2, 0)),
            chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 60_000, 60_000, 0, 0, 1, 1, 0, 0)),
            DATA,
            END,
        ),
    )


def _broken() -> Iterator[tuple[str, bytes]]:
    whole = png(header(), DATA, END)
    for length in range(0, len(whole), 7):
        yield f"png cut after {length}", whole[:length]
    yield "png no header", png(DATA, END)
    yield "png two headers", png(header(), header(1, 1), DATA, END)
    yield "png data before header", png(DATA, header(), END)
    yield "png no data", png(header(), END)
    yield "png no end", png(header(), DATA)
    yield "png wrong crc of header", png(header()[:-4] + b"\0\0\0\0", DATA, END)
    yield "png wrong crc of data", png(header(), chunk(b"IDAT", PIXELS, crc=1), END)
    yield "png huge length", png(header(), chunk(b"IDAT", PIXELS, length=2**32 - 1), END)
    yield "png negative length", png(header(), chunk(b"IDAT", PIXELS, length=2**31), END)
    yield "png garbage for data", png(header(), chunk(b"IDAT", b"\xff" * 800), END)
    yield "png too little data", png(header(), chunk(b"IDAT", zlib.compress(bytes(10))), END)
    yield "png palette without palette", png(header(kind=3), DATA, END)
    yield "png palette of 300", png(header(kind=3), chunk(b"PLTE", bytes(900)), DATA, END)
    yield "png palette of 1 byte", png(header(kind=3), chunk(b"PLTE", b"\0"), DATA, END)
    yield "png odd transparency", png(header(), chunk(b"tRNS", b"\0"), DATA, END)
    yield (
        "png index over the palette",
        png(
            header(kind=3),
            chunk(b"PLTE", bytes(3)),
            chunk(b"IDAT", zlib.compress(b"\0" + b"\xff" * 28) * 28),
            END,
        ),
    )
    yield "png gamma of zero", png(header(), chunk(b"gAMA", bytes(4)), DATA, END)
    yield "png exif garbage", png(header(), chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"), DATA, END)
    yield "png unknown critical chunk", png(header(), chunk(b"ABCD", b"x"), DATA, END)
    yield "png and a zip behind it", whole + b"PK\3\4" + bytes(500)
    yield "png signature damaged by line ends", whole.replace(b"\r\n", b"\n", 1)
