"""A request as it goes over the wire, what its answer must contain, and when it is due."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from mlaas.load import bodies
from mlaas.load.bodies import Body


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
    body: Body = "raw",
    proof: bool = True,
    headers: Mapping[str, str] | None = None,
) -> list[Exchange]:
    """One for each picture. With proof, an answer must name the digest of the picture it is for."""
    return [
        Exchange(
            _request(url, *bodies.made(body, picture), headers or {}), _digest(picture) if proof else b""
        )
        for picture in pictures
    ]


def batch(url: str, pictures: Sequence[bytes]) -> Exchange:
    """All of them in one form. The answer must name the digest of the last one."""
    return Exchange(_request(url, *bodies.form(*pictures), {}), _digest(pictures[-1]))


def _request(url: str, media_type: str, content: bytes, headers: Mapping[str, str]) -> bytes:
    address = urlsplit(url)
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    lines = {
        "Host": address.netloc.rpartition("@")[2],
        "Content-Type": media_type,
        "Content-Length": str(len(content)),
        **headers,
    }
    head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {its}\r\n" for name, its in lines.items())
    return f"{head}\r\n".encode() + content


def _digest(picture: bytes) -> bytes:
    return hashlib.sha256(picture).hexdigest().encode()
