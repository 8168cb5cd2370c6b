"""The ways in which a picture is put into the body of a request."""

import base64
import json
from collections.abc import Callable
from typing import Literal, get_args

Body = Literal["raw", "form", "oip", "json"]
"""raw: the picture itself. form: in the multipart field `file`. oip: base64, asked by the Open
Inference Protocol. json: base64 in a list named `pictures`."""

BODIES: tuple[Body, ...] = get_args(Body)

_BOUNDARY = "mlaas-bench"
_FIELD = (
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="picture.png"\r\n'
    "Content-Type: image/png\r\n\r\n"
)
_FORM_END = f"--{_BOUNDARY}--\r\n"


def made(body: Body, picture: bytes) -> tuple[str, bytes]:
    """Its media type, and the body itself."""
    return _BODIES[body](picture)


def form(*pictures: bytes) -> tuple[str, bytes]:
    """All of them in one, each in a field `file`."""
    fields = b"".join(_FIELD.encode() + picture + b"\r\n" for picture in pictures)
    return f"multipart/form-data; boundary={_BOUNDARY}", fields + _FORM_END.encode()


def _raw(picture: bytes) -> tuple[str, bytes]:
    return "image/jpeg" if picture.startswith(b"\xff\xd8") else "image/png", picture


def _oip(picture: bytes) -> tuple[str, bytes]:
    given = {"name": "pictures", "shape": [1, 1], "datatype": "BYTES", "data": [_base64(picture)]}
    return "application/json", json.dumps({"inputs": [given]}).encode()


def _json(picture: bytes) -> tuple[str, bytes]:
    return "application/json", json.dumps({"pictures": [_base64(picture)]}).encode()


def _base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


_BODIES: dict[Body, Callable[[bytes], tuple[str, bytes]]] = {
    "raw": _raw,
    "form": form,
    "oip": _oip,
    "json": _json,
}
