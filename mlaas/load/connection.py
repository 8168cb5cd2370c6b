"""One keep-alive HTTP/1.1 connection that asks, waits for the answer, and asks again when that is due."""

import asyncio
import time
from collections.abc import Iterator
from typing import cast

import httptools

from mlaas.load.exchange import Due, Exchange
from mlaas.load.tally import Tally


class Connection(asyncio.Protocol):
    """Takes from the supply, which it shares with others, until that ends or the connection does."""

    def __init__(self, supply: Iterator[Due], tally: Tally) -> None:
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supply = supply
        self._tally = tally
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: Due | None = None
        self._asked: Exchange | None = None
        self._counts_from = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._body = b""
        self._complete = False
        self._stays_open = False

    async def ended(self) -> Due | None:
        """Wait until it is closed; what was not due by then comes back, for another connection.

        Cancelling this gives the request under way up.
        """
        try:
            await self._closed
        except asyncio.CancelledError:
            self.give_up("no answer")
            raise
        return self._waiting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._asked is not None:
            self._tally.failed("closed")
            self._asked = None
        if not self._closed.done():
            self._closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.give_up("not HTTP")
        else:
            if self._complete:
                self._answered()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        """Afterwards, the parser has forgotten whether the connection stays open."""
        self._complete = True
        self._stays_open = self._parser.should_keep_alive()

    def _answered(self) -> None:
        asked = self._asked
        if asked is None:
            return self._transport.abort()
        latency_ms = (time.perf_counter() - self._counts_from) * 1000
        self._tally.came(self._parser.get_status_code(), self._body, asked.expected, latency_ms)
        self._asked = None
        if self._stays_open:
            self._ask()
        else:
            self._transport.close()

    def _ask(self) -> None:
        self._waiting = next(self._supply, None)
        if self._waiting is None:
            return self._transport.close()
        self._send_when_due(self._waiting)

    def _send_when_due(self, due: Due) -> None:
        """uvloop rounds a delay to milliseconds, so that a timer may be early."""
        now = time.perf_counter()
        if due.at is not None and due.at > now:
            self._timer = asyncio.get_running_loop().call_later(due.at - now, self._send_when_due, due)
            return
        self._waiting = None
        self._asked = due.exchange
        self._counts_from = now if due.at is None else due.at
        self._body = b""
        self._complete = False
        self._transport.write(due.exchange.request)

    def give_up(self, why: str) -> None:
        if self._asked is not None:
            self._tally.failed(why)
            self._asked = None
        self._transport.abort()
