"""/docs: Swagger UI, its files served from here, so that it works without internet."""

from importlib.resources import files
from pathlib import Path

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from gateway.conditional import respond

_OURS = Path(__file__).parent / "static"

# Swagger UI styles its own elements, hence unsafe-inline for styles alone.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


def install(app: FastAPI) -> None:
    swagger = StaticFiles(directory=str(files("fastapi_swagger") / "resources"))
    app.mount("/docs/swagger", swagger, name="swagger")

    @app.get("/openapi.json", include_in_schema=False)
    async def document(request: Request) -> Response:
        return respond(request, msgspec.json.encode(app.openapi()))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(_OURS / "docs.html", headers=_HEADERS)

    @app.get("/docs/docs.js", include_in_schema=False)
    async def script() -> FileResponse:
        return FileResponse(_OURS / "docs.js")
