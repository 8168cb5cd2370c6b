"""What can be told of a picture without decoding it."""

import io
from struct import Struct

import imagesize

from gateway.errors import NotAPicture, TooLarge, UnacceptedMedia

ACCEPTED = ("image/png", "image/jpeg", "image/webp")
_ALSO = ("image/*", "image/jpg", "image/pjpeg", "image/x-png")  # what clients call those
# What clients send that do not know, or take the form's own type for that of its part.
_UNDECLARED = frozenset(
    {
        "*/*",
        "application/binary",
        "application/octet-stream",
        "application/unknown",
        "application/x-binary",
        "application/x-www-form-urlencoded",
        "binary/octet-stream",
        "multipart/form-data",
    }
)
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SIZE, _PNG_SIZE_AT = Struct(">II"), 16
# imagesize takes three for a segment of a JPEG: enough for 10 MiB of segments of 64 KiB before the size.
_MOST_READS = 500


def check(body: bytes, declared: str, *, max_bytes: int, max_pixels: int) -> str:
    """Return the media type that the first bytes show. Raises Rejected.

    declared is the client's word. Where it is a type of pictures, or says nothing, the bytes decide.
    Pixels are those that the header names; what is behind it, the worker judges.
    """
    media_type, shown = essence(declared), media_type_of(body)
    is_other = media_type.startswith("image/") and media_type not in (*ACCEPTED, *_ALSO)
    says_nothing = media_type in _UNDECLARED or "/" not in media_type
    if (is_other and shown is None) or not (media_type.startswith("image/") or says_nothing):
        raise UnacceptedMedia(f"{media_type[:100]} is not accepted; send one of {', '.join(ACCEPTED)}")
    if not body:
        raise NotAPicture("the picture is empty: 0 bytes")
    if len(body) > max_bytes:
        raise TooLarge(f"the picture has {len(body)} bytes; at most {max_bytes} are accepted")
    if shown is None:
        raise NotAPicture("the bytes are neither PNG, JPEG nor WebP")
    pixels = pixels_of(body)
    if pixels > max_pixels:
        raise TooLarge(f"the picture has {pixels} pixels; at most {max_pixels} are accepted")
    return shown


def essence(content_type: str) -> str:
    """The media type without parameters, in lower case, for types have no case (RFC 9110, 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()


def media_type_of(body: bytes) -> str | None:
    if body.startswith(_PNG):
        return "image/png"
    if body.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "image/webp"
    return None


def pixels_of(body: bytes) -> int:
    """Width times height as the header names them; 0 where it cannot be read."""
    try:
        # imagesize takes ten times as long, and small pictures are PNG.
        if body.startswith(_PNG) and body[12:16] == b"IHDR":
            width, height = _PNG_SIZE.unpack_from(body, _PNG_SIZE_AT)
        else:
            width, height = imagesize.get(_Reading(body), exif_rotation=False)
    except Exception:  # a broken header shows in many ways; the worker will say what is wrong
        return 0
    return max(0, int(width)) * max(0, int(height))


class _Reading(io.BytesIO):
    """A file made of the smallest segments would be walked through for seconds."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._left = _MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"not told within {_MOST_READS} reads")
        return super().read(size)
