"""/: the page to drop a picture on. Its files are read once, at the start; they have some 50 kB."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import NamedTuple

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.conditional import respond
from gateway.settings import GatewaySettings

_FOLDER = Path(__file__).parent / "static" / "page"
_INDEX = "index.html"

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}

_HEADERS = {"Referrer-Policy": "no-referrer"}
_PAGE_HEADERS = {
    **_HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}


class File(NamedTuple):
    """zipped is empty where it would not be smaller."""

    body: bytes
    zipped: bytes
    media_type: str


def install(app: FastAPI, settings: GatewaySettings) -> None:
    files = _read(settings)

    @app.get("/", include_in_schema=False)
    async def home(request: Request) -> Response:
        return _respond(request, files[_INDEX], _PAGE_HEADERS)

    @app.get("/page/{name:path}", include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        if name not in files or name == _INDEX:
            raise HTTPException(404)
        return _respond(request, files[name], _HEADERS)


def _respond(request: Request, file: File, more: Mapping[str, str]) -> Response:
    more = {**more, "Vary": "Accept-Encoding"}
    if file.zipped and _accepts_gzip(request):
        return respond(request, file.zipped, file.media_type, {**more, "Content-Encoding": "gzip"})
    return respond(request, file.body, file.media_type, more)


def _accepts_gzip(request: Request) -> bool:
    codings = request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
    return any(coding.startswith("gzip") and not coding.endswith(("q=0", "q=0.0")) for coding in codings)


def _read(settings: GatewaySettings) -> dict[str, File]:
    """By their paths below the folder. The page is told the limit: what is over it need not be sent."""
    bodies = {
        path.relative_to(_FOLDER).as_posix(): path.read_bytes()
        for path in _FOLDER.rglob("*")
        if path.suffix in _MEDIA_TYPES
    }
    index = Template(bodies[_INDEX].decode()).substitute(max_upload_bytes=settings.max_upload_bytes)
    bodies[_INDEX] = index.encode()
    return {name: _file(body, _MEDIA_TYPES[Path(name).suffix]) for name, body in bodies.items()}


def _file(body: bytes, media_type: str) -> File:
    zipped = gzip.compress(body, mtime=0)  # the same bytes in every gateway, and so the same ETag
    return File(body, zipped if len(zipped) < len(body) else b"", media_type)
