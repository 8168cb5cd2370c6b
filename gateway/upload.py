"""Getting pictures out of a request: the body itself, or the form fields `file`."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from gateway.errors import BrokenForm, InvalidRequest, NotAPicture, UnacceptedMedia
from gateway.picture import essence
from gateway.query import NAMES
from messaging.picture_header import media_type_of

FIELD = "file"
OTHER_FIELDS = 8
"""So many parts may come beside the files; they say nothing, and none may seem to."""

_FORM = "multipart/form-data"
_URLENCODED = "application/x-www-form-urlencoded"
_PARAMETER = re.compile(rb';\s*([!#$%&\'*+.^_`|~\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.ASCII | re.DOTALL)
_ESCAPED = re.compile(rb'\\(["\\])')
# The client chooses among these alone: Python has codecs that take minutes for what a form may have.
_CHARSETS = {
    "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "utf-8", "ascii": "utf-8",
    "iso-8859-1": "latin-1", "latin-1": "latin-1", "latin1": "latin-1",
}  # fmt: skip
_AS_IT_IS = ("", "7bit", "8bit", "binary")
_QUOTE = ("%22", '"')  # so browsers write it, and nothing else (WHATWG HTML, multipart form data)
_MOST_BOUNDARY_BYTES = 256
_MOST_HEADERS = 8
_MOST_LINE_BYTES = 4096


class Upload(NamedTuple):
    """A file's content, the media type that the client declared, and what it calls the file."""

    content: bytes
    declared: str
    filename: str


async def read_picture(request: Request) -> tuple[bytes, str]:
    """Return the bytes and the media type that the client declared. Raises Rejected."""
    declared = request.headers.get("content-type", "")
    if essence(declared) == _FORM:
        (upload,) = await _read_form(request, 1)
        return upload.content, upload.declared
    body = await request.body()
    if essence(declared) == _URLENCODED and media_type_of(body) is None:
        raise UnacceptedMedia(
            "send the picture as a form field (curl -F file=@picture.png) or as the body with its "
            "media type (curl --data-binary @picture.png -H 'Content-Type: image/png')"
        )
    return body, declared


async def read_pictures(request: Request, most: int) -> list[Upload]:
    """All files of a form, in order. Raises Rejected."""
    if essence(request.headers.get("content-type", "")) != _FORM:
        raise UnacceptedMedia("send the pictures as form fields (curl -F file=@one.png -F file=@two.png)")
    return await _read_form(request, most)


async def read_any(request: Request, most: int) -> list[Upload]:
    """All files of a form, or the body itself as the only one. Raises Rejected."""
    if essence(request.headers.get("content-type", "")) == _FORM:
        return await _read_form(request, most)
    content, declared = await read_picture(request)
    return [Upload(content, declared, "")]


async def _read_form(request: Request, most: int) -> list[Upload]:
    content_type = _parameters(request.headers["content-type"].encode("latin-1"))
    charset = content_type.get(b"charset", b"utf-8").decode("latin-1").lower().replace("_", "-")
    if charset not in _CHARSETS:
        raise InvalidRequest(f"the form's charset {charset[:20]!r} is not accepted; send its names in UTF-8")
    boundary = content_type.get(b"boundary", b"")
    if not 0 < len(boundary) <= _MOST_BOUNDARY_BYTES:
        raise BrokenForm(
            f"the Content-Type has no boundary of 1 to {_MOST_BOUNDARY_BYTES} bytes; leave this header to "
            "what makes the form, curl -F or the HTTP library"
        )
    async with aclosing(request.stream()) as body:
        return await _Form(_Parts(body, boundary), _CHARSETS[charset], most, request.scope["path"]).read()


class _Part(NamedTuple):
    """What its headers say. filename is None for a field that is no file."""

    name: bytes
    filename: str | None
    declared: str


class _Form:
    """multipart/form-data, as RFC 7578 and browsers have it."""

    def __init__(self, parts: "_Parts", charset: str, most: int, path: str) -> None:
        self._parts = parts
        self._charset = charset
        self._most = most
        self._path = path
        self._uploads: list[Upload] = []
        self._files = 0
        self._others: list[str] = []

    async def read(self) -> list[Upload]:
        """The files, in order; at least one. Raises Rejected."""
        while (headers := await self._parts.next_headers()) is not None:
            part = self._judge(headers)
            size, content = await self._parts.content(keep=part.name == FIELD.encode())
            self._add(part, size, content)
        if not self._uploads:
            came = f"; the fields that came: {', '.join(self._others)}" if self._others else ""
            raise NotAPicture(f"the form has no file in its field {FIELD!r}{came}")
        return self._uploads

    def _judge(self, headers: Mapping[bytes, bytes]) -> _Part:
        disposition = _parameters(headers.get(b"content-disposition", b""))
        if b"name" not in disposition:
            raise BrokenForm("a part of the form has no name in its Content-Disposition")
        encoding = headers.get(b"content-transfer-encoding", b"").decode("latin-1").lower()
        if encoding not in _AS_IT_IS:
            raise UnacceptedMedia(f"Content-Transfer-Encoding {encoding[:20]!r} is not accepted; send bytes")
        declared = headers.get(b"content-type", b"").decode("latin-1")
        return _Part(disposition[b"name"], self._filename(disposition), declared)

    def _filename(self, disposition: Mapping[bytes, bytes]) -> str | None:
        """Old browsers give a whole path of Windows."""
        plain = disposition.get(b"filename")
        if plain is None:
            charset, _, rest = disposition.get(b"filename*", b"").partition(b"'")
            text = unquote_to_bytes(rest.partition(b"'")[2])
            return self._decode(text, charset.decode("latin-1")) if charset else None
        if plain[1:3] == b":\\" or plain[:2] == b"\\\\":
            plain = plain.rpartition(b"\\")[2]
        return self._decode(plain).replace(*_QUOTE)

    def _decode(self, text: bytes, charset: str = "") -> str:
        try:
            return text.decode(_CHARSETS.get(charset.lower(), self._charset))
        except UnicodeDecodeError:
            return text.decode("latin-1")

    def _add(self, part: _Part, size: int, content: bytes) -> None:
        is_ours, is_file = part.name == FIELD.encode(), part.filename is not None
        if is_ours and not is_file and media_type_of(content) is None:
            raise NotAPicture(
                f"the field {FIELD!r} holds a text: it is no picture, and has no file name; with curl, write "
                "-F file=@picture.png"
            )
        is_left_empty = not (part.filename or size)
        if (is_ours or is_file) and not is_left_empty:
            self._files += 1
            if self._files > self._most:
                raise BrokenForm(f"the form has too many files; at most {self._most} are accepted here")
        if is_ours and not is_left_empty:
            self._uploads.append(Upload(content, part.declared, part.filename or ""))
        else:
            self._add_other(self._decode(part.name), is_file, size)

    def _add_other(self, name: str, is_file: bool, size: int) -> None:
        if not is_file and name in NAMES:
            raise InvalidRequest(f"{name!r} belongs in the query: {self._path}?{name}=…")
        self._others.append(f"{name[:50]!r}{'' if size else ' (empty)'}")
        if len(self._others) > OTHER_FIELDS:
            raise BrokenForm(f"the form has too many fields; at most {OTHER_FIELDS} may come beside {FIELD}")


class _Parts:
    """The parts of a multipart body, one after the other (RFC 2046, 5.1.1).

    Looks for whole lines and delimiters, never at single bytes: what is made to be slow is not.
    """

    def __init__(self, body: AsyncGenerator[bytes, None], boundary: bytes) -> None:
        self._body = body
        self._delimiter = b"\r\n--" + boundary
        self._held = bytearray(b"\r\n")  # the first delimiter may be the first line
        self._begun = False

    async def next_headers(self) -> dict[bytes, bytes] | None:
        """By name, in lower case; None after the last part, when the body is read to its end."""
        if not self._begun:
            await self.content(keep=False)
            self._begun = True
        while len(self._held) < 2:
            await self._receive()
        if self._held.startswith(b"--"):
            async for _ in self._body:  # what comes after the last part means nothing
                pass
            return None
        if (await self._line()).strip(b" \t"):
            raise BrokenForm("a line of the form begins with its boundary, and goes on")
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
        """What comes before the next delimiter: its size, and the bytes if they are to be kept."""
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
            raise BrokenForm(f"the form has no part: no line of it is {line}")
        raise BrokenForm(f"the form is cut off: its last line, {line}--, is missing")


def _parameters(header: bytes) -> dict[bytes, bytes]:
    """By name. A backslash before anything but quotes or itself is no escape: browsers send it as it is."""
    found: dict[bytes, bytes] = {}
    for name, value in _PARAMETER.findall(header):
        if value.startswith(b'"') and value.endswith(b'"') and len(value) > 1:
            value = _ESCAPED.sub(rb"\1", value[1:-1])
        found.setdefault(name.lower(), value.strip())
    return found
