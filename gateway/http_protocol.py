"""uvicorn's HTTP protocol, with the bounds that it lacks."""

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.errors import PROBLEM_MEDIA_TYPE

RawHeader = tuple[bytes, bytes]

# Each takes about 3 kB until its turn comes, and one read can bring 14,000 of them.
_MOST_PIPELINED = 100
# Of uvloop's clock.
_TICK_S = 0.001


class Cycle(RequestResponseCycle):
    """A request and its answer, with shorter ways than ASGI's messages for what needs no waiting."""

    _on_hang_up: Callable[[], None] | None = None

    @staticmethod
    def of(method: Callable[..., object]) -> "Cycle | None":
        """The cycle whose `receive` or `send` this is; None if a middleware has wrapped it."""
        owner = getattr(method, "__self__", None)
        return owner if isinstance(owner, Cycle) else None

    @property
    def has_news(self) -> bool:
        """Whether receive() would return at once."""
        return self.message_event.is_set() or self.disconnected

    def take_body(self) -> bytes | None:
        """The body, if all of it is here and nobody has received any; None otherwise.

        None as well for a client that waits for 100 Continue, which receive() sends.
        """
        if self.more_body or self.disconnected or self.waiting_for_100_continue:
            return None
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        return body

    def on_hang_up(self, callback: Callable[[], None] | None) -> None:
        """Call back once when the client is gone, at once if it is already; None: no more."""
        self._on_hang_up = callback
        if callback is not None:
            self.flow.resume_reading()  # else its going is not noticed
            if self.disconnected:
                self.hang_up()

    def hang_up(self) -> None:
        self.disconnected = True
        self.message_event.set()
        callback, self._on_hang_up = self._on_hang_up, None
        if callback is not None:
            callback()

    def answer(self, status: int, headers: Iterable[RawHeader], body: bytes) -> bool:
        """Send a whole answer in one piece; False if that has to wait for the client.

        headers: in lower case, content-length included; nothing that a stranger chose, since nothing is
        checked. If `connection: close` is among them, the connection is closed.
        """
        if self.flow.write_paused:
            return False
        if self.disconnected:
            return True
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *headers):
            if name == b"connection":
                self.keep_alive = False
            else:
                lines += name, b": ", value, b"\r\n"
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        lines.append(body)
        self.transport.write(b"".join(lines))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a head or trailer section that is too long, and a head that does not arrive in time.

    Closes the connection of a client that keeps sending a body after its answer, pipelines too many requests,
    or does not read its answers. Ignores an offer to upgrade, as RFC 9110 (7.8) permits, and reads what
    follows it as the request's body.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        max_head_bytes: int,
        head_timeout_s: float,
        max_rest_bytes: int,
        rest_timeout_s: float,
        on_refusal: Callable[[int], None] = lambda _: None,
    ) -> None:
        """on_refusal: called with the status of each answer to what never becomes a request."""
        super().__init__(config, server_state, app_state, _loop)
        self._max_head_bytes = self._head_left = max_head_bytes
        self._head_timeout_s = head_timeout_s
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        # Received since anything was complete: part of a header, blank lines, a chunk's extension.
        self._incomplete_bytes = 0
        self._completed = False
        self._max_rest_bytes = self._rest_left = max_rest_bytes
        self._rest_timeout_s = rest_timeout_s
        self._rest_timer: asyncio.TimerHandle | None = None
        self._on_refusal = on_refusal
        self._refusal: tuple[int, str] | None = None
        self._answering: Cycle | None = None
        self._unsent_since: float | None = None
        self._idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_rest_timer()
        self._stop_idle_timer()
        if self._answering is not None and not self._answering.response_complete:
            # uvicorn notifies the last pipelined request, which may not be the one being answered.
            self._answering.hang_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Replaces uvicorn's method, which drops what follows an offer to upgrade."""
        if self._refusal is not None:
            return
        self._unset_keepalive_if_required()
        if self._rest_timer is not None:
            self._rest_left -= len(data)
            if self._rest_left < 0:
                return self.transport.close()
            # libuv would read 32 times in a row, 256 kB each, before others had their turn.
            self.flow.pause_reading()
            self.loop.call_soon(self._resume_reading)
        self._completed = False
        try:
            self._parse(data)
            self._count_incomplete(len(data))
        except httptools.HttpParserError:
            return self._refuse(400, "the request is not valid HTTP, or its end is ambiguous")
        except _OutOfBoundsError as error:
            return self._refuse(error.status, str(error))
        if self._in_head and self._head_timer is None:
            if self._head_left < self._max_head_bytes or self._incomplete_bytes:
                self._start_head_timer()
            elif self.cycle is not None and self.cycle.response_complete:
                self._start_idling()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Drop trailer fields, which would become headers after the middlewares have judged those."""
        self._count_head(len(name) + len(value) + len(": \r\n"))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the parser would skip the body; _parse reads this head again
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise _OutOfBoundsError(429, f"more than {_MOST_PIPELINED} requests wait on this connection")
        self._completed = True
        self._in_head = False
        self._head_left = self._max_head_bytes
        self._stop_head_timer()
        self._begin()

    def _begin(self) -> None:
        """Replaces uvicorn's on_headers_complete, which makes cycles of its own kind."""
        scope, http_version, url = self.scope, self.parser.get_http_version(), httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = http_version
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        earlier, self.cycle = (
            self.cycle,
            Cycle(
                scope=scope,
                transport=self.transport,
                flow=self.flow,
                logger=self.logger,
                access_logger=self.access_logger,
                access_log=self.access_log,
                default_headers=self.server_state.default_headers,
                message_event=asyncio.Event(),
                expect_100_continue=self.expect_100_continue,
                keep_alive=http_version != "1.0" and self.parser.should_keep_alive(),
                on_response=self.on_response_complete,
            ),
        )
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Replaces uvicorn's method, which has each task call back at its end."""
        assert isinstance(cycle, Cycle)
        self._answering = cycle
        self.tasks.add(self.loop.create_task(self._run(cycle, app)))

    async def _run(self, cycle: Cycle, app: ASGI3Application) -> None:
        """Replaces uvicorn's run_asgi."""
        try:
            await app(cycle.scope, cycle.receive, cycle.send)
            if not (cycle.response_complete or cycle.disconnected):
                raise RuntimeError("the application ended without an answer")
        except BaseException as error:
            self.logger.error("Exception in ASGI application", exc_info=error)
            if cycle.response_started:
                self.transport.close()
            else:
                await cycle.send_500_response()
        finally:
            self.tasks.discard(asyncio.current_task())
            cycle.on_response = _nothing  # else cycle and protocol would keep each other

    def on_body(self, body: bytes) -> None:
        self._completed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._stop_rest_timer()
        self._completed = True
        self._in_head = True
        self._head_left = self._max_head_bytes

    def on_response_complete(self) -> None:
        """Replaces uvicorn's method, which starts a timer for each answer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._start_idling()
        if not self._in_head and self.cycle.response_complete and not self.transport.is_closing():
            self._rest_left = self._max_rest_bytes
            self._rest_timer = self.loop.call_later(self._rest_timeout_s, self.transport.close)

    def end_unless_answers_are_taken(self, now: float, timeout_s: float) -> None:
        """Abort the connection if the client has read nothing for timeout_s. To be called regularly.

        now: monotonic seconds.
        """
        if not self.transport.get_write_buffer_size():
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since >= timeout_s:
            self.transport.abort()

    def _parse(self, data: bytes | memoryview) -> None:
        """Raises HttpParserError and _OutOfBoundsError."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                rest = memoryview(data)[offer.args[0] :]
                self._parse_without_offer()
                data = rest
            except httptools.HttpParserCallbackError as error:
                ours = error.__context__
                raise (ours if isinstance(ours, _OutOfBoundsError) else error) from None

    def _parse_without_offer(self) -> None:
        """Parse the head again without its offer: httptools would take the body for another protocol."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise _OutOfBoundsError(400, "CONNECT is not supported: this is not a proxy")
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._head_left = self._max_head_bytes
        self._parse(b"\r\n".join([*lines, b"", b""]))

    def _resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _count_head(self, size: int) -> None:
        self._completed = True
        self._head_left -= size
        if self._head_left < 0:
            raise self._too_long()

    def _count_incomplete(self, size: int) -> None:
        self._incomplete_bytes = 0 if self._completed else self._incomplete_bytes + size
        if self._incomplete_bytes > self._max_head_bytes:
            raise self._too_long()

    def _too_long(self) -> "_OutOfBoundsError":
        what = "head" if self._in_head else "trailer section, or a chunk's extension,"
        most = f"{self._max_head_bytes} bytes (gateway.max_head_bytes)"
        return _OutOfBoundsError(431, f"the request's {what} is over {most}")

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._head_timeout_s, self._head_timed_out)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_rest_timer(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None

    def _start_idling(self) -> None:
        """One timer is for all times in which the connection is idle: it goes on if the last began later."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._start_idle_timer(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _start_idle_timer(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is not None:
            left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
            if left_s > _TICK_S:
                self._start_idle_timer(left_s)
            else:
                self.transport.close()

    def _stop_idle_timer(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_head_timer()
        elif self._head_left == self._max_head_bytes and not self._incomplete_bytes:
            self.transport.close()
        else:
            self._refuse(408, f"the request's head did not arrive within {self._head_timeout_s:g} s")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer in this request's turn, or not at all if its answer has begun; then close."""
        self._refusal = status, detail
        self._stop_head_timer()
        cycle = self.cycle
        is_answered = cycle is None or cycle.response_complete
        if self._in_head and not is_answered:
            cycle.keep_alive = False  # uvicorn closes after the answers that are due
        elif self.pipeline:
            self.pipeline[0] = (cycle, self._refused)
        else:
            if self._in_head or not cycle.response_started:
                self._on_refusal(status)
                self.transport.write(_as_bytes(*_problem(status, detail)))
            if not is_answered:
                assert isinstance(cycle, Cycle)
                cycle.hang_up()
            self.transport.close()

    async def _refused(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._refusal is not None
        status, headers, body = _problem(*self._refusal)
        self._on_refusal(status)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


def _nothing() -> None:
    pass


class _OutOfBoundsError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def _problem(status: int, detail: str) -> tuple[int, dict[str, str], bytes]:
    document = {
        "type": f"urn:mlaas:problem:http-{status}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    body = msgspec.json.encode(document)
    headers = {"content-type": PROBLEM_MEDIA_TYPE, "content-length": str(len(body)), "connection": "close"}
    return status, headers, body


def _as_bytes(status: int, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *map(": ".join, headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body
