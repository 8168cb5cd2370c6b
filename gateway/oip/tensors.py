"""Decoding the input tensor into pictures: files, or 784 grey values each."""

import array
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
"""The accepted shapes of each datatype, without the leading number of pictures."""

PIXELS = SIDE * SIDE
_NESTED = re.compile(rb"\s*\[\s*\[")
_VALUES = {"UINT8": "integers from 0 to 255", "FP32": "numbers from 0 to 1", "BYTES": "base64 strings"}
_ELEMENTS: dict[str, Any] = {
    "UINT8": Annotated[int, msgspec.Meta(ge=0, le=255)],
    "FP32": Annotated[float, msgspec.Meta(ge=0, le=1)],
    "BYTES": int | str,
}
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = b" \t\r\n"


def count_of(datatype: str, shape: Sequence[int], most: int) -> int:
    """The number of pictures. Raises InvalidRequest, or TooLarge if it exceeds `most`."""
    if datatype not in SHAPES:
        raise InvalidRequest(f"datatype {datatype[:20]!r} is not accepted; accepted: {', '.join(SHAPES)}")
    if not shape or shape[0] < 1 or tuple(shape[1:]) not in SHAPES[datatype]:
        accepted = ", ".join(str(["n", *rest]).replace("'", "") for rest in SHAPES[datatype])
        raise InvalidRequest(f"shape {list(shape[:5])} is not accepted for {datatype}; accepted: {accepted}")
    if shape[0] > most:
        raise TooLarge(f"{shape[0]} pictures in one request; at most {most} are accepted")
    return shape[0]


def from_json(
    datatype: str, shape: Sequence[int], data: bytes, long_strings: Sequence[memoryview], most_bytes: int
) -> list[bytes]:
    """Decode a JSON array, flat or nested according to the shape.

    In BYTES, a number stands for one of long_strings, each a JSON string. Raises InvalidRequest, NotAPicture,
    or TooLarge if a file exceeds most_bytes.
    """
    # Elements are counted before decoding, because short JSON can decode into very many objects.
    if datatype == "BYTES":
        _check_count(shape, shape[0], max(shape[0], data.count(b'"') // 2))
        values = _flat(datatype, shape, data)
        _check_count(shape, shape[0], len(values))
        return [_file(*numbered, most_bytes) for numbered in enumerate(_texts(values, long_strings))]
    _check_count(shape, shape[0] * PIXELS, data.count(b",") + 1)
    flat = _flat(datatype, shape, data)
    return _split(bytes(flat) if datatype == "UINT8" else _grey(flat))


def from_binary(datatype: str, shape: Sequence[int], data: memoryview) -> list[bytes]:
    """Decode little-endian values; in BYTES, each file follows its length. Raises InvalidRequest."""
    if datatype == "BYTES":
        return _files(shape[0], data)
    expected = shape[0] * PIXELS * (4 if datatype == "FP32" else 1)
    if len(data) != expected:
        raise InvalidRequest(f"{datatype} of shape {list(shape)} must have {expected} bytes, not {len(data)}")
    return _split(bytes(data) if datatype == "UINT8" else _grey(_floats(data)))


def _check_count(shape: Sequence[int], expected: int, found: int) -> None:
    if found != expected:
        raise InvalidRequest(f"data of shape {list(shape)} must have {expected} elements, not {found}")


def _texts(values: Sequence[int | str], long_strings: Sequence[memoryview]) -> list[str | memoryview]:
    numbers = [value for value in values if isinstance(value, int)]
    # Each at most once, so that a string sent once is not decoded many times.
    if numbers != sorted({*numbers} & {*range(len(long_strings))}):
        raise InvalidRequest(f"data of BYTES must be {_VALUES['BYTES']}, not numbers")
    return [long_strings[value] if isinstance(value, int) else value for value in values]


def _flat(datatype: str, shape: Sequence[int], data: bytes) -> list[Any]:
    is_nested = len(shape) > 1 and _NESTED.match(data) is not None
    try:
        values = _decoder(datatype, len(shape) if is_nested else 1).decode(data)
    except NOT_JSON as error:
        raise InvalidRequest(f"data of {datatype} must be {_VALUES[datatype]}: {error}") from error
    for size in shape[1:] if is_nested else ():
        if any(len(row) != size for row in values):
            raise InvalidRequest(f"data is not nested according to its shape {list(shape)}")
        values = list(itertools.chain.from_iterable(values))
    return values


@functools.cache
def _decoder(datatype: str, depth: int) -> msgspec.json.Decoder[list[Any]]:
    nested: Any = _ELEMENTS[datatype]
    for _ in range(depth):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


def _floats(data: memoryview) -> Sequence[float]:
    values = array.array("f")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    if not all(0 <= value <= 1 for value in values):  # NaN fails both comparisons
        raise InvalidRequest(f"data of FP32 must be {_VALUES['FP32']}; divide grey values by 255")
    return values


def _grey(values: Sequence[float]) -> bytes:
    return bytes([int(value * 255 + 0.5) for value in values])


def _split(pixels: bytes) -> list[bytes]:
    return [pixels[start : start + PIXELS] for start in range(0, len(pixels), PIXELS)]


def _file(index: int, text: str | memoryview, most_bytes: int) -> bytes:
    """Accepts whitespace, because many encoders break lines, and data URIs."""
    if len(text) > 2 * most_bytes:
        detail = f"the picture has {len(text)} characters of base64; at most {most_bytes} bytes are accepted"
        raise _at(index, TooLarge(detail))
    try:
        plain = text if isinstance(text, str) else msgspec.json.decode(text, type=str)
        encoded = plain.encode("ascii")
        if encoded[:5].lower() == b"data:":
            encoded = encoded.partition(b";base64,")[2]
        return binascii.a2b_base64(encoded.translate(_FROM_URL_SAFE, _WHITESPACE), strict_mode=True)
    except (*NOT_JSON, ValueError) as error:
        raise _at(index, NotAPicture(f"data of BYTES must be a picture file in base64: {error}")) from error


def _files(count: int, data: memoryview) -> list[bytes]:
    files: list[bytes] = []
    start = 0
    while start < len(data) and len(files) < count:
        end = start + 4
        size = struct.unpack_from("<I", data, start)[0] if end <= len(data) else len(data)
        if end + size > len(data):
            raise _at(len(files), InvalidRequest("its length exceeds the rest of the binary data"))
        files.append(bytes(data[end : end + size]))
        start = end + size
    if start != len(data) or len(files) != count:
        raise InvalidRequest(f"the binary data must have {count} elements, each preceded by its length")
    return files


def _at(index: int, error: GatewayError) -> GatewayError:
    error.index = index
    return error
