"""/docs: Swagger UI, its files served from here, so that it works without internet."""

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

_OURS = Path(__file__).parent / "static"

# Swagger UI styles its own elements, hence unsafe-inline for styles alone.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def install(app: FastAPI) -> None:
    swagger = StaticFiles(directory=str(files("fastapi_swagger") / "resources"))
    app.mount("/docs/swagger", swagger, name="swagger")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(_OURS / "docs.html", headers=_HEADERS)

    @app.get("/docs/docs.js", include_in_schema=False)
    async def script() -> FileResponse:
        return FileResponse(_OURS / "docs.js")
