"""A request as it goes over the wire, what its answer must contain, and when it is due."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple
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


class Due(NamedTuple):
    """at: on time.perf_counter(), in seconds; None: when there is a client for it."""

    exchange: Exchange
    at: float | None


def exchanges(
    url: str,
    pictures: Iterable[bytes],
    *,
    form: bool = False,
    proof: bool = True,
    headers: Mapping[str, str] | None = None,
) -> list[Exchange]:
    """One for each picture. With proof, an answer must name the digest of the picture it is for."""
    return [_exchange(url, picture, form, proof, headers or {}) for picture in pictures]


def _exchange(url: str, picture: bytes, form: bool, proof: bool, headers: Mapping[str, str]) -> Exchange:
    body = _FORM_START.encode() + picture + _FORM_END.encode() if form else picture
    media_type = f"multipart/form-data; boundary={_BOUNDARY}" if form else "image/png"
    address = urlsplit(url)
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    lines = {
        "Host": address.netloc.rpartition("@")[2],
        "Content-Type": media_type,
        "Content-Length": str(len(body)),
        **headers,
    }
    head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {its}\r\n" for name, its in lines.items())
    return Exchange(
        f"{head}\r\n".encode() + body, hashlib.sha256(picture).hexdigest().encode() if proof else b""
    )
