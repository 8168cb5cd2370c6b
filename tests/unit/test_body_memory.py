"""What the bodies of all requests together may take."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.unit.gateways import PNG, SANDAL, gateway, problem, sandal

pytestmark = pytest.mark.anyio

LARGE = SANDAL + bytes(200_000)
FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + LARGE + b"\r\n--b--\r\n"
LIMIT = {"max_body_bytes_in_memory": 300_000}


class Held:
    """A body that comes, but for its end."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.read = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield bytes(self._size)
        self.read.set()
        await asyncio.Event().wait()


async def holding(http: httpx.AsyncClient, size: int) -> "asyncio.Task[httpx.Response]":
    body = Held(size)
    task = asyncio.create_task(http.post("/predict", content=body, headers=PNG))
    await body.read.wait()
    return task


def chunked(content: bytes) -> AsyncIterator[bytes]:
    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 50_000):
            yield content[start : start + 50_000]

    return parts()


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/v2/models/m/infer"])
@pytest.mark.parametrize("declared", [True, False])
async def test_over_it_is_a_429_until_another_body_is_gone(path: str, declared: bool) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    content, kind = (FORM, form) if path == "/predict/batch" else (LARGE, PNG)

    async def ask() -> httpx.Response:
        return await http.post(path, content=content if declared else chunked(content), headers=kind)

    async with gateway(sandal, **LIMIT) as http:
        other = await holding(http, 200_000)
        refused, small = await ask(), await http.post("/predict", content=SANDAL, headers=PNG)
        other.cancel()
        await asyncio.wait([other])
        after = await ask()
    assert refused.status_code == 429
    assert "200000 bytes of other bodies are in memory" in refused.text
    assert int(refused.headers["retry-after"]) > 0
    assert small.status_code == 200
    assert after.status_code != 429


async def test_a_declared_length_without_room_is_refused_before_it_is_read() -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b""

    async with gateway(sandal, **LIMIT) as http:
        other = await holding(http, 200_000)
        headers = {**PNG, "Content-Length": "200000"}
        problem(await http.post("/predict", content=body(), headers=headers), 429)
        other.cancel()
        await asyncio.wait([other])
    assert not read


async def test_one_alone_is_read_whatever_its_size_and_those_after_another() -> None:
    async with gateway(sandal, max_body_bytes_in_memory=100_000) as http:
        for _ in range(3):
            assert (await http.post("/predict", content=LARGE, headers=PNG)).status_code == 200
