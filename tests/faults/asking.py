"""An open-loop client: a request leaves when it is due, whatever became of those before."""

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Self

import httptools

from tests.faults.ledger import NO_ANSWER, NO_CONNECTION, Entry
from tests.faults.pictures import Picture

Address = tuple[str, int]
Choose = Callable[[], Address | None]


class Answered(asyncio.Protocol):
    """One keep-alive connection, one request at a time; among the open ones until it is lost."""

    def __init__(self, open_ones: set["Answered"]) -> None:
        self._open_ones = open_ones
        self.waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self.surplus = 0
        self.usable = True
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self._body = b""
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.waiting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._open_ones.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._open_ones.discard(self)
        self.usable = False
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(error or ConnectionResetError("closed before the answer"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.usable = self.usable and self._parser.should_keep_alive()
        if self.waiting is None or self.waiting.done():
            self.surplus += 1
        else:
            self.waiting.set_result((self._parser.get_status_code(), self._body))


class Client:
    """Keeps idle connections for the next request."""

    def __init__(self, timeout_s: float, path: str = "/predict") -> None:
        self._timeout_s = timeout_s
        self._path = path
        self._idle: dict[Address, list[Answered]] = defaultdict(list)
        self._open: set[Answered] = set()
        self.entries: list[Entry] = []
        self.answered_at: list[float] = []

    async def drive(
        self, choose: Choose, pictures: Iterable[Picture], rate: float, *, stop: Callable[[], bool] = bool
    ) -> None:
        """Sends the pictures at so many a second, waits for the last answer, and closes all connections."""
        started = time.monotonic()
        async with self, asyncio.TaskGroup() as asking:
            for number, picture in enumerate(pictures):
                due = started + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if stop():
                    return
                asking.create_task(self.ask(choose, picture, due))

    async def ask(self, choose: Choose, picture: Picture, due: float | None = None) -> Entry:
        """One request; its entry goes into the ledger."""
        due = time.monotonic() if due is None else due
        status, body, answers = await self._ask(choose(), picture)
        right = status == 200 and _is_right(body, picture)
        entry = Entry(due, time.monotonic(), self._timeout_s, status, right, answers)
        self.entries.append(entry)
        if status == 200:
            self.answered_at.append(entry.ended)
        return entry

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes its connections: they belong to the loop that they were made in."""
        self._idle.clear()
        for connection in self._open.copy():
            connection.transport.abort()
        await asyncio.sleep(0)  # a transport is closed in the loop's next turn

    async def _ask(self, address: Address | None, picture: Picture) -> tuple[int, bytes, int]:
        if address is None:
            return NO_CONNECTION, b"nobody is ready", 1
        try:
            async with asyncio.timeout(self._timeout_s + 15):
                connection = await self._connection(address)
                status, body = await connection.ask(
                    request(address, self._path, picture.content, self._timeout_s)
                )
        except TimeoutError:
            return NO_ANSWER, b"", 0
        except OSError as error:
            return NO_CONNECTION, str(error).encode(), 0
        if connection.usable:
            self._idle[address].append(connection)
        return status, body, 1 + connection.surplus

    async def _connection(self, address: Address) -> Answered:
        while self._idle[address]:
            if (connection := self._idle[address].pop()).usable:
                return connection
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: Answered(self._open), *address)
        return made


def request(address: Address, path: str, picture: bytes, timeout_s: float) -> bytes:
    """As it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: image/png\r\n"
        f"X-Request-Timeout-Ms: {timeout_s * 1000:.0f}\r\nContent-Length: {len(picture)}\r\n\r\n"
    )
    return head.encode() + picture


def _is_right(body: bytes, picture: Picture) -> bool:
    answer = json.loads(body)
    return bool(answer["sha256"] == picture.sha256 and answer["label"] == picture.label)


def in_turn(addresses: Iterable[Address]) -> Choose:
    """One after the other."""
    turn = itertools.cycle(list(addresses))
    return lambda: next(turn)
