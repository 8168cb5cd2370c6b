"""The page at / and the API documentation at /docs, all served from here, so that both work offline."""

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

from gateway import GatewaySettings
from gateway.middleware import BELOW, RouteFacts, Router

_STATIC = Path(__file__).parent / "static"
_LEAST_ZIPPED_BYTES = 500
_OPEN = RouteFacts(needs_key=False)

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
# Swagger UI sets inline styles, so unsafe-inline is allowed, for styles alone.
_DOCS_HEADERS = {
    **_NO_REFERRER,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
}


class Pages:
    """Endpoints of the page and the documentation, which anyone may see."""

    def __init__(self, app: FastAPI, settings: GatewaySettings) -> None:
        """The page contains the upload limit, so that it can refuse a larger picture without sending it."""
        self._app = app
        index = Template((_STATIC / "page" / "index.html").read_text(encoding="utf-8"))
        self._index = index.substitute(max_upload_bytes=settings.max_upload_bytes).encode()

    def router(self) -> Router:
        """The endpoints. Mounts the static files on the application: older FastAPI includes no mounts."""
        router = Router(include_in_schema=False)
        swagger = StaticFiles(directory=str(files("fastapi_swagger") / "resources"))
        for path, folder in (("/docs/swagger", swagger), ("/page", _Files(directory=_STATIC / "page"))):
            self._app.mount(path, GZipMiddleware(folder, _LEAST_ZIPPED_BYTES))
            router.facts[path + BELOW] = _OPEN
        for path, endpoint in (
            ("/", self.page),
            ("/docs", self.docs),
            ("/docs/docs.js", self.docs_script),
            ("/openapi.json", self.openapi),
        ):
            router.add("GET", path, endpoint, _OPEN)
        return router

    async def page(self, request: Request) -> Response:
        return conditional(request, self._index, "text/html; charset=utf-8", _PAGE_HEADERS)

    async def docs(self) -> Response:
        return FileResponse(_STATIC / "docs.html", headers=_DOCS_HEADERS)

    async def docs_script(self) -> Response:
        return FileResponse(_STATIC / "docs.js")

    async def openapi(self, request: Request) -> Response:
        return conditional(request, msgspec.json.encode(self._app.openapi()))


class _Files(StaticFiles):
    """Files that a browser may cache, but must revalidate each time."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update({**_NO_REFERRER, "Cache-Control": "no-cache"})
        return response

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Hide index.html, a template that is served at / alone."""
        return await super().get_response("-" if path == "index.html" else path, scope)


def conditional(
    request: Request, body: bytes, media_type: str = "application/json", more: dict[str, str] | None = None
) -> Response:
    """Answer with the body and its ETag, or 304 if the client has it (RFC 9110). more: further headers."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", **(more or {})}
    if _matches(request.headers.getlist("if-none-match"), etag):
        return Response(None, 304, headers)
    return Response(body, 200, headers, media_type)


def _matches(given: list[str], etag: str) -> bool:
    """Weak comparison, as If-None-Match requires (RFC 9110, 13.1.2)."""
    tags = [tag.strip() for line in given for tag in line.split(",")]
    return "*" in tags or etag in (tag.removeprefix("W/") for tag in tags)
