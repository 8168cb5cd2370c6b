"""What a request asks for: its query parameters, the time it allows, and the pictures in its body."""

import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.datastructures import QueryParams
from starlette.requests import Request

from gateway.errors import BrokenForm, InvalidRequest, NotAPicture, ReplyTimeout, TooLarge, UnacceptedMedia
from messaging import picture_header
from messaging.codec import one_of
from messaging.contract import EXPLAINS, MODES, Explain, Mode
from messaging.picture_header import (
    ACCEPTED,
    MAX_SCANS,
    MEDIA_TYPES,
    HeaderError,
    PictureHeader,
    media_type_of,
    other_kind,
)

HEADER = "X-Request-Timeout-Ms"
RAW_HEADER = HEADER.lower().encode()

# Ours, other names for them, and those of clients that do not know the type, or send that of a part's form.
_KNOWN = frozenset(
    {
        *MEDIA_TYPES, "image/*", "image/jpg", "image/pjpeg", "image/x-png", "image/heif", "image/x-ms-bmp",
        "image/tif", "*/*", "application/binary", "application/octet-stream", "application/unknown",
        "application/x-binary", "application/x-www-form-urlencoded", "binary/octet-stream",
        "multipart/form-data",
    }
)  # fmt: skip

FIELD = "file"
OTHER_FIELDS = 8
"""How many fields a form may have besides its files. They are ignored."""

FORM_OVERHEAD_BYTES = 64 * 1024
FORM_PART_BYTES = 512
"""What a form may take besides its files, and per file where there are many."""

_FORM = "multipart/form-data"
_URLENCODED = "application/x-www-form-urlencoded"
_PARAMETER = re.compile(rb';\s*([!#$%&\'*+.^_`|~\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.ASCII | re.DOTALL)
_ESCAPED = re.compile(rb'\\(["\\])')
# No other charset is accepted: some of Python's codecs take minutes for what a form may contain.
_CHARSETS = {
    "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "utf-8", "ascii": "utf-8",
    "iso-8859-1": "latin-1", "latin-1": "latin-1", "latin1": "latin-1",
}  # fmt: skip
_UNENCODED = ("", "7bit", "8bit", "binary")
# The characters that browsers escape (WHATWG HTML, multipart form data).
_ESCAPED_BY_FORMS = (("%22", '"'), ("%0A", "\n"), ("%0D", "\r"))
_MOST_BOUNDARY_BYTES = 256
_MOST_HEADERS = 8
_MOST_LINE_BYTES = 4096


class Query(NamedTuple):
    """The query parameters; messaging.contract says what they mean."""

    model: str = ""
    version: str = ""
    mode: Mode = "auto"
    explain: Explain = ""
    top_k: int = 0


NAMES = Query._fields
_DEFAULTS = Query()


def read_query(request: Request) -> Query:
    """Raises InvalidRequest, which says what is accepted."""
    if not request.scope["query_string"]:
        return _DEFAULTS
    given = request.query_params
    check_names(given, NAMES)
    try:
        mode = one_of(given, "mode", MODES, "auto")
        explain = one_of(given, "explain", EXPLAINS, "")
        top_k = _top_k(given.get("top_k"))
        return Query(given.get("model", ""), given.get("version", ""), mode, explain, top_k)
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def check_names(given: QueryParams, known: Sequence[str]) -> None:
    """Raises InvalidRequest for an unknown parameter, and for one that is given twice."""
    for name in given:
        if name not in known:
            raise InvalidRequest(f"unknown parameter {name[:50]!r}; known: {', '.join(known)}")
        if len(given.getlist(name)) > 1:
            raise InvalidRequest(f"{name} is given more than once")


def _top_k(given: str | None) -> int:
    """0 stands for all labels. Raises ValueError."""
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) <= 6 and int(given) > 0):
        raise ValueError(f"top_k {given[:20]!r} is not a whole number from 1 to 999999")
    return int(given)


def parameter(name: str, description: str, **schema: object) -> dict[str, Any]:
    """The OpenAPI description of a query parameter."""
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", **schema}}


PARAMETERS = [
    parameter(
        "model",
        "Name of the model. By default, the default model answers: fashion-mnist as shipped, for small grey "
        "pictures. For photos, there is clothing-photo.",
    ),
    parameter("version", "Version of the model, of those that answer. By default, its shares decide."),
    parameter(
        "mode",
        "How the picture becomes the model's 28 x 28 grey pixels. raw28: it has that size already; product: "
        "one piece on a plain background; photo: cut out of a busy background; auto: the one that suits.",
        enum=[*MODES, ""],
        default="auto",
    ),
    parameter("explain", "input: the answer shows what the model saw.", enum=["input", ""]),
    parameter(
        "top_k",
        "Return only this many of the most probable labels.",
        type="integer",
        minimum=1,
        maximum=999_999,
    ),
]


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a request must be answered. started: monotonic seconds."""

    started: float
    timeout_s: float

    def left_s(self) -> float:
        """Seconds that are left. Raises ReplyTimeout when there are none."""
        left = self.started + self.timeout_s - time.monotonic()
        if left <= 0:
            raise ReplyTimeout(
                f"no answer within {self.timeout_s:g} s: sending the picture took all of that time"
            )
        return left

    def passed_ms(self) -> float:
        """Milliseconds since the request's head was read."""
        return (time.monotonic() - self.started) * 1000


def read_deadline(request: Request, most_ms: int) -> Deadline:
    """Start the deadline that the caller asks for, capped at most_ms. Raises InvalidRequest."""
    given = header(request, RAW_HEADER)
    if given is not None and not _is_milliseconds(given):
        raise InvalidRequest(f"{HEADER} {given[:20]!r} is not a whole number of milliseconds above 0")
    timeout_ms = most_ms if given is None else shortened(given, most_ms)
    return Deadline(time.monotonic(), timeout_ms / 1000)


def shortened(given: str, most_ms: int) -> int:
    """The milliseconds that the caller asks for, capped at most_ms; most_ms for an invalid value."""
    return min(int(given), most_ms) if _is_milliseconds(given) else most_ms


def _is_milliseconds(given: str) -> bool:
    return given.isascii() and given.isdigit() and len(given) <= 15 and int(given) > 0


def check(body: bytes, declared: str, *, max_bytes: int, max_pixels: int) -> PictureHeader:
    """Return the header of a picture that the workers may decode. Raises Rejected.

    declared: the media type that the client sent. The bytes decide if it is an image type, or a generic one.
    """
    media_type = essence(declared)
    is_known = media_type in _KNOWN or "/" not in media_type
    if not is_known and not (media_type.startswith("image/") and media_type_of(body)):
        raise UnacceptedMedia(f"{media_type[:100]} is not accepted; send {ACCEPTED}")
    if not body:
        raise NotAPicture("the picture is empty: 0 bytes")
    if len(body) > max_bytes:
        raise TooLarge.over("the picture", len(body), "bytes", max_bytes, "gateway.max_upload_bytes")
    try:
        header = picture_header.read(body)
    except HeaderError as error:
        raise NotAPicture(str(error)) from error
    if header is None:
        if kind := other_kind(body):
            raise UnacceptedMedia(f"this is {kind}, which is not accepted; convert it to JPEG or PNG")
        raise NotAPicture(f"the bytes are not a picture in {ACCEPTED}")
    if header.pixels > max_pixels:
        raise TooLarge.over("the picture", header.pixels, "pixels", max_pixels, "gateway.max_pixels")
    if header.scans > MAX_SCANS:
        raise TooLarge(f"the JPEG picture has over {MAX_SCANS} scans; save it as a baseline JPEG")
    return header


def essence(content_type: str) -> str:
    """The media type without parameters, in lower case: it is case-insensitive (RFC 9110, 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()


def header(request: Request, name: bytes) -> str | None:
    """The first of this lower-case name, in a third of the time that request.headers takes."""
    found = (bytes(value) for each, value in request.scope["headers"] if each == name)
    return value.decode("latin-1") if (value := next(found, None)) is not None else None


def declared_type(request: Request) -> str:
    """The Content-Type; empty without one."""
    return header(request, b"content-type") or ""


class Upload(NamedTuple):
    """A file as the client sent it, with the media type and the name that the client declared."""

    content: bytes
    declared: str
    filename: str


async def read_picture(request: Request) -> Upload:
    """Return the only file of a form, or the body itself. Raises Rejected."""
    (upload,) = await read_any(request, 1)
    return upload


async def read_pictures(request: Request, most: int) -> list[Upload]:
    """Return all files of a form, in order. Raises Rejected."""
    if essence(declared_type(request)) != _FORM:
        raise UnacceptedMedia("send the pictures as form fields (curl -F file=@one.png -F file=@two.png)")
    return await _read_form(request, most)


async def read_any(request: Request, most: int) -> list[Upload]:
    """Return all files of a form, in order, or the body itself as the only one. Raises Rejected."""
    declared = declared_type(request)
    media_type = essence(declared)
    if media_type == _FORM:
        return await _read_form(request, most)
    body = await request.body()
    if media_type == _URLENCODED and body.startswith(b"{"):
        raise UnacceptedMedia("send JSON with its media type: curl -H 'Content-Type: application/json' -d …")
    if media_type == _URLENCODED and media_type_of(body) is None:
        raise UnacceptedMedia(
            "send the picture as a form field (curl -F file=@picture.png) or as the body with its "
            "media type (curl --data-binary @picture.png -H 'Content-Type: image/png')"
        )
    return [Upload(body, declared, "")]


async def _read_form(request: Request, most: int) -> list[Upload]:
    """Raises Rejected."""
    content_type = _parameters(request.headers["content-type"].encode("latin-1"))
    charset = content_type.get(b"charset", b"utf-8").decode("latin-1").lower().replace("_", "-")
    if charset not in _CHARSETS:
        raise InvalidRequest(f"the form's charset {charset[:20]!r} is not accepted; use UTF-8")
    boundary = content_type.get(b"boundary", b"")
    if not 0 < len(boundary) <= _MOST_BOUNDARY_BYTES:
        raise BrokenForm(
            f"the Content-Type has no boundary of 1 to {_MOST_BOUNDARY_BYTES} bytes; let curl -F or "
            "the HTTP library set this header"
        )
    async with aclosing(request.stream()) as body:
        return await _Form(_Parts(body, boundary), _CHARSETS[charset], most, request.scope["path"]).read()


class _Part(NamedTuple):
    """What a part's headers say. filename: None for a field that is not a file."""

    name: bytes
    filename: str | None
    declared: str


class _Form:
    """A multipart/form-data body, as RFC 7578 and browsers define it."""

    def __init__(self, parts: "_Parts", charset: str, most: int, path: str) -> None:
        self._parts = parts
        self._charset = charset
        self._most = most
        self._path = path
        self._uploads: list[Upload] = []
        self._files = 0
        self._others: list[str] = []

    async def read(self) -> list[Upload]:
        """Return the files in order, at least one. Raises Rejected."""
        while (headers := await self._parts.next_headers()) is not None:
            part = self._judge(headers)
            size, content = await self._parts.content(keep=part.name == FIELD.encode())
            self._add(part, size, content)
        if not self._uploads:
            came = f"; its fields are {', '.join(self._others)}" if self._others else ""
            raise NotAPicture(f"the form has no file in its field {FIELD!r}{came}")
        return self._uploads

    def _judge(self, headers: Mapping[bytes, bytes]) -> _Part:
        disposition = _parameters(headers.get(b"content-disposition", b""))
        if b"name" not in disposition:
            raise BrokenForm("a part of the form has no name in its Content-Disposition")
        encoding = headers.get(b"content-transfer-encoding", b"").decode("latin-1").lower()
        if encoding not in _UNENCODED:
            raise UnacceptedMedia(
                f"Content-Transfer-Encoding {encoding[:20]!r} is not accepted; send the bytes unencoded"
            )
        declared = headers.get(b"content-type", b"").decode("latin-1")
        return _Part(disposition[b"name"], self._filename(disposition), declared)

    def _filename(self, disposition: Mapping[bytes, bytes]) -> str | None:
        """Without the directories of a Windows path, which old browsers send."""
        plain = disposition.get(b"filename")
        if plain is None:
            charset, _, rest = disposition.get(b"filename*", b"").partition(b"'")
            text = unquote_to_bytes(rest.partition(b"'")[2])
            return self._decode(text, charset.decode("latin-1")) if charset else None
        if plain[1:3] == b":\\" or plain[:2] == b"\\\\":
            plain = plain.rpartition(b"\\")[2]
        name = self._decode(plain)
        for escaped, character in _ESCAPED_BY_FORMS:
            name = name.replace(escaped, character)
        return name

    def _decode(self, text: bytes, charset: str = "") -> str:
        try:
            return text.decode(_CHARSETS.get(charset.lower(), self._charset))
        except UnicodeDecodeError:
            return text.decode("latin-1")

    def _add(self, part: _Part, size: int, content: bytes) -> None:
        is_ours, is_file = part.name == FIELD.encode(), part.filename is not None
        if is_ours and not is_file and media_type_of(content) is None:
            raise NotAPicture(
                f"the field {FIELD!r} contains text, not a picture, and has no file name; with curl, write "
                "-F file=@picture.png"
            )
        is_left_empty = not (part.filename or size)
        if (is_ours or is_file) and not is_left_empty:
            self._files += 1
            if self._files > self._most:
                several = "; send several to /predict/batch or /jobs" if self._most == 1 else ""
                raise BrokenForm(f"the form has too many files; at most {self._most} are accepted{several}")
        if is_ours and not is_left_empty:
            self._uploads.append(Upload(content, part.declared, part.filename or ""))
        else:
            self._add_other(self._decode(part.name), is_file, size)

    def _add_other(self, name: str, is_file: bool, size: int) -> None:
        if not is_file and name in NAMES:
            raise InvalidRequest(f"{name!r} belongs in the query: {self._path}?{name}=…")
        self._others.append(f"{name[:50]!r}{'' if size else ' (empty)'}")
        if len(self._others) > OTHER_FIELDS:
            raise BrokenForm(
                f"the form has too many fields; at most {OTHER_FIELDS} are accepted besides {FIELD}"
            )


class _Parts:
    """Reads the parts of a multipart body one after the other (RFC 2046, 5.1.1).

    Searches for whole lines and delimiters, never byte by byte, so that no body is slow to parse.
    """

    def __init__(self, body: AsyncGenerator[bytes, None], boundary: bytes) -> None:
        self._body = body
        self._delimiter = b"\r\n--" + boundary
        self._held = bytearray(b"\r\n")  # the first delimiter may be the first line
        self._begun = False

    async def next_headers(self) -> dict[bytes, bytes] | None:
        """The next part's headers by lower-case name; None after the last, with the body read to its end."""
        if not self._begun:
            await self.content(keep=False)
            self._begun = True
        while len(self._held) < 2:
            await self._receive()
        if self._held.startswith(b"--"):
            async for _ in self._body:  # what follows the last part is ignored
                pass
            return None
        if (await self._line()).strip(b" \t"):
            raise BrokenForm("a line of the form starts with the boundary but does not end there")
        lines: list[bytes] = []
        while line := await self._line():
            lines.append(line)
            if len(lines) > _MOST_HEADERS:
                raise BrokenForm(f"a part of the form has over {_MOST_HEADERS} headers")
        named = [line.partition(b":") for line in lines]
        if not all(colon for _, colon, _ in named):
            raise BrokenForm("a part of the form has a header without a colon")
        return {name.strip().lower(): value.strip() for name, _, value in named}

    async def content(self, *, keep: bool) -> tuple[int, bytes]:
        """The size of what precedes the next delimiter, and its bytes if they are to be kept."""
        size, kept = 0, bytearray()
        while (end := self._held.find(self._delimiter)) < 0:
            end = max(0, len(self._held) - len(self._delimiter) + 1)
            size += self._move(end, kept if keep else None)
            await self._receive()
        size += self._move(end, kept if keep else None)
        del self._held[: len(self._delimiter)]
        return size, bytes(kept)

    def _move(self, size: int, into: bytearray | None) -> int:
        if into is not None:
            into += self._held[:size]
        del self._held[:size]
        return size

    async def _line(self) -> bytes:
        while (end := self._held.find(b"\r\n", 0, _MOST_LINE_BYTES)) < 0:
            if len(self._held) >= _MOST_LINE_BYTES:
                raise BrokenForm(f"a part of the form has a header over {_MOST_LINE_BYTES} bytes")
            await self._receive()
        line = bytes(self._held[:end])
        del self._held[: end + 2]
        return line

    async def _receive(self) -> None:
        piece = await anext(self._body, None)
        if piece is not None:
            self._held += piece
            return
        line = self._delimiter[2:].decode("latin-1")
        if not self._begun:
            raise BrokenForm(f"the form has no parts: it has no line {line}")
        raise BrokenForm(f"the form is cut off: its last line, {line}--, is missing")


def _parameters(header: bytes) -> dict[bytes, bytes]:
    """A header's parameters by name. A backslash escapes only a quote or itself, as browsers send it."""
    found: dict[bytes, bytes] = {}
    for name, value in _PARAMETER.findall(header):
        if value.startswith(b'"') and value.endswith(b'"') and len(value) > 1:
            value = _ESCAPED.sub(rb"\1", value[1:-1]) if b"\\" in value else value[1:-1]
        found.setdefault(name.lower(), value.strip())
    return found
