"""The request's tensor as pictures: files as they came, or 784 grey values each."""

import array
import base64
import binascii
import functools
import itertools
import re
import struct
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from gateway.errors import GatewayError, InvalidRequest, NotAPicture, TooLarge
from messaging.codec import NOT_JSON

SIDE = 28
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "UINT8": ((SIDE, SIDE), (SIDE, SIDE, 1), (SIDE * SIDE,)),
    "FP32": ((SIDE, SIDE), (SIDE, SIDE, 1), (SIDE * SIDE,)),
    "BYTES": ((), (1,)),
}
"""What follows the number of pictures."""

_PIXELS = SIDE * SIDE
_NESTED = re.compile(rb"\s*\[\s*\[")
_VALUES = {"UINT8": "whole numbers from 0 to 255", "FP32": "numbers from 0 to 1", "BYTES": "base64 strings"}
_ELEMENTS: dict[str, Any] = {
    "UINT8": Annotated[int, msgspec.Meta(ge=0, le=255)],
    "FP32": Annotated[float, msgspec.Meta(ge=0, le=1)],
    "BYTES": str,
}


def count_of(datatype: str, shape: Sequence[int], most: int) -> int:
    """How many pictures. Raises Rejected."""
    if datatype not in SHAPES:
        raise InvalidRequest(f"datatype {datatype[:20]!r} is not accepted; accepted: {', '.join(SHAPES)}")
    if not shape or shape[0] < 1 or tuple(shape[1:]) not in SHAPES[datatype]:
        accepted = ", ".join(str(["n", *rest]).replace("'", "") for rest in SHAPES[datatype])
        raise InvalidRequest(f"shape {list(shape[:5])} is not accepted for {datatype}; accepted: {accepted}")
    if shape[0] > most:
        raise TooLarge(f"{shape[0]} pictures in one request; at most {most} are accepted")
    return shape[0]


def from_json(datatype: str, shape: Sequence[int], data: bytes) -> list[bytes]:
    """data: a JSON array, nested as the shape says or flat. Raises Rejected."""
    expected = shape[0] * (1 if datatype == "BYTES" else _PIXELS)
    # Counted before it is decoded: a short text can become very many objects.
    found = data.count(b",") + 1
    if found != expected:
        raise InvalidRequest(f"data of shape {list(shape)} has {expected} elements, not {found}")
    flat = _flat(datatype, shape, data)
    if datatype == "BYTES":
        return [_file(index, text) for index, text in enumerate(flat)]
    return _split(bytes(flat) if datatype == "UINT8" else _grey(flat))


def from_binary(datatype: str, shape: Sequence[int], data: bytes) -> list[bytes]:
    """data: little-endian, row by row, without padding; of BYTES each length comes first. Raises Rejected."""
    if datatype == "BYTES":
        return _files(shape[0], data)
    expected = shape[0] * _PIXELS * (4 if datatype == "FP32" else 1)
    if len(data) != expected:
        raise InvalidRequest(f"{datatype} of shape {list(shape)} has {expected} bytes, not {len(data)}")
    return _split(data if datatype == "UINT8" else _grey(_floats(data)))


def _flat(datatype: str, shape: Sequence[int], data: bytes) -> list[Any]:
    is_nested = len(shape) > 1 and _NESTED.match(data) is not None
    try:
        values = _decoder(datatype, len(shape) if is_nested else 1).decode(data)
    except NOT_JSON as error:
        raise InvalidRequest(f"data of {datatype} has {_VALUES[datatype]}: {error}") from error
    for size in shape[1:] if is_nested else ():
        if any(len(row) != size for row in values):
            raise InvalidRequest(f"data is not nested as its shape {list(shape)} says")
        values = list(itertools.chain.from_iterable(values))
    return values


@functools.cache
def _decoder(datatype: str, depth: int) -> msgspec.json.Decoder[list[Any]]:
    nested: Any = _ELEMENTS[datatype]
    for _ in range(depth):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


def _floats(data: bytes) -> Sequence[float]:
    values = array.array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    if not all(0 <= value <= 1 for value in values):  # not a number is neither
        raise InvalidRequest(f"data of FP32 has {_VALUES['FP32']}; divide grey values by 255")
    return values


def _grey(values: Sequence[float]) -> bytes:
    return bytes([int(value * 255 + 0.5) for value in values])


def _split(pixels: bytes) -> list[bytes]:
    return [pixels[start : start + _PIXELS] for start in range(0, len(pixels), _PIXELS)]


def _file(index: int, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _at(index, NotAPicture(f"data of BYTES is a picture file in base64: {error}")) from error


def _files(count: int, data: bytes) -> list[bytes]:
    files: list[bytes] = []
    start = 0
    while start < len(data) and len(files) < count:
        end = start + 4
        size = struct.unpack_from("<I", data, start)[0] if end <= len(data) else len(data)
        if end + size > len(data):
            raise _at(len(files), InvalidRequest("its length is more than what is left of the binary data"))
        files.append(data[end : end + size])
        start = end + size
    if start != len(data) or len(files) != count:
        raise InvalidRequest(f"the binary data does not have {count} elements, each after its length")
    return files


def _at(index: int, error: GatewayError) -> GatewayError:
    error.index = index
    return error
