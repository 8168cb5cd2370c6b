"""HTTP as uvicorn reads it, with bounds for a request's head, and for what comes after its answer."""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.problem import MEDIA_TYPE


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's own waits for a head as long as it takes, and keeps all of it, however long it gets.

    Who sends too much, or is not done in time, is told so where an answer can be read, and cut off.
    So is, without a word, who has the answer and goes on with the request's body for too long.
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
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._max_head_bytes = self._head_left = max_head_bytes
        self._head_timeout_s = head_timeout_s
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._max_rest_bytes = self._rest_left = max_rest_bytes
        self._rest_timeout_s = rest_timeout_s
        self._rest_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_rest_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            allowed = self._head_left
            self._head_left -= len(data)
            if self._head_left < 0:
                super().data_received(data[:allowed])
                data = data[allowed:]
                if self._in_head:
                    return self._refuse(431, f"the request's head is over {self._max_head_bytes} bytes")
                if self.transport.is_closing():
                    return None
        elif self._rest_timer is not None:
            self._rest_left -= len(data)
            if self._rest_left < 0:
                return self.transport.close()
        super().data_received(data)
        if self._in_head and self._head_timer is None:
            if self._head_left < self._max_head_bytes:
                self._start_timer()
            elif self.cycle is not None and self.cycle.response_complete:
                self._start_idle_timer()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._in_head and self.cycle.response_complete and not self.transport.is_closing():
            self._rest_left = self._max_rest_bytes
            self._rest_timer = self.loop.call_later(self._rest_timeout_s, self.transport.close)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._stop_rest_timer()
        self._in_head = True
        self._head_left = self._max_head_bytes

    def send_400_response(self, msg: str) -> None:
        """What uvicorn says to what is not HTTP."""
        self._refuse(400, "this is not HTTP, or not a request that can be told from the next")

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._head_timeout_s, self._head_timed_out)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_rest_timer(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None

    def _start_idle_timer(self) -> None:
        """uvicorn starts it with the answer, and stops it with the next byte."""
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_timer()
        elif self._head_left == self._max_head_bytes:
            self.transport.close()
        else:
            self._refuse(408, f"the request's head did not come within {self._head_timeout_s:g} s")

    def _refuse(self, status: int, detail: str) -> None:
        """Amid an answer nothing can be said: then only the connection ends."""
        cycle = self.cycle
        is_amid = cycle is not None and cycle.response_started and not cycle.response_complete
        if not (is_amid or self.transport.is_closing()):
            self.transport.write(_problem(status, detail))
        self.transport.close()


def _problem(status: int, detail: str) -> bytes:
    title = HTTPStatus(status).phrase
    document = {
        "type": f"urn:mlaas:problem:http-{status}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    body = msgspec.json.encode(document)
    head = (
        f"HTTP/1.1 {status} {title}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
