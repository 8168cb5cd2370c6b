"""Getting the picture out of a request: the body itself, or the form field `file`."""

from starlette.datastructures import UploadFile
from starlette.requests import Request

from gateway.errors import NotAPicture, UnacceptedMedia

FIELD = "file"


async def read_picture(request: Request) -> tuple[bytes, str]:
    """Return the bytes and the media type that the client declared. Raises Rejected."""
    declared = request.headers.get("content-type", "")
    if declared.startswith("multipart/form-data"):
        return await _from_form(request)
    if declared.startswith("application/x-www-form-urlencoded"):
        raise UnacceptedMedia(
            "send the picture as a form field (curl -F file=@picture.png) or as the body with its "
            "media type (curl --data-binary @picture.png -H 'Content-Type: image/png')"
        )
    return await request.body(), declared


async def _from_form(request: Request) -> tuple[bytes, str]:
    async with request.form(max_files=1, max_fields=8) as form:
        upload = form.get(FIELD)
        if not isinstance(upload, UploadFile):
            raise NotAPicture(f"the form has no file in its field {FIELD!r}")
        return await upload.read(), upload.content_type or ""
