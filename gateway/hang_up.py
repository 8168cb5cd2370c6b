"""Noticing that the client went away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from gateway.errors import ClientGone, GatewayError


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancels what is inside when the client hangs up, and raises ClientGone. For after the body is read.

    Where there is a body that nobody asked for, raises what is wrong with it.
    """
    waiting = asyncio.current_task()
    assert waiting
    reason: GatewayError | None = None

    async def watch() -> None:
        nonlocal reason
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            reason = ClientGone("the client hung up")
        except GatewayError as error:
            reason = error
        waiting.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if reason is None:
            raise
        waiting.uncancel()
        raise reason from None
    finally:
        watching.cancel()
