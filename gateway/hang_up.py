"""Noticing that the client went away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from gateway.errors import ClientGone


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancels what is inside when the client hangs up, and raises ClientGone. For after the body is read."""
    waiting = asyncio.current_task()
    assert waiting
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        waiting.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        waiting.uncancel()
        raise ClientGone("the client hung up") from None
    finally:
        watching.cancel()
