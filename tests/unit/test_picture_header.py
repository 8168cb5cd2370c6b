"""What a header declares, beside what decoders find; and that hostile headers are not walked through."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from messaging import picture_header
from messaging.picture_header import MAX_SCANS, HeaderError, PictureHeader, Size, size_of
from model import formats
from tests.faults.corpus.expensive import jpeg, png, webp

HEIC = Path(__file__).parents[1] / "data" / "sandal.heic"
SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*.png"))
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read(picture: bytes) -> PictureHeader:
    found = picture_header.read(picture)
    assert found is not None
    return found


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 128).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def animated(kind: str, size: tuple[int, int] = (40, 30)) -> bytes:
    return encoded(kind, size=size, save_all=True, append_images=[Image.new("RGB", size, "red")] * 3)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def ihdr(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def segment(marker: int, size: int = 4) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", size - 2) + bytes(size - 4)


def tiff(*more: tuple[int, int, int]) -> bytes:
    """A header of a picture of 40 x 30 pixels with more tags: number, type, and count, also the value."""
    tags = [(256, 4, 1, 40), (257, 4, 1, 30), *((tag, kind, count, count) for tag, kind, count in more)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


FRAME = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 1200, 1000, 1) + bytes(3)
PROGRESSIVE = FRAME.replace(b"\xff\xc0", b"\xff\xc2")
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
END = b"\xff\xd9"


@pytest.mark.parametrize(
    ("picture", "media_type"),
    [
        (encoded("PNG"), "image/png"),
        (encoded("PNG", "1"), "image/png"),
        (encoded("PNG", "RGBA"), "image/png"),
        (animated("PNG"), "image/png"),
        (encoded("JPEG"), "image/jpeg"),
        (encoded("JPEG", "L"), "image/jpeg"),
        (encoded("JPEG", "CMYK"), "image/jpeg"),
        (encoded("JPEG", progressive=True), "image/jpeg"),
        (encoded("JPEG", exif=Image.Exif(), icc_profile=bytes(200_000)), "image/jpeg"),
        (encoded("WEBP"), "image/webp"),
        (encoded("WEBP", lossless=True), "image/webp"),
        (encoded("WEBP", "RGBA"), "image/webp"),
        (encoded("WEBP", "RGBA", lossless=True), "image/webp"),
        (encoded("WEBP", icc_profile=bytes(1000)), "image/webp"),
        (animated("WEBP"), "image/webp"),
        (encoded("GIF"), "image/gif"),
        (encoded("GIF", comment="a" * 100_000), "image/gif"),
        (animated("GIF"), "image/gif"),
        (encoded("BMP"), "image/bmp"),
        (encoded("BMP", "1"), "image/bmp"),
        (encoded("BMP", "RGBA"), "image/bmp"),
        (encoded("TIFF"), "image/tiff"),
        (encoded("TIFF", "RGBA", compression="tiff_lzw"), "image/tiff"),
        (encoded("TIFF", "I;16B"), "image/tiff"),
        (animated("TIFF"), "image/tiff"),
        (encoded("AVIF"), "image/avif"),
        (encoded("AVIF", "RGBA"), "image/avif"),
        (animated("AVIF"), "image/avif"),
    ],
)
def test_it_declares_what_a_decoder_finds(picture: bytes, media_type: str) -> None:
    header = read(picture)
    assert (header.media_type, header.width, header.height) == (media_type, 40, 30)
    assert Image.open(io.BytesIO(picture)).size == (40, 30)
    assert header.pixels == 1200


def test_of_a_jpeg_the_scans_are_counted() -> None:
    assert read(encoded("JPEG")).scans == 1
    assert read(encoded("JPEG", progressive=True)).scans == 10
    assert read(encoded("JPEG", "L", progressive=True)).scans == 6
    assert [read(jpeg(scans, 40)).scans for scans in (10, 21, 50, 100)] == [10, 21, 50, 100]
    assert [read(jpeg(scans, 40)).scans for scans in (101, 10_000)] == [MAX_SCANS + 1] * 2


def test_so_are_those_of_a_sequential_jpeg_that_begins_with_one_of_several_components() -> None:
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 30, 40, 3) + bytes(9)
    assert read(b"\xff\xd8" + frame + SCAN * 50 + END).scans == 50
    assert read(b"\xff\xd8" + FRAME + SCAN * 50 + END).scans == 1  # libjpeg ends with the first, too


def test_what_only_looks_like_a_scan_is_not_counted_among_many() -> None:
    looks = b"\xff\xfe\x00\xca" + 100 * b"\xff\xda"
    behind = END + 1000 * b"\xff\xda"
    assert read(b"\xff\xd8" + PROGRESSIVE + SCAN + looks + SCAN + behind).scans == 2


def test_the_end_inside_of_a_comment_hides_no_scans() -> None:
    hiding = b"\xff\xfe\x00\x04\xff\xd9"
    assert read(b"\xff\xd8" + PROGRESSIVE + SCAN + hiding + SCAN * 99 + END).scans == 100


@pytest.mark.parametrize("beginning", [SIGNATURE, b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"])
def test_a_beginning_alone_is_an_error(beginning: bytes) -> None:
    with pytest.raises(HeaderError):
        picture_header.read(beginning)


def test_of_a_heic_it_declares_the_stored_picture_which_lies_on_its_side() -> None:
    header = read(HEIC.read_bytes())
    assert (header.media_type, header.width, header.height) == ("image/heic", 150, 200)


def test_the_largest_of_the_pictures_in_a_file_counts() -> None:
    """As in a photo of a phone, which has tiles and a thumbnail."""

    def box(name: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I4s", 8 + len(content), name) + content

    sizes = ((512, 512), (4032, 3024), (320, 240))
    extents = [box(b"ispe", struct.pack(">III", 0, *size)) for size in sizes]
    meta = box(b"meta", bytes(4), box(b"hdlr", bytes(24)), box(b"iprp", box(b"ipco", *extents)))
    header = read(box(b"ftyp", b"heic", bytes(4), b"mif1heic") + meta + box(b"mdat", bytes(99)))
    assert (header.width, header.height) == (4032, 3024)
    by_avif = read(box(b"ftyp", b"mif1", bytes(4), b"avifmif1") + meta)
    assert by_avif.media_type == "image/avif"


def test_the_first_frame_of_a_gif_may_exceed_its_screen() -> None:
    picture = bytearray(encoded("GIF"))
    picture[6:10] = struct.pack("<HH", 4, 3)
    assert read(bytes(picture)).pixels == 1200


def test_a_type_whose_library_is_less_proven_is_never_small() -> None:
    for picture in (
        *(encoded(kind, size=(28, 28)) for kind in ("GIF", "BMP", "TIFF", "AVIF")),
        HEIC.read_bytes(),
    ):
        assert size_of(read(picture).cost_ms("raw28")) is Size.MEDIUM


@pytest.mark.parametrize("picture", [b"", b"GIF", b"BM", b"\xff\xd8", b"RIFF\0\0\0\0WAVE", bytes(100)])
def test_what_is_of_no_accepted_type_is_nothing(picture: bytes) -> None:
    assert picture_header.read(picture) is None


@pytest.mark.parametrize(
    "picture",
    [
        encoded("PNG"),
        encoded("JPEG", progressive=True),
        encoded("WEBP"),
        encoded("WEBP", lossless=True),
        animated("WEBP"),
        encoded("GIF"),
        encoded("BMP"),
        encoded("TIFF"),
        encoded("AVIF"),
    ],
)
def test_a_picture_cut_anywhere_has_a_header_or_an_error(picture: bytes) -> None:
    for length in range(len(picture)):
        try:
            found = picture_header.read(picture[:length])
        except HeaderError:
            continue
        assert found is None or (found.width, found.height) == (40, 30)


@pytest.mark.parametrize(
    "picture",
    [
        SIGNATURE + chunk(b"tEXt") + ihdr(28, 28),
        SIGNATURE + ihdr(28, 28) + chunk(b"abCd") * 800_000,
        b"\xff\xd8" + FRAME + PROGRESSIVE + SCAN,
        b"\xff\xd8" + SCAN + FRAME + SCAN,
        b"\xff\xd8" + segment(0xE1) * 200_000 + FRAME + SCAN,
        b"\xff\xd8" + 500_000 * b"\xff" + FRAME[1:] + SCAN,
        b"\xff\xd8" + segment(0xE1) + bytes(500_000) + FRAME + SCAN,
        b"\xff\xd8" + (segment(0xE1) + bytes(100)) * 400 + FRAME + SCAN,
        b"RIFF\0\0\0\0WEBP" + b"ALPH" + bytes(100),
        b"GIF89a" + bytes(7) + b"!\xfe" + b"\1a" * 100_000 + b"\0,",
        tiff(*[(700, 1, 4_000_000_000)] * 3),
        tiff(*[(1_000 + number, 3, 1) for number in range(2_000)]),
        tiff((273, 4, 100_000)) + bytes(400_000),
        tiff((254, 4, 1)),
        tiff((50706, 1, 4)),
        b"\0\0\0\x14ftypheic\0\0\0\0heic" + b"\0\0\0\x08free" * 100_000,
        b"\0\0\0\x14ftypavif\0\0\0\0avif" + b"\0\0\0\1meta" + bytes(100),
    ],
    ids=[
        *("late header", "chunks", "two frames", "scan before frame"),
        *("segments", "fill bytes", "no segment", "a little everywhere", "alpha first"),
        *("comments", "more than the file", "tags", "strips", "raw by its thumbnail", "raw by its version"),
        *("boxes", "a box without size"),
    ],
)
def test_what_a_decoder_would_read_otherwise_or_for_long_is_an_error(picture: bytes) -> None:
    with pytest.raises(HeaderError):
        picture_header.read(picture)


def test_a_size_behind_all_the_metadata_that_an_upload_may_have_is_read() -> None:
    metadata = segment(0xE1, 65_537) * 158
    assert read(b"\xff\xd8" + metadata + FRAME + SCAN).pixels == 1_200_000


def test_the_chunks_of_the_largest_upload_as_libpng_writes_them_are_accepted() -> None:
    assert read(SIGNATURE + ihdr(28, 28) + chunk(b"IDAT", bytes(8192)) * 1_280).width == 28


def test_a_jpeg_with_tables_before_each_of_many_scans_is_read_but_not_without_end() -> None:
    assert read(b"\xff\xd8" + PROGRESSIVE + (segment(0xC4, 40) + SCAN) * 90 + END).scans == 90
    assert read(b"\xff\xd8" + PROGRESSIVE + SCAN * 21 + segment(0xC4) * 10_000 + END).scans == MAX_SCANS + 1


def test_cost_grows_with_pixels_alpha_scans_and_bytes() -> None:
    in_order = [
        *(
            SAMPLES[0].read_bytes(),
            png(500, 0),
            png(1_000, 0),
            png(1_000, 6),
            png(1_000, 6, padding=5_000_000),
        ),
    ]
    costs = [read(picture).cost_ms() for picture in in_order]
    assert costs == sorted(costs)
    assert read(jpeg(100)).cost_ms() > 3 * read(jpeg(10)).cost_ms()
    assert read(webp()).cost_ms() > 3 * read(webp(1_000)).cost_ms()


def test_small_is_what_comes_as_the_model_sees_it_and_large_what_takes_long() -> None:
    for sample in SAMPLES:
        assert size_of(read(sample.read_bytes()).cost_ms()) is Size.SMALL
    assert size_of(read(encoded("JPEG", size=(800, 600))).cost_ms()) is Size.MEDIUM
    assert size_of(read(encoded("JPEG", size=(4000, 3000))).cost_ms()) is Size.MEDIUM
    for picture in (png(), webp(), jpeg(100)):
        assert size_of(read(picture).cost_ms()) is Size.LARGE


def test_preparing_it_otherwise_than_as_it_is_counts() -> None:
    header = read(SAMPLES[0].read_bytes())
    assert header.cost_ms("auto") == header.cost_ms("raw28") == header.decode_ms
    assert header.cost_ms("photo") > header.decode_ms + 1
    larger = read(png(100))
    assert larger.cost_ms("raw28") == larger.decode_ms < larger.cost_ms("auto") == larger.cost_ms("photo")


def test_the_model_bounds_scans_as_the_gateway_does() -> None:
    assert formats.MOST_SCANS == MAX_SCANS
