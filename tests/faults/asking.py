"""An open-loop client, which sends each request when it is due, and the verdict on what it received."""

import asyncio
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import httptools

from tests.faults.fleet import Address
from tests.faults.stage import Picture

Choose = Callable[[], Address | None]

NO_CONNECTION = 0
NO_ANSWER = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One request. due, when it should be sent, and ended are in monotonic seconds.

    status is HTTP's, NO_CONNECTION or NO_ANSWER. right: a 200 with the picture's digest and label. version:
    the one that a 200 names.
    """

    due: float
    ended: float
    timeout_s: float
    status: int
    right: bool
    answers: int = 1
    version: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.due


@dataclass(frozen=True, slots=True)
class Verdict:
    """lost: without a final status. double: answered twice. latest_s: after the deadline."""

    requests: int
    lost: int
    wrong: int
    double: int
    latest_s: float
    statuses: dict[int, int]
    p50_s: float
    p99_s: float
    longest_s: float

    def share(self, status: int) -> float:
        return self.statuses.get(status, 0) / max(1, self.requests)

    def errors(self) -> int:
        """5xx and failed connections."""
        return sum(count for status, count in self.statuses.items() if status >= 500 or status <= 0)

    def numbers(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "lost": self.lost,
            "wrong": self.wrong,
            "double": self.double,
            "answers": by_status(self.statuses),
            "p50_ms": round(self.p50_s * 1000, 1),
            "p99_ms": round(self.p99_s * 1000, 1),
            "longest_ms": round(self.longest_s * 1000, 1),
        }


def judge(entries: Iterable[Entry]) -> Verdict:
    entries = list(entries)
    good = sorted(entry.seconds for entry in entries if entry.status == 200)
    return Verdict(
        requests=len(entries),
        lost=sum(entry.status == NO_ANSWER for entry in entries),
        wrong=sum(entry.status == 200 and not entry.right for entry in entries),
        double=sum(entry.answers > 1 for entry in entries),
        latest_s=max((entry.seconds - entry.timeout_s for entry in entries), default=0.0),
        statuses=dict(Counter(entry.status for entry in entries)),
        p50_s=percentile(good, 0.5),
        p99_s=percentile(good, 0.99),
        longest_s=good[-1] if good else 0.0,
    )


def by_status(statuses: dict[int, int]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(statuses.items())}


def percentile(values: Iterable[float], share: float) -> float:
    """0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def longest_gap(times: Iterable[float]) -> float:
    return max((after - before for before, after in itertools.pairwise(sorted(times))), default=0.0)


class _Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time. It is in `open_ones` until it is lost."""

    def __init__(self, open_ones: set["_Connection"]) -> None:
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
    """Sends pictures, keeps idle connections for the next request, and records an Entry for each request."""

    def __init__(self, timeout_s: float, path: str = "/predict") -> None:
        self._timeout_s = timeout_s
        self._path = path
        self._idle: dict[Address, list[_Connection]] = defaultdict(list)
        self._open: set[_Connection] = set()
        self.entries: list[Entry] = []
        self.answered_at: list[float] = []

    async def drive(
        self, choose: Choose, pictures: Iterable[Picture], rate: float, *, stop: Callable[[], bool] = bool
    ) -> None:
        """Send `rate` pictures a second, wait for the last answer, and close all connections."""
        started = time.monotonic()
        async with self, asyncio.TaskGroup() as requests:
            for number, picture in enumerate(pictures):
                due = started + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if stop():
                    return
                requests.create_task(self.ask(choose, picture, due))

    async def ask(self, choose: Choose, picture: Picture, due: float | None = None) -> Entry:
        due = time.monotonic() if due is None else due
        status, body, answers = await self._ask(choose(), picture)
        answer = json.loads(body) if status == 200 else {}
        right = (answer.get("sha256"), answer.get("label")) == (picture.sha256, picture.label)
        version = answer.get("version", "")
        entry = Entry(due, time.monotonic(), self._timeout_s, status, right, answers, version)
        self.entries.append(entry)
        if status == 200:
            self.answered_at.append(entry.ended)
        return entry

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections, which belong to this event loop."""
        self._idle.clear()
        for connection in self._open.copy():
            connection.transport.abort()
        await asyncio.sleep(0)  # transports close in the next iteration of the loop

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

    async def _connection(self, address: Address) -> _Connection:
        while self._idle[address]:
            if (connection := self._idle[address].pop()).usable:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._open), *address)
        return connection


def request(address: Address, path: str, picture: bytes, timeout_s: float) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: image/png\r\n"
        f"X-Request-Timeout-Ms: {timeout_s * 1000:.0f}\r\nContent-Length: {len(picture)}\r\n\r\n"
    )
    return head.encode() + picture


def in_turn(addresses: Iterable[Address]) -> Choose:
    turn = itertools.cycle(list(addresses))
    return lambda: next(turn)
