"""Judging an upload by its first bytes and its header, without decoding it."""

from gateway.errors import NotAPicture, TooLarge, UnacceptedMedia
from messaging import picture_header
from messaging.picture_header import MAX_SCANS, HeaderError, PictureHeader, media_type_of

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


def check(body: bytes, declared: str, *, max_bytes: int, max_pixels: int) -> PictureHeader:
    """The header of a picture that the workers may decode. Raises Rejected.

    declared is the client's word. If it is a type of pictures, or says nothing, the bytes decide.
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
    try:
        header = picture_header.read(body)
    except HeaderError as error:
        raise NotAPicture(str(error)) from error
    if header is None:
        raise NotAPicture("the bytes are neither PNG, JPEG nor WebP")
    if header.pixels > max_pixels:
        raise TooLarge(f"the picture has {header.pixels} pixels; at most {max_pixels} are accepted")
    if header.scans > MAX_SCANS:
        raise TooLarge(f"the JPEG picture has over {MAX_SCANS} scans; save it as a baseline JPEG")
    return header


def essence(content_type: str) -> str:
    """The media type without parameters, in lower case, for types have no case (RFC 9110, 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()
