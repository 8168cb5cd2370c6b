"""Getting pictures out of a request: the body itself, or the form fields `file`."""

from typing import NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from gateway.errors import InvalidRequest, NotAPicture, UnacceptedMedia
from gateway.query import NAMES

FIELD = "file"
OTHER_FIELDS = 8
"""So many may come beside it; they say nothing, and none may seem to."""


class Upload(NamedTuple):
    """A file's content, the media type that the client declared, and what it calls the file."""

    content: bytes
    declared: str
    filename: str


async def read_picture(request: Request) -> tuple[bytes, str]:
    """Return the bytes and the media type that the client declared. Raises Rejected."""
    declared = request.headers.get("content-type", "")
    if declared.startswith("multipart/form-data"):
        (upload,) = await _from_form(request, 1)
        return upload.content, upload.declared
    if declared.startswith("application/x-www-form-urlencoded"):
        raise UnacceptedMedia(
            "send the picture as a form field (curl -F file=@picture.png) or as the body with its "
            "media type (curl --data-binary @picture.png -H 'Content-Type: image/png')"
        )
    return await request.body(), declared


async def read_pictures(request: Request, most: int) -> list[Upload]:
    """All files of a form, in order. Raises Rejected."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise UnacceptedMedia("send the pictures as form fields (curl -F file=@one.png -F file=@two.png)")
    return await _from_form(request, most)


async def read_any(request: Request, most: int) -> list[Upload]:
    """All files of a form, or the body itself as the only one. Raises Rejected."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _from_form(request, most)
    content, declared = await read_picture(request)
    return [Upload(content, declared, "")]


async def _from_form(request: Request, most: int) -> list[Upload]:
    try:
        async with request.form(max_files=most, max_fields=OTHER_FIELDS) as form:
            _check_fields(form, request.scope["path"])
            files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
            if not files:
                raise NotAPicture(f"the form has no file in its field {FIELD!r}")
            return [Upload(await file.read(), file.content_type or "", _name(file)) for file in files]
    except UnicodeError as error:
        raise InvalidRequest(f"the form's names are not in the charset that it names: {error}") from error


def _check_fields(form: FormData, path: str) -> None:
    """Raises InvalidRequest for what is read from the query alone."""
    for name, value in form.multi_items():
        if name in NAMES and isinstance(value, str):
            raise InvalidRequest(f"{name!r} belongs in the query: {path}?{name}=…")


def _name(file: UploadFile) -> str:
    """Some charsets, UTF-7 for one, have halves of characters, which no answer can be encoded with."""
    return (file.filename or "").encode("utf-8", "replace").decode()
