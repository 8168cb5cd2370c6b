"""What the protocol makes of requests that say too much, too late or too often, over real connections."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from starlette.responses import StreamingResponse
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


async def echoing(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the request's header names and its body, after a moment in which more can come."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    await asyncio.sleep(0.05)
    said = b" ".join([scope["path"].encode(), *(name for name, _ in scope["headers"]), b"|" + body])
    headers = [(b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


async def streaming(scope: Any, receive: Any, send: Any) -> None:
    """Events without end, as large as it takes to fill a system's buffers."""

    async def events() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield bytes(100_000)

    await StreamingResponse(events(), media_type="text/event-stream")(scope, receive, send)


@asynccontextmanager
async def connected(
    keep_alive_s: float = 60, app: Any = refusing, state: ServerState | None = None, **changes: Any
) -> AsyncIterator[Connection]:
    bounds = {"max_head_bytes": 1024, "head_timeout_s": 60, "max_rest_bytes": 100_000, "rest_timeout_s": 60}
    config = Config(app, log_config=None, access_log=False, ws="none")
    config.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]
    protocol = partial(BoundedProtocol, config, state or ServerState(), {}, **{**bounds, **changes})
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


def request(body: bytes = b"", *lines: bytes, path: bytes = b"/a", method: bytes = b"POST") -> bytes:
    head = [method + b" " + path + b" HTTP/1.1", b"Host: a", *lines]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", body])


CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(body: bytes, trailers: bytes = b"") -> bytes:
    return CHUNKED + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers)


async def answers(connection: Connection, *packets: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer until the connection is closed, for packets sent one after the other."""
    for packet in packets:
        connection[1].write(packet)
        await asyncio.sleep(0.02)
    found: list[tuple[int, bytes]] = []
    received = await connection[0].read()
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(re.findall(rb"content-length: (\d+)", head)[0])
        found.append((int(head[9:12]), rest[:length]))
        received = rest[length:]
    return found


LAST = request(b"", b"Connection: close", path=b"/last")
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
WEBSOCKET = (b"Connection: upgrade", b"UPGRADE: WebSocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZQ==")


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET, (b"Connection: Upgrade", b"Upgrade: any/1, other")])
@pytest.mark.parametrize("cut_at", [0, 1, 30, -12, -5, -1])
async def test_an_offer_to_upgrade_is_ignored_and_the_body_read(
    offer: tuple[bytes, ...], cut_at: int
) -> None:
    inner = b"GET /in HTTP/1.1\r\nHost: a\r\n\r\n"
    whole = request(inner, *offer)
    async with connected(app=echoing) as connection:
        found = await answers(connection, whole[:cut_at], whole[cut_at:], LAST)
    assert [status for status, _ in found] == [200, 200]
    assert found[0][1].endswith(b"|" + inner)
    assert b"upgrade" not in found[0][1].split(b"|")[0]
    assert found[1][1].startswith(b"/last")


async def test_offers_to_upgrade_without_bodies_in_chunks_and_one_after_the_other_are_ignored() -> None:
    plain = request(b"", *H2C, path=b"/1", method=b"GET")
    in_chunks = chunked(b"body", b"X-A: b\r\n").replace(b"Host: a", b"\r\n".join(H2C))
    async with connected(app=echoing) as connection:
        found = await answers(connection, plain + in_chunks + plain + LAST)
    assert [(status, said.split()[0]) for status, said in found] == [
        (200, b"/1"), (200, b"/a"), (200, b"/1"), (200, b"/last")
    ]  # fmt: skip
    assert found[1][1].endswith(b"|body")


async def test_after_connect_nothing_is_read() -> None:
    tunnel = b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"
    async with connected(app=echoing) as connection:
        assert [status for status, _ in await answers(connection, tunnel + LAST)] == [400]


async def test_trailers_are_dropped_and_the_next_request_is_read() -> None:
    async with connected(app=echoing) as connection:
        found = await answers(
            connection, chunked(b"body", b"X-Request-Timeout-Ms: 1\r\nX-API-Key: k\r\n"), LAST
        )
    assert [status for status, _ in found] == [200, 200]
    assert found[0][1] == b"/a host transfer-encoding |body"


async def refused(connection: Connection, begun: bytes, piece: bytes) -> bytes:
    """What is said to who sends the piece again and again; empty where the system dropped it."""
    connection[1].write(begun)
    saying = asyncio.create_task(connection[0].read())
    while not saying.done():
        await asyncio.sleep(0.002)
        with suppress(ConnectionError):
            connection[1].write(piece)
    try:
        return saying.result()
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        (b"0\r\n", b"X-A: 0123456789\r\n"),
        (b"0\r\n", 100 * b"X-A: 0123456789\r\n"),
        (b"0\r\nX-A: ", 10 * b"a"),
        (b"0\r\nX-A: ", 10_000 * b"a"),
        (b"0\r\n", 100 * b"a"),
        (b"1;", 100 * b"a"),
    ],
    ids=["many", "many at once", "one", "a large one", "a name", "a chunk's extension"],
)
@pytest.mark.parametrize("app", [echoing, refusing])
async def test_trailers_without_end_are_cut_off(app: Any, begun: bytes, piece: bytes) -> None:
    async with connected(app=app) as connection:
        said = await refused(connection, CHUNKED + b"4\r\nbody\r\n" + begun, piece)
    assert re.findall(rb"HTTP/1\.1 (\d+)", said) in ([], [b"431"], [b"429"])


async def test_a_trailer_over_the_limit_is_refused_though_it_comes_at_once() -> None:
    async with connected(app=echoing) as connection:
        connection[1].write(chunked(b"body", b"X-A: " + 1_100 * b"a" + b"\r\n"))
        assert b" 431 " in await connection[0].readline()


async def test_a_body_in_many_chunks_is_no_head() -> None:
    async with connected(app=echoing) as connection:
        found = await answers(connection, CHUNKED, *10 * [500 * b"1\r\na\r\n"], b"0\r\n\r\n" + LAST)
    assert found[0][1].endswith(b"|" + 5_000 * b"a")


async def test_many_requests_at_once_are_no_long_head() -> None:
    async with connected(app=echoing) as connection:
        found = await answers(
            connection, b"".join(request(b"x", b"X-A: " + 300 * b"a") for _ in range(20)) + LAST
        )
    assert [status for status, _ in found] == 21 * [200]


@pytest.mark.parametrize(
    ("broken", "statuses"),
    [
        (b"GARBAGE\r\n\r\n", [200, 200]),
        (b"GET / HTTP/1.1\r\nX-A: " + 2_000 * b"a" + b"\r\n\r\n", [200, 200]),
        (CHUNKED + b"zz\r\n", [200, 200, 400]),
        (request(b"", b"Content-Length: 4"), [200, 200]),
    ],
    ids=["not HTTP", "too long a head", "a broken body", "two lengths"],
)
async def test_a_refusal_is_never_the_answer_to_another_request(broken: bytes, statuses: list[int]) -> None:
    async with connected(app=echoing) as connection:
        found = await answers(
            connection, request(b"1", path=b"/1") + request(b"2", path=b"/2") + broken + LAST
        )
    assert [status for status, _ in found] == statuses
    assert [said.split()[0] for _, said in found[:2]] == [b"/1", b"/2"]


async def test_a_body_that_breaks_after_its_answer_gets_no_other() -> None:
    async with connected() as connection:
        connection[1].write(CHUNKED)
        assert b" 429 " in await connection[0].readuntil(b"\r\n\r\n")
        assert await answers(connection, b"zz\r\n" + LAST) == []


async def test_more_requests_than_may_wait_on_a_connection_close_it_after_those_that_may() -> None:
    async with connected(app=echoing) as connection:
        found = await answers(connection, 150 * request(b"", method=b"GET"))
    assert [status for status, _ in found] == 101 * [200]


async def test_who_hangs_up_with_several_requests_waiting_ends_the_one_being_answered() -> None:
    state, heard = ServerState(), asyncio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        heard.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with connected(app=waiting, state=state) as connection:
        connection[1].write(3 * request())
        await heard.wait()
        connection[1].close()
        while state.connections or state.tasks:
            await asyncio.sleep(0.01)


async def test_who_does_not_take_its_answer_is_cut_off_and_who_does_is_not() -> None:
    state = ServerState()
    async with connected(app=streaming, state=state) as connection:
        connection[1].write(request())
        await connection[0].readuntil(b"\r\n\r\n")
        (protocol,) = state.connections
        assert isinstance(protocol, BoundedProtocol)
        while not protocol.transport.get_write_buffer_size():
            await asyncio.sleep(0.01)
        protocol.end_unless_answers_are_taken(now=0, timeout_s=30)
        protocol.end_unless_answers_are_taken(now=29, timeout_s=30)
        assert not protocol.transport.is_closing()
        protocol.end_unless_answers_are_taken(now=30, timeout_s=30)
        while state.connections or state.tasks:
            await asyncio.sleep(0.01)
    async with connected(app=echoing, state=state) as connection:
        assert await ask(connection, request()) == 200
        (protocol,) = state.connections
        assert isinstance(protocol, BoundedProtocol)
        for now in (0, 30, 60):
            protocol.end_unless_answers_are_taken(now=now, timeout_s=30)
        assert await ask(connection, request()) == 200


@pytest.mark.parametrize(
    "refused", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + 2_000 * b"a" + b"\r\n\r\n"]
)
async def test_what_is_refused_before_it_is_a_request_is_told_once(refused: bytes) -> None:
    told: list[int] = []
    async with connected(on_refusal=told.append) as connection:
        status = await ask(connection, refused)
        await connection[0].read()
    assert told == [status]


async def test_what_is_refused_behind_another_request_is_told_once() -> None:
    told: list[int] = []
    async with connected(app=echoing, on_refusal=told.append) as connection:
        connection[1].write(
            2 * (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na") + b"nonsense\r\n\r\n"
        )
        answers = await connection[0].read()
    assert told == [int(status) for status in re.findall(rb"HTTP/1\.1 (4\d\d)", answers)]
    assert answers.count(b"HTTP/1.1 200") == 2
