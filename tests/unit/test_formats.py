"""What the pixels of a file are, compared with the numbers that went into it."""

import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import webp
from model.decoding import open_upright
from model.formats import MOST_SCANS, BareJpeg, PictureError, marks_of_scans
from tests.unit.png_files import COLOUR, COLOUR_ALPHA, DEPTHS, GREY, PALETTE, chunk, png

HEIC = Path(__file__).parents[1] / "data" / "sandal.heic"
SAMPLES = Path(__file__).parents[2] / "samples"
MAX_PIXELS = 25_000_000
PIECES = 3
SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (5, 4), (17, 13), (1, 300)]
KINDS = [(colour, depth) for colour, depths in DEPTHS.items() for depth in depths]
COLOURS = np.random.default_rng(1).integers(0, 256, (50, 40, 3))
BOMB = zlib.compress(b"a" * 1_200_000)
ORIENTED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""EXIF data that say: turned to the left, turn it to the right."""


def encode(image, kind="PNG", **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(file, longest_edge=100_000):
    return open_upright(file, max_pixels=MAX_PIXELS, longest_edge=longest_edge)


def seen(file):
    return np.asarray(opened(file).image.convert("RGB")).astype(int)


def refused(file):
    with pytest.raises((PictureError, ValueError)) as caught:
        opened(file)
    return str(caught.value)


def cloud(width, height):
    """A picture without noise, so that JPEG hardly changes it."""
    coarse = np.random.default_rng(2).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("interlaced", [False, True], ids=["", "interlaced"])
@pytest.mark.parametrize("colour, depth", KINDS)
def test_every_kind_of_png_has_the_pixels_that_were_written(colour, depth, interlaced):
    random = np.random.default_rng(depth)
    for seed, (width, height) in enumerate(SIZES):
        channels = {GREY: 1, COLOUR: 3, PALETTE: 1, 4: 2, COLOUR_ALPHA: 4}[colour]
        values = random.integers(0, 1 << depth, (height, width, channels))
        palette = random.integers(0, 256, (1 << depth if colour == PALETTE else 1, 3))
        before = [chunk(b"PLTE", palette.astype(np.uint8).tobytes())] if colour == PALETTE else []
        file = png(values, depth, colour, before=before, interlaced=interlaced, pieces=PIECES, filtering=seed)
        alpha = np.full((height, width), 255)
        if colour == PALETTE:
            colours = palette[values[..., 0]]
        else:
            scaled = values >> 8 if depth == 16 else values * 255 // ((1 << depth) - 1)
            if colour >= 4:
                alpha, scaled = scaled[..., -1], scaled[..., :-1]
            colours = np.broadcast_to(scaled, (height, width, 3))
        opacity = opened(file).opacity
        assert np.array_equal(np.full_like(alpha, 255) if opacity is None else np.asarray(opacity), alpha)
        share = alpha[..., None] / 255
        assert np.abs(seen(file) - (share * colours + (1 - share) * 255)).max() <= (1 if colour >= 4 else 0)


@pytest.mark.parametrize("interlaced", [False, True], ids=["", "interlaced"])
@pytest.mark.parametrize("colour, depth", [kind for kind in KINDS if kind[0] in (GREY, COLOUR)])
def test_the_colour_of_a_trns_chunk_is_transparent_and_no_other(colour, depth, interlaced):
    channels = 3 if colour == COLOUR else 1
    random = np.random.default_rng(depth)
    values = random.integers(0, 1 << depth, (20, 30, channels))
    key = values[3, 4].copy()
    values[random.random((20, 30)) < 0.3] = key
    near = key.copy()
    near[-1] ^= 1  # for 16 bits, the difference is in the lower byte
    values[0, 0] = near
    transparent = chunk(b"tRNS", struct.pack(f">{channels}H", *key))
    picture = opened(png(values, depth, colour, before=[transparent], interlaced=interlaced))
    clear = (values == key).all(axis=2)
    assert np.array_equal(np.asarray(picture.opacity) == 0, clear)
    scaled = values >> 8 if depth == 16 else values * 255 // ((1 << depth) - 1)
    wanted = np.where(clear[..., None], 255, np.broadcast_to(scaled, (20, 30, 3)))
    assert np.array_equal(np.asarray(picture.image.convert("RGB")), wanted)


def test_bits_of_a_trns_chunk_above_the_depth_do_not_count():
    values = np.arange(16).reshape(4, 4, 1)
    picture = opened(png(values, 4, GREY, before=[chunk(b"tRNS", b"\x70\x05")]))
    assert np.argwhere(np.asarray(picture.opacity) == 0).tolist() == [[1, 1]]


def test_a_palette_has_an_opacity_for_each_colour():
    values = np.arange(4).reshape(2, 2, 1)
    palette = chunk(b"PLTE", bytes(range(12)))
    picture = opened(png(values, 2, PALETTE, before=[palette, chunk(b"tRNS", b"\0\x80")]))
    assert np.asarray(picture.opacity).tolist() == [[0, 128], [255, 255]]


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\0\0", bytes(300)])
@pytest.mark.parametrize("colour", [GREY, COLOUR, PALETTE, COLOUR_ALPHA])
def test_a_trns_chunk_of_the_wrong_length_is_ignored(colour, content):
    channels = {GREY: 1, COLOUR: 3, PALETTE: 1, COLOUR_ALPHA: 4}[colour]
    values = np.full((3, 3, channels), 255 if colour == COLOUR_ALPHA else 0)
    before = (
        [chunk(b"PLTE", bytes(3)), chunk(b"tRNS", content)]
        if content != b"\0"
        else [chunk(b"PLTE", bytes(3))]
    )
    assert opened(png(values, 8, colour, before=before)).opacity is None


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"zTXt", b"Comment\0\0" + BOMB),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0"),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
        chunk(b"zTXt", b"Raw profile type exif\0\0garbage"),
        chunk(b"tEXt", b"Raw profile type exif\0\n\n\nnot hexadecimal"),
        chunk(b"iCCP", b"icc\0\0" + BOMB),
        chunk(b"iCCP", b"icc\0\0garbage"),
        chunk(b"iCCP", b""),
        chunk(b"eXIf", b""),
        chunk(b"eXIf", ORIENTED, checksum=1),
        chunk(b"tEXt", b"Comment\0hi", checksum=1),
        chunk(b"gAMA", b""),
        chunk(b"pHYs", b"\0"),
        chunk(b"acTL", bytes(8)),
        chunk(b"fcTL", bytes(26)),
        chunk(b"fdAT", b"\0\0\0\0garbage"),
        chunk(b"xxXx", bytes(70_000)),
    ],
    ids=lambda odd: f"{odd[4:8].decode()} {len(odd)}",
)
def test_chunks_that_hold_no_pixels_never_make_a_png_unreadable(odd, place):
    assert np.array_equal(seen(png(COLOURS, 8, COLOUR, **{place: [odd]})), COLOURS)


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT", b"PLTE"])
def test_a_wrong_checksum_is_an_error_where_the_pixels_need_the_chunk(name):
    values = np.zeros((3, 3, 1), int)
    file = bytearray(png(values, 8, PALETTE, before=[chunk(b"PLTE", bytes(3))]))
    at = file.index(name)
    file[at + 4 + int.from_bytes(file[at - 4 : at], "big")] ^= 1
    assert (
        refused(bytes(file)) == f"The PNG picture is damaged: its {name.decode()} chunk has a wrong checksum."
    )


def test_a_png_with_fewer_rows_than_it_says_is_refused():
    for interlaced in (False, True):
        file = png(COLOURS, 8, COLOUR, interlaced=interlaced)
        header = struct.pack(">IIBBBBB", 40, 60, 8, COLOUR, 0, 0, int(interlaced))
        assert refused(file[:8] + chunk(b"IHDR", header) + file[33:])


@pytest.mark.parametrize("fill", [0, 1, 255])
def test_a_last_pixel_of_any_colour_is_no_missing_row(fill):
    for colour, depth in KINDS:
        channels = {GREY: 1, COLOUR: 3, PALETTE: 1, 4: 2, COLOUR_ALPHA: 4}[colour]
        values = np.full((4, 4, channels), min(fill, (1 << depth) - 1))
        file = png(
            values, depth, colour, before=[chunk(b"PLTE", bytes(3 * 256))] if colour == PALETTE else []
        )
        assert opened(file).image.size == (4, 4)


def test_a_png_of_very_many_chunks_is_refused():
    assert "65536 chunks" in refused(png(COLOURS, 8, COLOUR, before=[chunk(b"teSt", b"")] * 66_000))


def test_a_png_without_its_end_is_read_and_said_to_be_cut_off():
    for end in (b"", b"\0\0", b"\0\0\0\0IEN", b"garbage, and more of it"):
        picture = opened(png(COLOURS, 8, COLOUR, end=False) + end)
        assert np.array_equal(np.asarray(picture.image), COLOURS)
        assert picture.cut_off
    assert not opened(png(COLOURS, 8, COLOUR) + b"trailer").cut_off


def raw_profile(keyword):
    text = b"\nexif\n" + b"%8d\n" % len(ORIENTED) + ORIENTED.hex().encode() + b"\n"
    return {
        "zTXt": chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(text)),
        "tEXt": chunk(b"tEXt", keyword + b"\0" + text),
        "iTXt": chunk(b"iTXt", keyword + b"\0\0\0\0\0" + text),
    }


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "oriented",
    [
        chunk(b"eXIf", ORIENTED),
        chunk(b"eXIf", b"Exif\0\0" + ORIENTED),
        *raw_profile(b"Raw profile type exif").values(),
        raw_profile(b"Raw profile type APP1")["zTXt"],
        chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0\0" + zlib.compress(b'<x tiff:Orientation="6"/>')),
    ],
    ids=lambda oriented: oriented[4:30].decode("latin-1"),
)
def test_the_orientation_is_read_from_all_chunks_that_have_it(oriented, place):
    turned = np.rot90(COLOURS, -1)
    assert np.array_equal(seen(png(COLOURS, 8, COLOUR, **{place: [oriented]})), turned)


def test_opacity_is_turned_like_the_picture():
    values = np.zeros((2, 3, 4), int)
    values[0, 2, 3] = 255
    picture = opened(png(values, 8, COLOUR_ALPHA, before=[chunk(b"eXIf", ORIENTED)]))
    assert np.argwhere(np.asarray(picture.opacity)).tolist() == [[2, 1]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(257, 256), (700, 300), (1203, 2877), (3000, 2)])
def test_a_large_picture_is_made_smaller_as_pillow_does_it(mode, size):
    image = cloud(*size)
    if mode == "I;16":
        whole = image.convert("L")
        image = Image.fromarray(np.asarray(whole).astype(np.uint16) * 257)
    elif mode.endswith("A"):
        image = image.convert(mode)
        image.putalpha(cloud(*size).convert("L").transpose(Image.Transpose.ROTATE_180))
        white = Image.new("RGBA", size, "white")
        whole = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    else:
        image = image.quantize(20) if mode == "P" else image.convert(mode)
        whole = image.convert("RGB")
    whole = whole.convert("RGB")
    whole.thumbnail((256, 256), Image.Resampling.BOX)
    assert np.array_equal(np.asarray(opened(encode(image), 256).image.convert("RGB")), np.asarray(whole))


@pytest.mark.parametrize(
    "odd",
    [
        b"\xff\xe1\0\x02",
        b"\xff\xe2\0\x0eICC_PROFILE\0",
        b"\xff\xe0\0\x07JFIF\0",
        b"\xff\xed\0\x10Photoshop 3.0\0",
        b"\xff\xe1\0\x08Exif\0\0",
        b"\xff\xe2\0\x06MPF\0",
        b"\xff\xee\0\x07Adobe",
        b"\xff\xff\xff\xfe\0\x02",
        b"\xff\xfe\0\x02junk",
    ],
)
def test_segments_that_hold_no_pixels_never_make_a_jpeg_unreadable(odd):
    file = encode(cloud(40, 50), "JPEG", quality=95)
    assert np.array_equal(seen(file[:2] + odd + file[2:]), seen(file))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}]
)
def test_a_jpeg_without_its_end_mark_is_read_and_said_to_be_cut_off(mode, options):
    file = encode(cloud(300, 400).convert(mode), "JPEG", **options)
    for cut, trailer in ((1, b""), (2, b""), (2, b"SEFT" * 500)):
        picture = opened(file[:-cut] + trailer)
        assert np.array_equal(np.asarray(picture.image), np.asarray(opened(file).image))
        assert picture.cut_off
    assert not opened(file).cut_off


@pytest.mark.parametrize("size", [(300, 400), (2000, 3000)])
def test_of_a_jpeg_with_a_few_rows_missing_the_others_are_taken(size):
    """A restart marker begins each row of blocks, so it is known which rows are missing."""
    file = encode(cloud(*size), "JPEG", restart_marker_rows=1, subsampling=0)
    rows = [at for at in range(len(file) - 1) if file[at] == 0xFF and 0xD0 <= file[at + 1] <= 0xD7]
    for share, good in ((0.97, True), (0.93, True), (0.87, False), (0.5, False)):
        cut = file[: rows[int(share * len(rows))]]
        if not good:
            assert "of its rows are present" in refused(cut)
            continue
        picture = opened(cut)
        assert picture.cut_off
        there, whole = picture.image.height / picture.image.width, size[1] / size[0]
        assert abs(there / whole - share) < 0.03


def test_a_progressive_jpeg_whose_last_scans_are_missing_is_refused():
    file = encode(cloud(300, 400), "JPEG", progressive=True)
    scans = [at for at in range(len(file) - 1) if file[at : at + 2] == b"\xff\xda"]
    tables = [file.rindex(b"\xff\xc4", 0, at) for at in scans[1:]]
    for at in (*scans, *tables):
        assert refused(file[:at])


def test_a_jpeg_of_very_many_scans_is_refused_and_a_trailer_does_not_count():
    file = encode(cloud(300, 400), "JPEG", progressive=True)
    last = file.rindex(b"\xff\xda")
    too_many = file[:-2] + file[last:-2] * (MOST_SCANS + 6) + b"\xff\xd9"
    assert f"more than {MOST_SCANS} scans" in refused(too_many)
    assert not opened(file + b"\xff\xda" * 1000).cut_off


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xda", b"\0\xff\xda", b"\xff\xff\xda\xda\0\xff\xda" * 9]
)
def test_marks_of_scans_are_counted_at_even_and_odd_places(data):
    assert marks_of_scans(BareJpeg(b"\xff\xda" + data, 2, b"", 1)) == data.count(b"\xff\xda")


def test_a_jpeg_of_very_many_segments_is_refused():
    file = encode(cloud(30, 40), "JPEG")
    assert "10000 segments" in refused(file[:2] + b"\xff\xe5\0\x02" * 20_000 + file[2:])


@pytest.mark.parametrize("frame", [0xC3, 0xC5, 0xC7])
def test_a_kind_of_jpeg_that_cannot_be_read_is_named_so(frame):
    file = encode(cloud(30, 40), "JPEG").replace(b"\xff\xc0", bytes((0xFF, frame)))
    assert "This kind of JPEG cannot be read" in refused(file)


def parts(file):
    """The chunks of a WebP file: name, and where it begins."""
    at, found = 12, []
    while at < len(file):
        found.append((file[at : at + 4], at))
        at += 8 + int.from_bytes(file[at + 4 : at + 8], "little") + file[at + 4] % 2
    return found


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_whose_metadata_are_cut_off_is_read(lossless):
    picture = cloud(30, 40).convert("RGBA")
    picture.putalpha(cloud(30, 40).convert("L"))
    file = encode(picture, "WEBP", lossless=lossless, exif=b"Exif\0\0" + ORIENTED)
    places = dict(parts(file))
    assert opened(file).image.size == (40, 30)
    upright = opened(encode(picture, "WEBP", lossless=lossless))
    for end in (len(file) - 1, places[b"EXIF"] + 9, places[b"EXIF"] + 3, places[b"EXIF"]):
        found = opened(file[:end])
        assert found.cut_off
        assert np.array_equal(np.asarray(found.image), np.asarray(upright.image))
    with pytest.raises((KeyError, ValueError, OSError)):
        opened(file[: places[b"EXIF"] - 2])


def test_of_an_animated_webp_no_more_than_the_first_frame_is_needed():
    frames = [cloud(60, 40), cloud(60, 40).rotate(180), cloud(60, 40).rotate(90)]
    file = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    second = [at for name, at in parts(file) if name == b"ANMF"][1]
    for end, cut_off in ((len(file), False), (second + 30, True), (second, True)):
        picture = opened(file[:end])
        assert (picture.cut_off, picture.opacity) == (cut_off, None)
        assert np.array_equal(np.asarray(picture.image), np.asarray(frames[0]))


def test_the_first_frame_of_an_animation_may_be_smaller_than_its_canvas():
    still = encode(Image.new("RGB", (20, 10), "navy"), "WEBP", lossless=True)
    place = b"".join(number.to_bytes(3, "little") for number in (3, 1, 19, 9, 100)) + b"\0"
    frame = place + still[12:]
    file = webp.riff(
        {
            b"VP8X": b"\x12\0\0\0" + (59).to_bytes(3, "little") + (39).to_bytes(3, "little"),
            b"ANIM": bytes(6),
            b"ANMF": frame,
        }
    )
    picture = opened(file)
    wanted = np.full((40, 60, 3), 255)
    wanted[2:12, 6:26] = (0, 0, 128)
    assert np.array_equal(np.asarray(picture.image), wanted)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_libwebp_makes_a_large_picture_smaller_as_pillow_does(mode, lossless):
    picture = cloud(2600, 2100).convert(mode)
    if mode == "RGBA":
        picture.putalpha(cloud(2600, 2100).convert("L"))
    file = encode(picture, "WEBP", lossless=lossless, method=0, quality=90)
    still = webp.first_frame(file)
    assert (still.size, still.has_alpha) == ((2600, 2100), mode == "RGBA")
    quick = webp.scaled(still, 5)
    assert quick is not None, (
        "Pillow's libwebp cannot be reached: large WebP pictures take four times the memory"
    )
    assert (quick.mode, quick.size) == (mode, (520, 420))
    slow = Image.open(BytesIO(file)).resize((520, 420), Image.Resampling.BOX)
    assert np.abs(np.asarray(quick).astype(int) - np.asarray(slow)).mean() < 1.5


def test_a_large_webp_is_read_without_libwebp_too(monkeypatch):
    file = encode(cloud(2600, 2100), "WEBP", lossless=True, method=0, quality=0)
    quick = np.asarray(opened(file, 256).image).astype(int)
    monkeypatch.setattr(webp, "libwebp", lambda: None)
    assert np.abs(quick - np.asarray(opened(file, 256).image)).max() <= 2


def test_a_large_webp_that_is_damaged_is_refused():
    file = bytearray(encode(cloud(2600, 2100), "WEBP", lossless=True, method=0, quality=0))
    file[40:400] = bytes(360)
    with pytest.raises((OSError, EOFError)):
        opened(bytes(file), 256)


@pytest.mark.parametrize(
    "kind, mode, options, most_mib",
    [
        ("PNG", "RGBA", {}, 170),  # of which 95 are the picture
        ("PNG", "P", {}, 70),
        ("WEBP", "RGB", {"lossless": True}, 60),
        ("WEBP", "RGBA", {"lossless": True, "quality": 0, "method": 0}, 60),
        ("WEBP", "RGB", {"quality": 50, "method": 0}, 40),
        ("JPEG", "RGB", {}, 40),
    ],
)
def test_a_picture_of_25_megapixels_takes_no_more_memory_than_its_format_needs(
    tmp_path, kind, mode, options, most_mib
):
    image = Image.new("RGB", (5000, 5000), "white")
    image.paste("navy", (1500, 1000, 3500, 4000))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(image.getchannel("G").point(lambda green: 255 - green))
    file = tmp_path / "picture"
    file.write_bytes(encode(image, kind, **options))
    script = f"""
import re
from pathlib import Path
from model.preprocessing import prepare
def peak_mib():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
picture = Path({str(file)!r}).read_bytes()
before = peak_mib()
prepare(picture, max_pixels={MAX_PIXELS})
print(peak_mib() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < most_mib


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B"])
def test_every_usual_kind_of_tiff_has_the_pixels_that_were_written(mode, compression):
    if mode.startswith("I;16"):
        grey = np.asarray(cloud(40, 50).convert("L"))
        deep = grey.astype(np.uint16) * 257
        image = Image.fromarray(deep.astype(">u2") if mode == "I;16B" else deep)
        want = np.dstack([grey] * 3)
    else:
        image = cloud(40, 50).convert(mode)
        want = np.asarray(image.convert("RGB"))
    file = encode(image, "TIFF", compression=compression)
    assert file.startswith(b"MM") == (mode == "I;16B" and compression == "raw")
    assert (seen(file) == want).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["BMP", "GIF"])
def test_bmp_and_gif_have_the_pixels_that_were_written(kind, mode):
    if (kind, mode) in (("GIF", "RGB"), ("GIF", "RGBA")):
        mode = "P"
    image = cloud(40, 50).convert(mode)
    assert (seen(encode(image, kind)) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize(("kind", "options"), [("AVIF", {"quality": 90}), ("TIFF", {"compression": "jpeg"})])
def test_what_loses_some_has_nearly_the_pixels_that_were_written(kind, options):
    assert np.abs(seen(encode(cloud(120, 160), kind, **options)) - np.asarray(cloud(120, 160))).mean() < 3


def test_of_several_pictures_the_first_is_read():
    others = [Image.new("RGB", (40, 50), "red")] * 2
    for kind, most in (("GIF", 30), ("TIFF", 0), ("AVIF", 3)):
        file = encode(cloud(40, 50), kind, save_all=True, append_images=others)
        assert np.abs(seen(file) - np.asarray(cloud(40, 50))).mean() <= most


def test_what_is_transparent_is_white_in_gif_tiff_and_avif():
    image = Image.new("RGBA", (20, 10), (200, 0, 0, 0))
    image.paste((0, 0, 200, 255), (10, 0, 20, 10))
    for kind in ("GIF", "TIFF", "AVIF"):
        found = opened(encode(image, kind))
        assert np.asarray(found.opacity)[5].tolist() == [0] * 10 + [255] * 10
        assert (np.asarray(found.image.convert("RGB"))[5, :8] > 250).all()


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_a_picture_of_any_type_is_turned_upright(kind):
    lying = cloud(60, 40).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x112] = 6
    assert np.abs(seen(encode(lying, kind, exif=exif)) - np.asarray(cloud(60, 40))).mean() < 3


def test_a_photo_of_a_phone_is_read_and_turned_upright():
    """tests/data/sandal.heic: samples/sandal.png in ink on paper, stored turned to the left."""
    sandal = np.asarray(
        Image.open(SAMPLES / "sandal.png").convert("L").resize((140, 140), Image.Resampling.BICUBIC)
    )
    want = 255 - np.pad(sandal, ((5, 5), (30, 30)))
    found = opened(HEIC.read_bytes()).image
    assert found.size == (200, 150)
    assert np.abs(np.asarray(found.convert("L")).astype(int) - want).mean() < 2


def test_a_header_that_declares_less_than_there_is_breaks_no_limit():
    """The decoder finds 400 pixels across where the box says 8."""
    for file in (encode(cloud(400, 300), "AVIF"), HEIC.read_bytes()):
        at = file.index(b"ispe") + 8
        lying = file[:at] + struct.pack(">II", 8, 8) + file[at + 8 :]
        with suppress(PictureError, ValueError, OSError, RuntimeError):
            image = open_upright(lying, max_pixels=100, longest_edge=256).image
            assert image.width * image.height <= 100
