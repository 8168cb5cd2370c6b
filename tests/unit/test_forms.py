"""Forms whose names are in other charsets than UTF-8."""

from pathlib import Path

import pytest

from tests.unit.gateways import SANDAL, gateway, problem, sandal
from tests.unit.jobbing import job_gateway, until_status

pytestmark = pytest.mark.anyio


def form(charset: str, filename: bytes) -> dict[str, object]:
    disposition = b'Content-Disposition: form-data; name="file"; filename="' + filename + b'"'
    return {
        "content": b"--b\r\n" + disposition + b"\r\n\r\n" + SANDAL + b"\r\n--b--\r\n",
        "headers": {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"},
    }


HALF_A_CHARACTER = form("utf-7", b"+2AA-.png")


async def test_half_a_character_in_a_filename_is_replaced() -> None:
    async with gateway(sandal) as http:
        response = await http.post("/predict/batch", **HALF_A_CHARACTER)
    (entry,) = response.json()["results"]
    assert (response.status_code, entry["filename"]) == (200, "?.png")


async def test_half_a_character_in_a_jobs_filename_is_replaced(tmp_path: Path) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        response = await http.post("/jobs", **HALF_A_CHARACTER)
        assert response.status_code == 202, response.text
        document = await until_status(http, response.json()["id"], "done")
    assert document["results"][0]["filename"] == "?.png"


@pytest.mark.parametrize("charset", ["undefined", "punycode"])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/jobs"])
async def test_a_charset_that_cannot_be_is_a_problem_that_says_so(
    tmp_path: Path, path: str, charset: str
) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        document = problem(await http.post(path, **form(charset, 70 * b".")), 422)
    assert "charset" in str(document["detail"])
