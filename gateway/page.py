"""The page at /, and the API documentation at /docs. Every file is served from here, so both work offline."""

import hashlib
from importlib.resources import files
from pathlib import Path
from string import Template

import msgspec
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.settings import GatewaySettings

_STATIC = Path(__file__).parent / "static"
_LEAST_ZIPPED_BYTES = 500

_NO_REFERRER = {"Referrer-Policy": "no-referrer"}
_PAGE_HEADERS = {
    **_NO_REFERRER,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}
# Swagger UI styles its own elements, hence unsafe-inline for styles alone.
_DOCS_HEADERS = {
    **_NO_REFERRER,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
}


class _Files(StaticFiles):
    """Which a browser may keep, and asks about each time."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update({**_NO_REFERRER, "Cache-Control": "no-cache"})
        return response

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The page itself is at / alone."""
        return await super().get_response("-" if path == "index.html" else path, scope)


class Pages:
    """Endpoints of the page and the documentation."""

    def __init__(self, app: FastAPI, settings: GatewaySettings) -> None:
        """The page is told the upload limit: a larger picture need not be sent."""
        self._app = app
        index = Template((_STATIC / "page" / "index.html").read_text(encoding="utf-8"))
        self._index = index.substitute(max_upload_bytes=settings.max_upload_bytes).encode()

    def install(self) -> None:
        swagger = StaticFiles(directory=str(files("fastapi_swagger") / "resources"))
        page = _Files(directory=_STATIC / "page")
        self._app.mount("/docs/swagger", GZipMiddleware(swagger, _LEAST_ZIPPED_BYTES), name="swagger")
        self._app.mount("/page", GZipMiddleware(page, _LEAST_ZIPPED_BYTES), name="page")
        for path, endpoint in (
            ("/", self.page),
            ("/docs", self.docs),
            ("/docs/docs.js", self.docs_script),
            ("/openapi.json", self.openapi),
        ):
            self._app.add_api_route(path, endpoint, methods=["GET"], include_in_schema=False)

    async def page(self, request: Request) -> Response:
        return conditional(request, self._index, "text/html; charset=utf-8", _PAGE_HEADERS)

    async def docs(self) -> Response:
        return FileResponse(_STATIC / "docs.html", headers=_DOCS_HEADERS)

    async def docs_script(self) -> Response:
        return FileResponse(_STATIC / "docs.js")

    async def openapi(self, request: Request) -> Response:
        return conditional(request, msgspec.json.encode(self._app.openapi()))


def conditional(
    request: Request, body: bytes, media_type: str = "application/json", more: dict[str, str] | None = None
) -> Response:
    """The body with an ETag; 304 for a client that has this very body (RFC 9110). more: further headers."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", **(more or {})}
    if _matches(request.headers.getlist("if-none-match"), etag):
        return Response(None, 304, headers)
    return Response(body, 200, headers, media_type)


def _matches(given: list[str], etag: str) -> bool:
    """The weak comparison, which GET and HEAD use."""
    tags = [tag.strip() for line in given for tag in line.split(",")]
    return "*" in tags or etag in (tag.removeprefix("W/") for tag in tags)
