"""Forms as browsers, curl, libraries and attackers make them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.gateways import SANDAL, gateway, problem, sandal
from tests.unit.jobbing import job_gateway, until_status

pytestmark = pytest.mark.anyio

FILE = b'form-data; name="file"; filename="a.png"'
END = b"--b--\r\n"


def part(content: bytes = SANDAL, disposition: bytes = FILE, more: bytes = b"") -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition + b"\r\n" + more + b"\r\n" + content + b"\r\n"


def form(*parts: bytes, kind: str = "multipart/form-data; boundary=b", end: bytes = END) -> dict[str, Any]:
    return {"content": b"".join(parts) + end, "headers": {"Content-Type": kind}}


async def ask(path: str, request: dict[str, Any]) -> httpx.Response:
    async with gateway(sandal) as http:
        return await http.post(path, **request)


def named(disposition: bytes) -> bytes:
    return b"form-data; name=file; " + disposition


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        (FILE, "a.png"),
        (named(b"filename=a.png"), "a.png"),
        (b'FORM-DATA; NAME="file"; FileName="a.png"', "a.png"),
        (b'form-data;name=file ; filename = "a.png"', "a.png"),
        (named(b'filename="a%22b.png"'), 'a"b.png'),
        (named(b'filename="a%0Ab%0Dc%09.png"'), "a\nb\rc%09.png"),
        (named(b'filename="a\\"b.png"'), 'a"b.png'),
        (named(b'filename="a\\\\b.png"'), "a\\b.png"),
        (named(b'filename="a;b=c.png"'), "a;b=c.png"),
        (named(b'filename="50%25.png"'), "50%25.png"),
        (named("filename=\"café ü 衣.png\"".encode()), "café ü 衣.png"),
        (named("filename=\"café.png\"".encode("latin-1")), "café.png"),
        (named(b'filename="C:\\fakepath\\a.png"'), "a.png"),
        (named(b'filename="C:\\dir\\"'), ""),
        (named(b"filename*=utf-8''caf%C3%A9.png"), "café.png"),
        (named(b"filename*=ISO-8859-1'en'caf%E9.png"), "café.png"),
        (named(b"filename*=punycode''caf%C3%A9.png"), "café.png"),
        (named(b"filename*=utf-8''c.png; filename=a.png"), "a.png"),
        (b"form-data; name=file", ""),
    ],
)  # fmt: skip
async def test_a_file_has_the_name_that_was_meant(disposition: bytes, filename: str) -> None:
    response = await ask("/predict/batch", form(part(disposition=disposition)))
    (entry,) = response.json()["results"]
    assert (entry["filename"], entry["prediction"]["label"]) == (filename, "Sandal")


async def test_the_names_of_a_jobs_files_come_back(tmp_path: Path) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        response = await http.post("/jobs", **form(part(disposition=named(b'filename="a%22\xe9.png"'))))
        assert response.status_code == 202, response.text
        document = await until_status(http, response.json()["id"], "done")
    assert document["results"][0]["filename"] == 'a"é.png'


@pytest.mark.parametrize("charset", ["utf-8", "UTF_8", '"utf8"', "us-ascii", "ISO-8859-1", "latin1"])
async def test_charsets_that_forms_have_are_read(charset: str) -> None:
    response = await ask("/predict", form(part(), kind=f"multipart/form-data; boundary=b; charset={charset}"))
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "charset",
    ["punycode", "idna", "utf-7", "utf-16", "undefined", "unicode_escape", "zip", "hex", "none", ""],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/jobs"])
async def test_any_other_charset_is_refused_before_the_body_is_read(
    tmp_path: Path, path: str, charset: str
) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body is read")
        yield b""

    kind = {"Content-Type": f"multipart/form-data; charset={charset}; boundary=b"}
    async with job_gateway(sandal, tmp_path) as http:
        document = problem(await http.post(path, content=body(), headers=kind), 422)
    assert "charset" in str(document["detail"])


async def test_a_charset_that_a_field_or_a_part_names_is_not_looked_at() -> None:
    field = part(b"punycode", b'form-data; name="_charset_"')
    typed = part(SANDAL, FILE, b"Content-Type: image/png; charset=punycode\r\n")
    assert (await ask("/predict", form(field, typed))).json()["label"] == "Sandal"


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (form(part(), end=b""), "is cut off: its last line, --b--"),
        (form(part()[:-40], end=b""), "is cut off"),
        (form(part()[:30], end=b""), "is cut off"),
        (form(part(), end=b"--b\r\n"), "is cut off"),
        (form(end=b""), "has no parts"),
        (form(part(), kind="multipart/form-data; boundary=c"), "it has no line --c"),
        (form(part(), kind="multipart/form-data"), "has no boundary"),
        (form(part(), kind="multipart/form-data; boundary="), "has no boundary"),
        (form(part(), kind=f"multipart/form-data; boundary={300 * 'b'}"), "has no boundary of 1 to 256"),
        (form(part(disposition=b"form-data")), "has no name"),
        (form(b"--b\r\n\r\n" + SANDAL + b"\r\n"), "has no name"),
        (
            form(part(), part()),
            "too many files; at most 1 are accepted; send several to /predict/batch or /jobs",
        ),
        (form(part(), part(disposition=b'form-data; name="other"; filename="b"')), "too many files"),
        (form(part(), 9 * part(b"", b'form-data; name="x"')), "too many fields; at most 8"),
        (form(part(more=b"X-A: a\r\n" * 9)), "over 8 headers"),
        (form(part(more=b"X-A: " + b"a" * 5_000 + b"\r\n")), "over 4096 bytes"),
        (form(part(more=b"nonsense\r\n")), "without a colon"),
        (form(b"--bx\r\n" + part()), "starts with the boundary"),
        (form(b"--b " + 5_000 * b" " + b"\r\n"), "over 4096 bytes"),
    ],
)
async def test_a_broken_form_is_told_what_is_wrong(request_: dict[str, Any], said: str) -> None:
    document = problem(await ask("/predict", request_), 400)
    assert document["type"] == "urn:mlaas:problem:broken-form"
    assert said in str(document["detail"])


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (form(), "has no file in its field 'file'"),
        (form(part(disposition=b'form-data; name="image"; filename="b"')), "its fields are 'image'"),
        (form(part(b"", b'form-data; name="file"; filename=""')), "its fields are 'file' (empty)"),
        (form(part(b"sandal.png", b'form-data; name="file"')), "-F file=@picture.png"),
    ],
)
async def test_a_form_without_a_file_is_told_what_came_instead(request_: dict[str, Any], said: str) -> None:
    assert said in str(problem(await ask("/predict", request_), 422)["detail"])


@pytest.mark.parametrize(
    "request_",
    [
        form(b"This is a MIME message.\r\n" + part()),
        form(b"\r\n" + part()),
        form(b"--other\r\n--\r\n" + part()),
        form(part(), end=END + b"what comes after it\r\n--b\r\n"),
        form(part(), end=b"--b--"),
        form(part().replace(b"--b\r\n", b"--b \t\r\n")),
        form(part(), part(b"", b'form-data; name="other"; filename=""')),
        form(part(), part(b"", b'form-data; name="file"; filename=""')),
        form(part(b"x", b'form-data; name="token"'), part()),
        form(part(), kind='Multipart/Form-Data; Boundary="b"'),
        form(part(more=b"content-transfer-encoding: Binary\r\n")),
        form(part(), kind=" multipart/form-data;charset=UTF-8;boundary=b;"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_form_is_read_however_it_comes_and_whatever_is_around_it(
    request_: dict[str, Any], size: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(request_["content"]), size):
            yield request_["content"][start : start + size]

    response = await ask("/predict", {**request_, "content": pieces()})
    assert response.json().get("label") == "Sandal", response.text


async def test_what_looks_like_a_boundary_within_a_file_is_the_files() -> None:
    content = SANDAL + b"\r\n--a\r\n-b--b\r\n--\r\n\r\n-"
    response = await ask("/predict", form(part(content)))
    whole = await ask("/predict", {"content": content, "headers": {"Content-Type": "image/png"}})
    assert response.json()["sha256"] == whole.json()["sha256"]


async def test_a_file_that_is_encoded_once_more_is_refused() -> None:
    encoded = part(b"iVBORw0KGgo=", more=b"Content-Transfer-Encoding: base64\r\n")
    document = problem(await ask("/predict", form(encoded)), 415)
    assert "Content-Transfer-Encoding 'base64'" in str(document["detail"])
