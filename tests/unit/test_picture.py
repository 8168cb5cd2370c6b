import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from gateway.asked import check
from gateway.errors import NotAPicture, Rejected, TooLarge, UnacceptedMedia
from tests.faults.corpus.expensive import jpeg

LIMITS: dict[str, Any] = {"max_bytes": 100_000, "max_pixels": 1_000_000}


def picture(form: str, size: tuple[int, int] = (28, 28)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, form)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
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
    assert check(picture(form), declared, **LIMITS).media_type == f"image/{form.lower()}"


@pytest.mark.parametrize(
    ("body", "declared", "error", "says"),
    [
        (b"", "image/png", NotAPicture, "empty"),
        (b"just text", "image/png", NotAPicture, "not a picture in JPEG, PNG"),
        (b"<!doctype html>", "text/html", UnacceptedMedia, "send JPEG, PNG"),
        (bytes(50), "image/x-xcf", UnacceptedMedia, "image/x-xcf is not accepted"),
        (bytes(50), "image/png", NotAPicture, "not a picture"),
        (bytes(50), "image/gif", NotAPicture, "not a picture"),
        (bytes(50), "image/jpg", NotAPicture, "not a picture"),
        (bytes(50), "image/*", NotAPicture, "not a picture"),
        (bytes(50), "multipart/form-data", NotAPicture, "not a picture"),
        (
            picture("JPEG2000"),
            "image/png",
            UnacceptedMedia,
            "a JPEG 2000 picture, .* convert it to JPEG or PNG",
        ),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "", UnacceptedMedia, "a JPEG XL picture"),
        (b"\n<?xml version='1.0'?>\n<svg/>", "image/jpeg", UnacceptedMedia, "an SVG drawing"),
        (b"<!DOCTYPE html><html>", "", UnacceptedMedia, "an HTML page"),
        (b"%PDF-1.7", "application/octet-stream", UnacceptedMedia, "a PDF document"),
        (b"\0\0\0\x14ftypqt  " + bytes(30), "", UnacceptedMedia, "a video"),
        (picture("PNG"), "text/plain", UnacceptedMedia, "text/plain is not accepted"),
        (picture("PNG"), "multipart/mixed", UnacceptedMedia, "multipart/mixed is not accepted"),
        (png_header(10_000, 10_000), "image/png", TooLarge, "100000000 pixels"),
        (picture("JPEG", (1200, 1200)), "image/jpeg", TooLarge, "1440000 pixels"),
        (picture("WEBP", (1200, 1200)), "image/webp", TooLarge, "1440000 pixels"),
        (picture("TIFF", (1200, 1200)), "image/tiff", TooLarge, "pixels|bytes"),
        (picture("AVIF", (1200, 1200)), "image/avif", TooLarge, "1440000 pixels"),
        (picture("PNG") + bytes(100_000), "image/png", TooLarge, "at most 100000"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_reason(
    body: bytes, declared: str, error: type[Rejected], says: str
) -> None:
    with pytest.raises(error, match=says):
        check(body, declared, **LIMITS)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_header_cut_anywhere_never_crashes(form: str) -> None:
    whole = picture(form)
    for length in range(min(len(whole), 200)):
        try:
            check(whole[:length], "image/png", **LIMITS)
        except Rejected:
            continue


def test_what_is_declared_is_what_the_workers_may_expect() -> None:
    header = check(picture("JPEG", (300, 200)), "image/jpeg", **LIMITS)
    assert (header.media_type, header.width, header.height) == ("image/jpeg", 300, 200)


def test_a_jpeg_of_too_many_scans_is_refused() -> None:
    assert check(jpeg(100, 100), "image/jpeg", **LIMITS).scans == 100
    with pytest.raises(TooLarge, match="over 100 scans; save it as a baseline JPEG"):
        check(jpeg(101, 100), "image/jpeg", **LIMITS)


def test_what_no_decoder_would_read_is_not_a_picture() -> None:
    with pytest.raises(NotAPicture, match="does not begin with its header"):
        check(png_header(28, 28)[:20], "image/png", **LIMITS)
