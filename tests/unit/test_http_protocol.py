"""Requests that are answered before their body has come, over real connections."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.http_protocol import BoundedProtocol

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
ENDLESS = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Reads nothing."""
    await send({"type": "http.response.start", "status": 429, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def connected(keep_alive_s: float = 60, **changes: Any) -> AsyncIterator[Connection]:
    bounds = {"max_head_bytes": 1024, "head_timeout_s": 60, "max_rest_bytes": 100_000, "rest_timeout_s": 60}
    config = Config(refusing, log_config=None, access_log=False)
    config.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]
    protocol = partial(BoundedProtocol, config, ServerState(), {}, **{**bounds, **changes})
    listening = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with asyncio.timeout(PATIENCE_S), listening:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()


async def ask(connection: Connection, request: bytes) -> int:
    """The status of the answer."""
    connection[1].write(request)
    head = await connection[0].readuntil(b"\r\n\r\n")
    return int(re.findall(rb"HTTP/1\.1 (\d{3})", head)[0])


async def until_closed(connection: Connection) -> None:
    with suppress(ConnectionError):
        assert await connection[0].read() == b""


async def test_who_does_not_send_the_rest_is_cut_off() -> None:
    async with connected(rest_timeout_s=0.2) as connection:
        assert await ask(connection, HEAD) == 429
        connection[1].write(b"a")
        await until_closed(connection)


async def test_who_sends_the_rest_without_end_is_cut_off() -> None:
    async with connected() as connection:
        assert await ask(connection, ENDLESS) == 429
        closed = asyncio.create_task(until_closed(connection))
        while not closed.done():
            with suppress(ConnectionError):
                connection[1].write(bytes(10_000))
                await connection[1].drain()
            await asyncio.sleep(0)


async def test_who_sends_the_rest_late_keeps_the_connection() -> None:
    async with connected(rest_timeout_s=0.3) as connection:
        for _ in range(2):
            assert await ask(connection, HEAD) == 429
            connection[1].write(b"a" * 5)
            await asyncio.sleep(0.02)
            connection[1].write(b"a" * 5)
            await asyncio.sleep(0.4)
        assert await ask(connection, HEAD + b"a" * 10) == 429


async def test_who_sends_the_body_along_keeps_the_connection() -> None:
    async with connected(rest_timeout_s=0.05) as connection:
        for _ in range(3):
            assert await ask(connection, HEAD + b"a" * 10) == 429
            await asyncio.sleep(0.1)


async def test_a_connection_that_is_idle_after_the_rest_came_is_closed() -> None:
    async with connected(keep_alive_s=0.2) as connection:
        assert await ask(connection, HEAD) == 429
        connection[1].write(b"a" * 10)
        await until_closed(connection)
