import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from gateway.body import while_connected
from gateway.errors import ClientGone, GatewayError, SlowBody

pytestmark = pytest.mark.anyio


class Body:
    """One that nobody reads: a part of it, then what a test says, and nothing more."""

    def __init__(self, then: Message | GatewayError) -> None:
        self._coming: list[Message | GatewayError] = [
            {"type": "http.request", "body": b"", "more_body": True},
            then,
        ]
        self.over = asyncio.Event()
        self.request = Request({"type": "http", "headers": []}, self._receive)

    async def _receive(self) -> Message:
        if not self._coming:
            self.over.set()
            await asyncio.Event().wait()
        found = self._coming.pop(0)
        if isinstance(found, GatewayError):
            raise found
        return found


@pytest.mark.parametrize(
    ("then", "raised"), [({"type": "http.disconnect"}, ClientGone), (SlowBody("no byte came"), SlowBody)]
)
async def test_waiting_ends_when_the_client_goes_or_sends_what_is_wrong(
    then: Message | GatewayError, raised: type[GatewayError]
) -> None:
    with pytest.raises(raised):
        async with asyncio.timeout(5), while_connected(Body(then).request):
            await asyncio.Event().wait()


async def test_who_cancels_it_meanwhile_cancels_it() -> None:
    body = Body({"type": "http.request", "body": b""})

    async def wait() -> None:
        async with while_connected(body.request):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await body.over.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
