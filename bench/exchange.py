"""A request as it goes over the wire, and what its answer must contain."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

_BOUNDARY = "mlaas-bench"
_FORM_START = (
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="picture.png"\r\n'
    "Content-Type: image/png\r\n\r\n"
)
_FORM_END = f"\r\n--{_BOUNDARY}--\r\n"


class Exchange(msgspec.Struct, frozen=True):
    request: bytes
    expected: bytes


def exchanges(
    url: str, pictures: Iterable[Path], *, form: bool = False, proof: bool = True
) -> list[Exchange]:
    """One for each picture. With proof, an answer must name the digest of the picture it is for."""
    return [_exchange(url, path.read_bytes(), form=form, proof=proof) for path in pictures]


def _exchange(url: str, picture: bytes, *, form: bool, proof: bool) -> Exchange:
    body = _FORM_START.encode() + picture + _FORM_END.encode() if form else picture
    media_type = f"multipart/form-data; boundary={_BOUNDARY}" if form else "image/png"
    address = urlsplit(url)
    head = (
        f"POST {address.path or '/'} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return Exchange(head.encode() + body, hashlib.sha256(picture).hexdigest().encode() if proof else b"")
