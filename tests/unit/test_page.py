"""The files of the page at /, as the gateway serves them."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.unit.gateways import SAMPLES, gateway, problem

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "gateway" / "static" / "page"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())


async def test_the_page_is_at_the_root_and_allows_nothing_but_its_own() -> None:
    async with gateway(None) as http:
        page = await http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script>|<style|style=| on\w+=", page.text)


async def test_all_that_the_page_names_is_there() -> None:
    async with gateway(None) as http:
        page = (await http.get("/")).text
        named = set(re.findall(r'(?:src|href)="(page/[^"]+)"', page))
        for path in named:
            assert (await http.get(f"/{path}")).status_code == 200, path
    modules = {f"page/{name}" for name in FILES if name.endswith(".js")}
    assert modules <= named  # none is found late


@pytest.mark.parametrize("path", ["/", "/page/page.css", "/page/main.js", "/page/samples/sandal.png"])
@pytest.mark.parametrize("coding", ["gzip, deflate, br", "identity"])
async def test_what_the_browser_has_already_is_not_sent_again(path: str, coding: str) -> None:
    accepting = {"Accept-Encoding": coding}
    async with gateway(None) as http:
        first = await http.get(path, headers=accepting)
        again = await http.get(path, headers={**accepting, "If-None-Match": first.headers["etag"]})
        head = await http.head(path, headers=accepting)
    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == first.headers["content-length"]


@pytest.mark.parametrize(
    ("accepted", "given"), [("gzip", True), ("br, gzip;q=0.5", True), ("", False), ("br", False)]
)
async def test_text_is_compressed_for_those_who_accept_it(accepted: str, given: bool) -> None:
    async with gateway(None) as http:
        response = await http.get("/page/page.css", headers={"Accept-Encoding": accepted})
        picture = await http.get("/page/samples/sandal.png", headers={"Accept-Encoding": accepted})
    assert ("content-encoding" in response.headers) is given
    assert "content-encoding" not in picture.headers
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.content == (FOLDER / "page.css").read_bytes()


async def test_the_limit_on_uploads_is_the_settings() -> None:
    async with gateway(None, max_upload_bytes=12345) as http:
        assert 'data-max-upload-bytes="12345"' in (await http.get("/")).text


@pytest.mark.parametrize("path", ["none.js", "index.html", "", "../../page.py", "%2e%2e/docs.js"])
async def test_nothing_else_is_served(path: str) -> None:
    async with gateway(None) as http:
        problem(await http.get(f"/page/{path}"), 404)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("samples/")])
def test_the_samples_are_those_of_the_project(name: str) -> None:
    assert (FOLDER / name).read_bytes() == (SAMPLES / Path(name).name).read_bytes()


def test_nothing_comes_from_elsewhere() -> None:
    for name in FILES:
        if name.endswith((".html", ".css", ".js")):
            assert not re.search(r"https?://", (FOLDER / name).read_text()), name


def test_every_file_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    globs = project["tool"]["setuptools"]["package-data"]["gateway"]
    for name in FILES:
        path = f"static/page/{name}"
        assert any(fnmatch(path, glob) for glob in globs), name
