"""A small HTTP server that answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 6\r\n\r\nanswer"
ENDING = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nans\r\n3\r\nwer\r\n0\r\n\r\n"
HANG_UP = b""
NOTHING = b"wait for ever"


@asynccontextmanager
async def server(
    answer: Callable[[int, bytes], bytes | Awaitable[bytes]],
    connected: Callable[[], object] = lambda: None,
    idle_timeout_s: float | None = None,
) -> AsyncIterator[str]:
    """answer(n, body) is what goes back for the nth request. What is idle for longer is closed."""
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        connected()
        try:
            while head := await _head(reader, idle_timeout_s):
                body = await reader.readexactly(_length(head))
                seen += 1
                made = answer(seen, body)
                raw = made if isinstance(made, bytes) else await made
                if raw == HANG_UP:
                    return
                if raw != NOTHING:
                    writer.write(raw)
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        host, port = listening.sockets[0].getsockname()
        yield f"http://{host}:{port}/predict"


async def _head(reader: asyncio.StreamReader, timeout_s: float | None) -> bytes:
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout_s)
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        return b""


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split()[0])
