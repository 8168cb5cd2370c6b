"""An encoder of PNG files for tests: all colour types and depths, interlaced or not, with any chunks."""

import struct
import zlib

import numpy as np

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}
DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    COLOUR: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    COLOUR_ALPHA: (8, 16),
}
# Of Adam7: first column, first row, columns and rows between.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(name, content, checksum=None):
    """A chunk; its checksum is right unless another is given."""
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(values, depth, colour, *, before=(), after=(), interlaced=False, pieces=1, filtering=0, end=True):
    """The file for values (h, w, channels) below 2 ** depth. filtering seeds the filters of the rows."""
    height, width = values.shape[:2]
    random = np.random.default_rng(filtering) if filtering else None
    parts = [values[y::down, x::across] for x, y, across, down in PASSES] if interlaced else [values]
    data = zlib.compress(b"".join(rows_of(part, depth, random) for part in parts if part.size))
    size = -(-len(data) // pieces)
    pixels = [chunk(b"IDAT", data[at : at + size]) for at in range(0, len(data), size)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    tail = [chunk(b"IEND", b"")] if end else []
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *before, *pixels, *after, *tail])


def rows_of(values, depth, random):
    """The rows of a picture or a pass, each behind the number of its filter."""
    flat = values.reshape(len(values), -1)
    if depth == 16:
        rows = flat.astype(">u2").view(np.uint8)
    elif depth == 8:
        rows = flat.astype(np.uint8)
    else:
        bits = (flat[..., None] >> np.arange(depth)[::-1]) & 1
        rows = np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=1)
    rows = np.ascontiguousarray(rows).astype(int)
    step = max(1, values.shape[2] * depth // 8)
    above, out = np.zeros(rows.shape[1], int), []
    for row in rows:
        kind = 0 if random is None else int(random.integers(5))
        out.append(bytes([kind]) + filtered(row, above, step, kind).astype(np.uint8).tobytes())
        above = row
    return b"".join(out)


def filtered(row, above, step, kind):
    """The row less what the filter expects of it (PNG specification, section 9)."""
    left, corner = (np.concatenate((np.zeros(step, int), line))[: len(line)] for line in (row, above))
    if kind < 4:
        return (row - (0, left, above, (left + above) // 2)[kind]) % 256
    guess = left + above - corner
    distances = np.abs(np.stack((left, above, corner)) - guess)
    return (row - np.choose(distances.argmin(axis=0), (left, above, corner))) % 256
