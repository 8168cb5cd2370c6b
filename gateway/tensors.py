"""What clients send as a model's input, in JSON or binary: files, grey values or numbers, row by row."""

import array
import binascii
import functools
import itertools
import math
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from gateway.errors import GatewayError, InvalidRequest, NotAPicture, TooLarge
from messaging.codec import NOT_JSON
from messaging.contract import ServedModel

IMAGE, TENSOR = "image", "tensor"
"""The names of inputs: pictures, and the network's own input."""

MOST_NUMBERS = 200_704
"""In JSON, where they take many times their size: 256 pictures of 28 x 28, or one of 224 x 224 in RGB."""

SIDE = 28
PIXELS = SIDE * SIDE

Shapes = tuple[tuple[int, ...], ...]
"""Without the leading number of rows."""

_GREY: Shapes = ((SIDE, SIDE), (SIDE, SIDE, 1), (PIXELS,))
_FILES: Shapes = ((), (1,))


class _Kind(NamedTuple):
    """A kind of number: its code in struct, its type in JSON, and what it is in words."""

    code: str
    element: Any
    values: str


def _whole(code: str, bits: int, *, signed: bool) -> _Kind:
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    element = Annotated[int, msgspec.Meta(ge=least, le=most)] if bits < 64 else int
    return _Kind(code, element, f"integers from {least} to {most}")


_FLOAT_32 = 3.4028234663852886e38
_NUMBERS: Mapping[str, _Kind] = {
    "FP32": _Kind("f", Annotated[float, msgspec.Meta(ge=-_FLOAT_32, le=_FLOAT_32)], "numbers of float32"),
    "FP64": _Kind("d", float, "numbers"),
    "INT8": _whole("b", 8, signed=True),
    "INT16": _whole("h", 16, signed=True),
    "INT32": _whole("i", 32, signed=True),
    "INT64": _whole("q", 64, signed=True),
    "UINT8": _whole("B", 8, signed=False),
    "UINT16": _whole("H", 16, signed=False),
    "UINT32": _whole("I", 32, signed=False),
    "UINT64": _whole("Q", 64, signed=False),
    "BOOL": _Kind("?", bool, "true or false"),
}
_GREY_VALUES = {
    "UINT8": _NUMBERS["UINT8"],
    "FP32": _Kind("f", Annotated[float, msgspec.Meta(ge=0, le=1)], "numbers from 0 to 1"),
}
_BASE64 = _Kind("", int | str, "base64 strings")

DATATYPES = {
    "float32": "FP32", "float64": "FP64", "bool": "BOOL",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
"""What the Open Inference Protocol calls a ServedModel's dtype."""

_NESTED = re.compile(rb"\s*\[\s*\[")
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = b" \t\r\n"


class Sent(NamedTuple):
    """An input as it is sent. shape: with the leading number of rows, of which there is at least one."""

    name: str
    datatype: str
    shape: Sequence[int]

    @property
    def kind(self) -> _Kind:
        if self.datatype == "BYTES":
            return _BASE64
        return (_GREY_VALUES if self.name == IMAGE else _NUMBERS)[self.datatype]


def inputs_of(model: ServedModel) -> Mapping[str, Mapping[str, Shapes]]:
    """By name, which datatypes and shapes an input may have. A request has one of the inputs.

    A model of a kind or type that this gateway does not know has none.
    """
    datatype = DATATYPES.get(model.dtype)
    its_own = {TENSOR: {datatype: (model.shape,)}} if datatype else {}
    if model.kind == "garment":
        return {IMAGE: {"UINT8": _GREY, "FP32": _GREY, "BYTES": _FILES}}
    return ({IMAGE: {"BYTES": _FILES}} if model.kind == "image" else {}) | its_own


def checked(model: ServedModel, name: str, datatype: str, shape: Sequence[int], most: int) -> Sent:
    """Raises InvalidRequest, or TooLarge if there are more than `most` rows."""
    inputs = inputs_of(model)
    if name not in inputs:
        which = "the only input is" if len(inputs) == 1 else "known:"
        raise InvalidRequest(f"unknown input {name[:50]!r}; {which} {', '.join(map(repr, inputs))}")
    shapes = inputs[name].get(datatype)
    if shapes is None:
        accepted = ", ".join(inputs[name])
        raise InvalidRequest(f"datatype {datatype[:20]!r} is not accepted; accepted: {accepted}")
    if not shape or shape[0] < 1 or tuple(shape[1:]) not in shapes:
        accepted = ", ".join(str(["n", *rest]).replace("'", "") for rest in shapes)
        raise InvalidRequest(f"shape {list(shape[:9])} is not accepted for {datatype}; accepted: {accepted}")
    if shape[0] > most:
        raise TooLarge(f"{shape[0]} {_plural(name)} in one request; at most {most} are accepted")
    return Sent(name, datatype, shape)


def _plural(name: str) -> str:
    return "pictures" if name == IMAGE else "rows"


def from_json(sent: Sent, data: bytes, long_strings: Sequence[memoryview], most_bytes: int) -> list[bytes]:
    """Decode a JSON array, flat or nested according to the shape: each row becomes bytes.

    In BYTES, a number stands for one of long_strings, each a JSON string. Raises InvalidRequest, NotAPicture,
    or TooLarge for a row of over most_bytes, or too many numbers.
    """
    # Elements are counted before decoding, because short JSON can decode into very many objects.
    shape = sent.shape
    if sent.datatype == "BYTES":
        _check_count(shape, shape[0], max(shape[0], data.count(b'"') // 2))
        values = _flat(sent, data)
        _check_count(shape, shape[0], len(values))
        return [_file(*numbered, most_bytes) for numbered in enumerate(_texts(values, long_strings))]
    count = math.prod(shape)
    _check_count(shape, count, data.count(b",") + 1)
    if count > MOST_NUMBERS:
        raise TooLarge(f"{count} numbers in JSON; at most {MOST_NUMBERS} are accepted: send binary data")
    values = _flat(sent, data)
    if sent.name == IMAGE:
        return _split(bytes(values) if sent.datatype == "UINT8" else _grey(values), PIXELS)
    return _packed(sent, values, most_bytes)


def from_binary(sent: Sent, data: memoryview, most_bytes: int) -> list[bytes]:
    """Decode little-endian values; in BYTES, each file follows its length.

    Raises InvalidRequest, or TooLarge for a row of over most_bytes.
    """
    if sent.datatype == "BYTES":
        return _files(sent.shape[0], data)
    expected = math.prod(sent.shape) * struct.calcsize("<" + sent.kind.code)
    if len(data) != expected:
        what = f"{sent.datatype} of shape {list(sent.shape)}"
        raise InvalidRequest(f"{what} must have {expected} bytes, not {len(data)}")
    if sent.name == IMAGE:
        return _split(bytes(data) if sent.datatype == "UINT8" else _grey(_floats(data)), PIXELS)
    return _split(data, _row_bytes(sent, most_bytes))


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: msgspec.Raw


def from_body(content: bytes, model: ServedModel, most: int, most_bytes: int) -> list[bytes]:
    """The rows of {"inputs": [row, ...]}, as a worker takes them. Raises InvalidRequest or TooLarge.

    most: rows that are accepted; most_bytes: of each.
    """
    wanted = f'{model.name} takes {model.input}, as {{"inputs": [row]}}'
    if model.kind != "tensor" or model.dtype not in DATATYPES:
        said = f'{model.name} takes pictures: send a file, or JSON as {{"image": "the file in base64"}}'
        try:
            msgspec.json.decode(content)
        except NOT_JSON as error:
            said += f"; the body is no JSON: {error}" if content else "; the body is empty"
        raise InvalidRequest(said)
    size = math.prod(model.shape)
    if len(content) > MOST_NUMBERS * NUMBER_BYTES:
        raise TooLarge(f"{wanted}: the JSON has {len(content)} bytes; send fewer rows at once")
    try:
        data = bytes(msgspec.json.decode(content, type=_Body).inputs)
    except NOT_JSON as error:
        hint = "; JSON has no NaN and no Infinity" if b"NaN" in content or b"Infinity" in content else ""
        raise InvalidRequest(f"{wanted}: {error}{hint}") from error
    count, rest = divmod(data.count(b",") + 1, size)
    if rest or count > MOST_NUMBERS // size:
        raise InvalidRequest(f"{wanted}: {size} values in each row, and there are {data.count(b',') + 1}")
    if count > most:
        which = "send one, or more to /predict/batch" if most == 1 else f"at most {most} are accepted"
        raise InvalidRequest(f"{count} rows in one request; {which}")
    sent = Sent(TENSOR, DATATYPES[model.dtype], (count, *model.shape))
    try:
        return _packed(sent, _flat(sent, data, must_nest=True), most_bytes)
    except InvalidRequest as error:
        raise InvalidRequest(f"{wanted}: {error}") from error


class _Image(msgspec.Struct):
    image: str


def picture_from(content: bytes) -> bytes | None:
    """The picture in {"image": base64}; None for JSON of another form. Raises NotAPicture."""
    try:
        text = msgspec.json.decode(content, type=_Image).image
    except NOT_JSON:
        return None
    if _URL.match(text):
        raise NotAPicture("image is a URL, which is not fetched; send the picture itself, or its base64")
    try:
        return _from_base64(text)
    except ValueError as error:
        raise NotAPicture(f"image must be a picture file in base64: {error}") from error


_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")

NUMBER_BYTES = 26
"""A float in JSON: digits, sign, exponent, a comma and a space."""


def _row_bytes(sent: Sent, most_bytes: int) -> int:
    """Raises TooLarge."""
    size = math.prod(sent.shape[1:]) * struct.calcsize("<" + sent.kind.code)
    if size > most_bytes:
        raise TooLarge.over("a row", size, "bytes", most_bytes, "gateway.max_upload_bytes")
    return size


def _packed(sent: Sent, values: Sequence[Any], most_bytes: int) -> list[bytes]:
    size = _row_bytes(sent, most_bytes)
    try:
        return _split(struct.pack(f"<{len(values)}{sent.kind.code}", *values), size)
    except struct.error as error:
        raise InvalidRequest(f"data of {sent.datatype} must be {sent.kind.values}") from error


def _check_count(shape: Sequence[int], expected: int, found: int) -> None:
    if found != expected:
        raise InvalidRequest(f"data of shape {list(shape)} must have {expected} elements, not {found}")


def _texts(values: Sequence[int | str], long_strings: Sequence[memoryview]) -> list[str | memoryview]:
    numbers = [value for value in values if isinstance(value, int)]
    # Each at most once, so that a string sent once is not decoded many times.
    if numbers != sorted({*numbers} & {*range(len(long_strings))}):
        raise InvalidRequest(f"data of BYTES must be {_BASE64.values}, not numbers")
    return [long_strings[value] if isinstance(value, int) else value for value in values]


def _flat(sent: Sent, data: bytes, *, must_nest: bool = False) -> list[Any]:
    shape = sent.shape
    is_nested = must_nest or (len(shape) > 1 and _NESTED.match(data) is not None)
    try:
        values = _decoder(sent.name == IMAGE, sent.datatype, len(shape) if is_nested else 1).decode(data)
    except NOT_JSON as error:
        raise InvalidRequest(f"data of {sent.datatype} must be {sent.kind.values}: {error}") from error
    if is_nested and len(values) != shape[0]:
        raise InvalidRequest(f"data is not nested according to its shape {list(shape)}")
    for size in shape[1:] if is_nested else ():
        if any(len(row) != size for row in values):
            raise InvalidRequest(f"data is not nested according to its shape {list(shape)}")
        values = list(itertools.chain.from_iterable(values))
    return values


@functools.cache
def _decoder(is_image: bool, datatype: str, depth: int) -> msgspec.json.Decoder[list[Any]]:
    nested: Any = Sent(IMAGE if is_image else TENSOR, datatype, ()).kind.element
    for _ in range(depth):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


def _floats(data: memoryview) -> Sequence[float]:
    values = array.array("f")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    if not all(0 <= value <= 1 for value in values):  # NaN fails both comparisons
        raise InvalidRequest(f"data of FP32 must be {_GREY_VALUES['FP32'].values}; divide grey values by 255")
    return values


def _grey(values: Sequence[float]) -> bytes:
    return bytes([int(value * 255 + 0.5) for value in values])


def _split(data: bytes | memoryview, size: int) -> list[bytes]:
    return [bytes(data[start : start + size]) for start in range(0, len(data), size)]


def _file(index: int, text: str | memoryview, most_bytes: int) -> bytes:
    if len(text) > 2 * most_bytes:
        most = f"at most {most_bytes} bytes are accepted (gateway.max_upload_bytes)"
        raise _at(index, TooLarge(f"the picture has {len(text)} characters of base64; {most}"))
    try:
        plain = text if isinstance(text, str) else msgspec.json.decode(text, type=str)
        return _from_base64(plain)
    except (*NOT_JSON, ValueError) as error:
        raise _at(index, NotAPicture(f"data of BYTES must be a picture file in base64: {error}")) from error


def _from_base64(text: str) -> bytes:
    """Accepts whitespace, because many encoders break lines, and data URIs. Raises ValueError."""
    if not text.isascii():
        raise ValueError("it has characters that base64 does not use")
    encoded = text.encode()
    if encoded[:5].lower() == b"data:":
        encoded = encoded.partition(b";base64,")[2]
    try:
        return binascii.a2b_base64(encoded.translate(_FROM_URL_SAFE, _WHITESPACE), strict_mode=True)
    except binascii.Error as error:
        raise ValueError("it has other characters, or its end is missing") from error


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
