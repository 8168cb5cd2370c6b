import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from gateway.errors import NotAPicture, Rejected, TooLarge, UnacceptedMedia
from gateway.picture import check, pixels_of

LIMITS: dict[str, Any] = {"max_bytes": 100_000, "max_pixels": 1_000_000}


def picture(form: str, size: tuple[int, int] = (28, 28)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, form)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "declared",
    [
        "", "application/octet-stream", "image/png", "image/JPEG; q=1", "image/jpg", "image/pjpeg",
        "image/x-png", "Image/*", "image/gif", "image/heic", "image/svg+xml", "binary/octet-stream",
        "Application/Octet-Stream; charset=binary", "multipart/form-data; boundary=b", "*/*",
        "application/x-www-form-urlencoded", "application/unknown", "png", " image/png ;",
    ],
)  # fmt: skip
def test_the_bytes_decide_what_it_is(form: str, declared: str) -> None:
    assert check(picture(form), declared, **LIMITS) == f"image/{form.lower()}"


@pytest.mark.parametrize(
    ("body", "declared", "error", "says"),
    [
        (b"", "image/png", NotAPicture, "empty"),
        (b"just text", "image/png", NotAPicture, "neither PNG, JPEG nor WebP"),
        (b"<!doctype html>", "text/html", UnacceptedMedia, "image/png"),
        (b"GIF89a" + bytes(50), "image/gif", UnacceptedMedia, "image/gif is not accepted"),
        (b"GIF89a" + bytes(50), "image/png", NotAPicture, "neither"),
        (b"GIF89a" + bytes(50), "image/jpg", NotAPicture, "neither"),
        (b"GIF89a" + bytes(50), "image/*", NotAPicture, "neither"),
        (b"GIF89a" + bytes(50), "multipart/form-data", NotAPicture, "neither"),
        (picture("PNG"), "text/plain", UnacceptedMedia, "text/plain is not accepted"),
        (picture("PNG"), "multipart/mixed", UnacceptedMedia, "multipart/mixed is not accepted"),
        (png_header(10_000, 10_000), "image/png", TooLarge, "100000000 pixels"),
        (picture("JPEG", (1200, 1200)), "image/jpeg", TooLarge, "1440000 pixels"),
        (picture("WEBP", (1200, 1200)), "image/webp", TooLarge, "1440000 pixels"),
        (picture("PNG") + bytes(100_000), "image/png", TooLarge, "at most 100000"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_reason(
    body: bytes, declared: str, error: type[Rejected], says: str
) -> None:
    with pytest.raises(error, match=says):
        check(body, declared, **LIMITS)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_header_cut_anywhere_never_crashes(form: str) -> None:
    whole = picture(form)
    for length in range(min(len(whole), 200)):
        try:
            check(whole[:length], "image/png", **LIMITS)
        except Rejected:
            continue


def segments(count: int, size: int, end: bytes) -> bytes:
    """A JPEG's beginning: so many segments of so many bytes, then what says 1200 x 1200."""
    segment = b"\xff\xe1" + struct.pack(">H", size - 2) + bytes(size - 4)
    return b"\xff\xd8" + count * segment + end


SIZE = b"\xff\xc0\x00\x11\x08" + struct.pack(">HHB", 1200, 1200, 3) + bytes(9)


def test_a_size_behind_all_the_metadata_that_an_upload_may_have_is_read() -> None:
    assert pixels_of(segments(158, 65_537, SIZE)) == 1_440_000


@pytest.mark.parametrize(
    "body",
    [
        segments(200_000, 4, SIZE),
        segments(1, 4, 500_000 * b"\xff" + SIZE[1:]),
        segments(1, 4, bytes(500_000) + SIZE),
    ],
    ids=["segments", "fill bytes", "what is no segment"],
)
def test_a_jpeg_is_not_looked_through_for_its_size(body: bytes) -> None:
    assert pixels_of(body) == 0
    assert check(body, "image/jpeg", max_bytes=len(body), max_pixels=1000) == "image/jpeg"
