"""Parsing an inference request: JSON, optionally followed by the input as binary data."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from gateway.errors import InvalidRequest, TooLarge
from gateway.tensors import IMAGE, MOST_NUMBERS, NUMBER_BYTES, checked, from_binary, from_json
from messaging.codec import NOT_JSON, one_of
from messaging.contract import MODES, Mode, ServedModel

OF_LABELS = ("probabilities", "label", "class")
NUMBERS = "numbers"

Parameters = dict[str, str | int | float | bool | None]

# For everything but the data: decoded, JSON of many small values takes many times its size.
_MOST_BYTES = 10_000
_PARAMETERS_END = 10**15
_LONG_STRING = 10_000
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


class RequestedOutput(NamedTuple):
    """classes: how many of the most probable to return as value:index:label; 0 for the plain tensor."""

    name: str
    is_binary: bool
    classes: int = 0


Form = Literal["file", "grey", "tensor"]
"""A picture file; 784 grey values, a byte each; or numbers as a worker takes them."""


class InferenceRequest(NamedTuple):
    """rows: all in one form. timeout_s is None if not given."""

    id: str | None
    rows: list[bytes]
    form: Form
    mode: Mode
    outputs: list[RequestedOutput]
    timeout_s: float | None


class Limits(NamedTuple):
    """rows bounds those of one request, row_bytes the size of each, of picture files too."""

    rows: int
    row_bytes: int


_decode = msgspec.json.Decoder(_Body).decode


def read(
    content: bytes | bytearray, header_length: str | None, model: ServedModel, limits: Limits
) -> InferenceRequest:
    """Parse a request body. header_length is the value of Inference-Header-Content-Length.

    Needs only a few megabytes besides the body and the rows, and never holds the GIL for long. Raises
    InvalidRequest, NotAPicture, TooLarge.
    """
    length = _json_length(header_length, len(content))
    text, long_strings = _extract_long_strings(content, length, limits)
    try:
        body = _decode(text)
    except msgspec.ValidationError as error:
        hint = f"; strings over {_LONG_STRING} bytes are accepted only as data" if long_strings else ""
        raise InvalidRequest(f"invalid inference request: {error}{hint}") from error
    except NOT_JSON as error:
        hint = "" if header_length else "; if binary data follows, set Inference-Header-Content-Length"
        raise InvalidRequest(f"the inference request is not JSON: {error}{hint}") from error
    (its,) = body.inputs
    parameters = _decode_field(body.parameters, "parameters", Parameters | None) or {}
    outputs = _decode_field(body.outputs, "outputs", list[_Output] | None) or []
    form: Form = "tensor" if its.name != IMAGE else "file" if its.datatype == "BYTES" else "grey"
    return InferenceRequest(
        id=body.id,
        rows=_rows(its, model, memoryview(content)[length:], long_strings, limits),
        form=form,
        mode=_mode(parameters, form),
        outputs=_outputs(outputs, model, _flag(parameters, "binary_data_output")),
        timeout_s=_timeout_s(parameters),
    )


def _extract_long_strings(
    content: bytes | bytearray, end: int, limits: Limits
) -> tuple[memoryview | bytearray, list[memoryview]]:
    """In large JSON, replace each long string by its number in the returned list.

    They are decoded one at a time, and the remaining JSON is small. Raises TooLarge if it is not.
    """
    view, strings = memoryview(content), list[memoryview]()
    most = MOST_NUMBERS * NUMBER_BYTES + 4 * _MOST_BYTES
    if end <= most:
        return view[:end], strings
    rest, copied, start, opened = bytearray(), 0, 0, -1
    for _ in range(_MOST_QUOTES):
        quote = content.find(b'"', start, end)
        if quote < 0 or (opened < 0 and len(rest) + quote - copied > most):
            break
        if opened < 0:
            opened = quote
        elif quote - opened > 2 * limits.row_bytes:
            raise TooLarge(f"a string is over {2 * limits.row_bytes} bytes, twice the limit of a picture")
        elif content[quote - 1] != _BACKSLASH or not _ends_with_escape(content[start:quote]):
            if quote - opened > _LONG_STRING:
                rest += view[copied:opened]
                rest += b"%d" % len(strings)
                strings.append(view[opened : quote + 1])
                copied = quote + 1
            opened = -1
        start = quote + 1
    if len(rest) + end - copied > most:
        raise TooLarge(f"the JSON has over {most} bytes besides picture files; send numbers as binary data")
    return rest + view[copied:end], strings


def _ends_with_escape(text: bytes | bytearray) -> bool:
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


def _decode_field(raw: msgspec.Raw, name: str, kind: Any) -> Any:
    text = bytes(raw)
    if len(text) > _MOST_BYTES:
        raise InvalidRequest(f"{name} has {len(text)} bytes; at most {_MOST_BYTES} are accepted")
    try:
        return msgspec.json.decode(text, type=kind)
    except NOT_JSON as error:
        raise InvalidRequest(f"invalid {name}: {error}") from error


def _json_length(given: str | None, most: int) -> int:
    if given is None:
        return most
    if not (given.isascii() and given.isdigit() and len(given) <= 15 and int(given) <= most):
        raise InvalidRequest(
            f"Inference-Header-Content-Length {given[:20]!r} is not a number of bytes within the body"
        )
    return int(given)


def _rows(
    its: _Input, model: ServedModel, binary: memoryview, long_strings: list[memoryview], limits: Limits
) -> list[bytes]:
    parameters = _decode_field(its.parameters, "the input's parameters", Parameters | None) or {}
    shape = _decode_field(its.shape, "shape", list[int])
    sent = checked(model, its.name, its.datatype, shape, limits.rows)
    _refuse_shared_memory(parameters)
    data, size = bytes(its.data).removeprefix(b"null"), parameters.get("binary_data_size")
    if bool(data) == (size is not None):
        raise InvalidRequest(f"give the input {its.name!r} either data or binary_data_size")
    if size is None and binary:
        raise InvalidRequest(f"{len(binary)} bytes follow the JSON, but no input has binary_data_size")
    if size is None:
        return from_json(sent, data, long_strings, limits.row_bytes)
    if size != len(binary):
        raise InvalidRequest(f"binary_data_size is {size!r}, but {len(binary)} bytes follow the JSON")
    return from_binary(sent, binary, limits.row_bytes)


def _refuse_shared_memory(parameters: Parameters) -> None:
    if "shared_memory_region" in parameters:
        raise InvalidRequest("shared memory is not supported; send the data in the request")


def outputs_of(model: ServedModel) -> tuple[str, ...]:
    """The names of the outputs."""
    return (NUMBERS,) if model.output == "numbers" else OF_LABELS


def _outputs(outputs: list[_Output], model: ServedModel, are_binary: bool) -> list[RequestedOutput]:
    known = outputs_of(model)
    if not outputs:
        return [RequestedOutput(name, are_binary) for name in known]
    if len({output.name for output in outputs}) < len(outputs):
        raise InvalidRequest("an output is requested twice")
    return [_output(output, known, are_binary) for output in outputs]


def _output(output: _Output, known: Sequence[str], are_binary: bool) -> RequestedOutput:
    if output.name not in known:
        raise InvalidRequest(f"unknown output {output.name[:50]!r}; known: {', '.join(known)}")
    parameters = output.parameters or {}
    _refuse_shared_memory(parameters)
    classes = _positive(parameters, "classification")
    if classes and output.name != "probabilities":
        raise InvalidRequest("classification applies only to the output 'probabilities'")
    return RequestedOutput(output.name, _flag(parameters, "binary_data", are_binary), classes)


_MODES: Mapping[Form, tuple[Mode, ...]] = {"file": MODES, "grey": ("raw28",), "tensor": ("auto",)}
"""Those that each form allows; the first is the default. Grey values are the input of the model as it is."""


def _mode(parameters: Parameters, form: Form) -> Mode:
    accepted, given = _MODES[form], parameters.get("mode", "")
    try:
        return one_of({"mode": str(given)}, "mode", accepted, accepted[0])
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def _timeout_s(parameters: Parameters) -> float | None:
    """The parameter is in microseconds, as in Triton."""
    return _positive(parameters, "timeout") / 1e6 or None


def _positive(parameters: Parameters, name: str) -> int:
    """0 by default."""
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _PARAMETERS_END:
        raise InvalidRequest(
            f"the parameter {name} is {str(value)[:20]!r}; it must be a positive integer of at most 15 digits"
        )
    return value


def _flag(parameters: Parameters, name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"the parameter {name} is {str(value)[:20]!r}; it must be true or false")
    return value
