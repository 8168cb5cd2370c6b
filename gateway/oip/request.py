"""An inference request: JSON, and behind it the tensor's bytes where the client sends them as they are."""

from typing import Any, NamedTuple

import msgspec

from gateway.errors import InvalidRequest, TooLarge
from gateway.oip.tensors import PIXELS, count_of, from_binary, from_json
from messaging.codec import NOT_JSON, one_of
from messaging.contract import MODES, Mode

INPUT = "image"
OUTPUTS = ("probabilities", "label", "class")

Parameters = dict[str, str | int | float | bool | None]

# Of everything but the data. Decoded, a long text of small things takes many times its room.
_MOST_BYTES = 10_000
_PARAMETERS_END = 10**15
# In JSON: the digits that a float needs, its sign, its exponent, a comma and a blank.
_NUMBER_BYTES = 26
_LONG_TEXT = 10_000
_MOST_QUOTES = 20_000
_BACKSLASH = ord("\\")


class _Input(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    datatype: str
    shape: msgspec.Raw
    parameters: msgspec.Raw = msgspec.Raw(b"null")
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    parameters: Parameters | None = None


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    inputs: tuple[_Input]
    id: str | None = None
    outputs: msgspec.Raw = msgspec.Raw(b"null")
    parameters: msgspec.Raw = msgspec.Raw(b"null")


class Wanted(NamedTuple):
    """An output. With classes above 0, so many of the most probable as value:index:label."""

    name: str
    is_binary: bool
    classes: int = 0


class Asked(NamedTuple):
    """pictures are files, or 784 grey values each. timeout_s is None if the request does not say."""

    id: str | None
    pictures: list[bytes]
    are_files: bool
    mode: Mode
    outputs: list[Wanted]
    timeout_s: float | None


class Limits(NamedTuple):
    """Of pictures in one request, and of bytes in one picture file."""

    pictures: int
    file_bytes: int


_decode = msgspec.json.Decoder(_Body).decode


def read(content: bytes | bytearray, header_length: str | None, limits: Limits) -> Asked:
    """header_length is that of the JSON, as the request's header has it. Raises Rejected.

    Beside content and the pictures it takes some megabytes at a time, and never holds the interpreter's lock
    for long.
    """
    length = _length(header_length, len(content))
    text, long_texts = _take_out_long_texts(content, length, limits)
    try:
        body = _decode(text)
    except msgspec.ValidationError as error:
        hint = f"; strings over {_LONG_TEXT} bytes are accepted only as data" if long_texts else ""
        raise InvalidRequest(f"invalid inference request: {error}{hint}") from error
    except NOT_JSON as error:
        hint = "" if header_length else "; if binary data follows, set Inference-Header-Content-Length"
        raise InvalidRequest(f"the inference request is not JSON: {error}{hint}") from error
    (its_input,) = body.inputs
    if its_input.name != INPUT:
        raise InvalidRequest(f"unknown input {its_input.name[:50]!r}; the only input is {INPUT!r}")
    parameters = _part(body.parameters, "parameters", Parameters | None) or {}
    outputs = _part(body.outputs, "outputs", list[_Output] | None) or []
    are_files = its_input.datatype == "BYTES"
    return Asked(
        id=body.id,
        pictures=_pictures(its_input, memoryview(content)[length:], long_texts, limits),
        are_files=are_files,
        mode=_mode(parameters, are_files=are_files),
        outputs=_outputs(outputs, _flag(parameters, "binary_data_output")),
        timeout_s=_timeout_s(parameters),
    )


def _take_out_long_texts(
    content: bytes | bytearray, end: int, limits: Limits
) -> tuple[memoryview | bytearray, list[memoryview]]:
    """In JSON that is large, put a number in place of each long string: its place among them, from 0.

    They are read one by one then, and the rest is small. Raises TooLarge if it is not.
    """
    view, texts = memoryview(content), list[memoryview]()
    most = limits.pictures * PIXELS * _NUMBER_BYTES + 4 * _MOST_BYTES
    if end <= most:
        return view[:end], texts
    rest, taken, after, opened = bytearray(), 0, 0, -1
    for _ in range(_MOST_QUOTES):
        quote = content.find(b'"', after, end)
        if quote < 0 or (opened < 0 and len(rest) + quote - taken > most):
            break
        if opened < 0:
            opened = quote
        elif quote - opened > 2 * limits.file_bytes:
            raise TooLarge(f"a string is over {2 * limits.file_bytes} bytes, twice what a picture may have")
        elif content[quote - 1] != _BACKSLASH or not _ends_with_escape(content[after:quote]):
            if quote - opened > _LONG_TEXT:
                rest += view[taken:opened]
                rest += b"%d" % len(texts)
                texts.append(view[opened : quote + 1])
                taken = quote + 1
            opened = -1
        after = quote + 1
    if len(rest) + end - taken > most:
        raise TooLarge(f"the JSON has over {most} bytes besides picture files; send numbers as binary data")
    return rest + view[taken:end], texts


def _ends_with_escape(text: bytes | bytearray) -> bool:
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


def _part(raw: msgspec.Raw, name: str, kind: Any) -> Any:
    part = bytes(raw)
    if len(part) > _MOST_BYTES:
        raise InvalidRequest(f"{name} has {len(part)} bytes; at most {_MOST_BYTES} are accepted")
    try:
        return msgspec.json.decode(part, type=kind)
    except NOT_JSON as error:
        raise InvalidRequest(f"invalid {name}: {error}") from error


def _length(given: str | None, most: int) -> int:
    if given is None:
        return most
    if not (given.isascii() and given.isdigit() and len(given) <= 15 and int(given) <= most):
        raise InvalidRequest(
            f"Inference-Header-Content-Length {given[:20]!r} is not a length within the body"
        )
    return int(given)


def _pictures(
    its_input: _Input, binary: memoryview, long_texts: list[memoryview], limits: Limits
) -> list[bytes]:
    parameters = _part(its_input.parameters, "the input's parameters", Parameters | None) or {}
    shape = _part(its_input.shape, "shape", list[int])
    count_of(its_input.datatype, shape, limits.pictures)
    _refuse_shared_memory(parameters)
    data, size = bytes(its_input.data).removeprefix(b"null"), parameters.get("binary_data_size")
    if bool(data) == (size is not None):
        raise InvalidRequest(f"the input {INPUT!r} must have either data or binary_data_size")
    if size is None and binary:
        raise InvalidRequest(f"{len(binary)} bytes follow the JSON, but no input has binary_data_size")
    if size is None:
        return from_json(its_input.datatype, shape, data, long_texts, limits.file_bytes)
    if size != len(binary):
        raise InvalidRequest(f"binary_data_size is {size!r}, but {len(binary)} bytes follow the JSON")
    return from_binary(its_input.datatype, shape, binary)


def _refuse_shared_memory(parameters: Parameters) -> None:
    if "shared_memory_region" in parameters:
        raise InvalidRequest("shared memory is not supported; send data in the request")


def _outputs(given: list[_Output], are_binary: bool) -> list[Wanted]:
    if not given:
        return [Wanted(name, are_binary) for name in OUTPUTS]
    names = [one.name for one in given]
    if len(set(names)) < len(names):
        raise InvalidRequest("an output is requested twice")
    return [_wanted(one, are_binary) for one in given]


def _wanted(output: _Output, are_binary: bool) -> Wanted:
    if output.name not in OUTPUTS:
        raise InvalidRequest(f"unknown output {output.name[:50]!r}; known: {', '.join(OUTPUTS)}")
    parameters = output.parameters or {}
    _refuse_shared_memory(parameters)
    classes = _positive(parameters, "classification")
    if classes and output.name != "probabilities":
        raise InvalidRequest("classification applies only to the output 'probabilities'")
    return Wanted(output.name, _flag(parameters, "binary_data", are_binary), classes)


def _mode(parameters: Parameters, *, are_files: bool) -> Mode:
    """Pixels are what the model sees."""
    accepted: tuple[Mode, ...] = MODES if are_files else ("raw28",)
    given = parameters.get("mode", "")
    try:
        return one_of({"mode": str(given)}, "mode", accepted, "auto" if are_files else "raw28")
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def _timeout_s(parameters: Parameters) -> float | None:
    """In the request it is in microseconds, as Triton has it."""
    return _positive(parameters, "timeout") / 1e6 or None


def _positive(parameters: Parameters, name: str) -> int:
    """0 if it is not there."""
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _PARAMETERS_END:
        raise InvalidRequest(
            f"the parameter {name} is {str(value)[:20]!r}, not a whole number above 0 of at most 15 digits"
        )
    return value


def _flag(parameters: Parameters, name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"the parameter {name} is {str(value)[:20]!r}, neither true nor false")
    return value
