"""The short way for plain PNG files of 28x28 pixels gives what the reader of all files gives, or nothing."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from model.decoding import open_upright
from model.formats import plain_pixels, read_png
from model.garment import SIDE
from model.preprocessing import PictureError, as_raw28, prepare
from tests.faults.corpus import files
from tests.unit.png_files import COLOUR, DEPTHS, GREY, chunk, png

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*.png"))
MAX_PIXELS = 25_000_000
KINDS = [(colour, depth) for colour, depths in DEPTHS.items() for depth in depths]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ASIDE = [chunk(b"tEXt", b"Title\0x"), chunk(b"gAMA", b"\0\0\xb1\x8f"), chunk(b"tRNS", b"\0\x07")]


def read(file):
    """What the reader for all files makes of it: its pixels, or why there are none."""
    try:
        found = read_png(file, MAX_PIXELS, SIDE)
    except Exception as error:
        return repr(error)
    is_plain = found.image.mode == "L" and (found.orientation, found.cut_off, found.key) == (1, False, ())
    return found.image.tobytes() if is_plain else "not plain"


def prepared(file):
    try:
        return prepare(file, max_pixels=MAX_PIXELS)
    except PictureError as error:
        return str(error)


def prepared_by_all_readers(file):
    try:
        image, transparency, cut_off = open_upright(file, max_pixels=MAX_PIXELS, longest_edge=256)
    except PictureError as error:
        return str(error)
    except Exception:
        return "The picture is damaged or incomplete."
    if image.size != (SIDE, SIDE) or transparency is not None or cut_off:
        return None  # what becomes of these does not depend on the short way, which gives nothing
    return as_raw28(image, None)


def same(one, other):
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return np.array_equal(one.pixels, other.pixels) and one[1:] == other[1:]


def corpus():
    """Files of all kinds and sizes near 28x28, some of them sound and plain; and what was done to them."""
    for number in range(3_000):
        random = np.random.default_rng(number)
        colour, depth = KINDS[number % len(KINDS)] if number % 3 == 0 else (GREY, 8)
        height, width = (SIDE, SIDE) if random.random() < 0.9 else random.integers(1, 60, 2)
        top = 1 << depth if random.random() < 0.8 else 2
        values = random.integers(0, top, (height, width, CHANNELS[colour]))
        if random.random() < 0.2:
            values[-1, -1] = random.integers(0, 2)
        before = [chunk(b"PLTE", bytes(3 * (1 << depth)))] if colour == 3 else []
        before += [each for each in ASIDE if random.random() < 0.05]
        after = [each for each in ASIDE if random.random() < 0.05]
        yield damaged(
            png(
                values,
                depth,
                colour,
                before=before,
                after=after,
                interlaced=random.random() < 0.1,
                pieces=1 + (random.random() < 0.1),
                filtering=number if random.random() < 0.8 else 0,
                end=random.random() < 0.95,
            ),
            random,
        )


def damaged(file, random):
    """The file itself, half of the times."""
    at = int(random.integers(0, len(file)))
    match random.integers(0, 12):
        case 0:
            return file[:at]
        case 1:
            return file[:at] + bytes([file[at] ^ (1 << int(random.integers(8)))]) + file[at + 1 :]
        case 2:
            return file + bytes(random.integers(0, 256, 5, np.uint8))
        case 3:
            return file[:at] + file[at : at + 9] + file[at:]
        case 4 | 5:  # whatever is in it, the checksum of the data is right
            start, data = file.find(b"IDAT"), bytearray(file)
            length = int.from_bytes(data[start - 4 : start])
            if start > 0 and length:
                data[start + 4 + int(random.integers(0, length))] ^= 1 << int(random.integers(8))
                data[start + 4 + length : start + 8 + length] = zlib.crc32(
                    data[start : start + 4 + length]
                ).to_bytes(4)
            return bytes(data)
        case _:
            return file


def test_a_plain_file_has_the_pixels_that_were_written():
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 1))
    for seed in range(20):
        file = png(values, 8, GREY, filtering=seed)
        assert plain_pixels(file, SIDE) == values.astype(np.uint8).tobytes()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_go_the_short_way(sample):
    file = sample.read_bytes()
    assert plain_pixels(file, SIDE) == read(file)
    assert same(prepared(file), prepared_by_all_readers(file))


def test_whatever_a_file_holds_the_short_way_gives_the_same_or_nothing():
    given = refused = 0
    for file in corpus():
        pixels, expected = plain_pixels(file, SIDE), read(file)
        given, refused = given + (pixels is not None), refused + (pixels is None)
        assert pixels in (None, expected), file.hex()
        other = prepared_by_all_readers(file)
        assert other is None or same(prepared(file), other), file.hex()
    assert given > 500 and refused > 500


def test_the_corpus_of_faults_gives_the_same_or_nothing():
    for name, file in files.pictures():
        assert plain_pixels(file, SIDE) in (None, read(file)), name


@pytest.mark.parametrize("last", [0, 1, 2, 255])
@pytest.mark.parametrize("rows", [26, 27, 28, 29])
def test_rows_that_are_missing_or_too_many_are_as_for_the_reader_of_all(rows, last):
    data = (b"\0" + bytes([last]) * SIDE) * rows
    header = chunk(b"IHDR", SIDE.to_bytes(4) * 2 + b"\x08\0\0\0\0")
    file = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    expected = read(file)
    assert isinstance(expected, str) == (rows < SIDE)
    assert plain_pixels(file, SIDE) == (None if rows < SIDE else expected)


@pytest.mark.parametrize("fill", [0, 127, 128, 255])
def test_a_bright_border_inverts_it_as_on_the_long_way(fill):
    values = np.full((SIDE, SIDE, 1), 60)
    values[[0, -1]] = values[:, [0, -1]] = fill
    assert same(prepared(png(values, 8, GREY)), prepared_by_all_readers(png(values, 8, GREY)))


def test_a_limit_below_its_pixels_refuses_it():
    with pytest.raises(PictureError, match="28 x 28 pixels; at most 100"):
        prepare(SAMPLES[0].read_bytes(), max_pixels=100)


def test_pictures_of_other_kinds_do_not_go_the_short_way():
    assert plain_pixels(png(np.zeros((SIDE, SIDE, 3), int), 8, COLOUR), SIDE) is None
    assert plain_pixels(png(np.zeros((SIDE, SIDE - 1, 1), int), 8, GREY), SIDE) is None
    assert plain_pixels(b"", SIDE) is None
