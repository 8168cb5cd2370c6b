"""bench: measure the throughput and latency of a running gateway.

Each client has one keep-alive connection and one request in flight. In a closed loop, a client sends its next
request as soon as it has an answer, so a slow server gets fewer requests. In an open loop, requests are due
at a fixed rate and latency counts from the due time, which avoids coordinated omission.
"""

import asyncio
import hashlib
import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import click
import msgspec

from mlaas.commands import JSON, is_json

_QUANTILES = 100
_PATIENCE_S = 35.0
_RECONNECT_S = 0.05
_LEAD_S = 0.2
_MADE_PICTURES = 16
_MADE_SIZE = 28
_BOUNDARY = "mlaas-bench"


class Exchange(msgspec.Struct, frozen=True):
    """A request as sent, and bytes that the body of its answer must contain."""

    request: bytes
    expected: bytes


class Due(NamedTuple):
    """A request and its due time in seconds on time.perf_counter(); None: as soon as a client is free."""

    exchange: Exchange
    at: float | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a run. Latencies are of answers only; without any, they are NaN.

    errors counts errors by kind. quantiles_ms has 101 evenly spaced quantiles, from minimum to maximum.
    generator_cpu_s is the CPU time of the process that sent the requests.
    """

    answers: int
    requests_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    errors: dict[str, int]
    quantiles_ms: list[float] = []
    generator: str = "mlaas bench"
    generator_cpu_s: float = 0.0


def exchanges(
    url: str, pictures: Iterable[bytes], headers: Mapping[str, str] | None = None
) -> list[Exchange]:
    """A request for each picture as the body, whose answer must contain the picture's SHA-256 digest."""
    return [exchange(url, *raw(picture), proof=picture, headers=headers) for picture in pictures]


def exchange(
    url: str, media_type: str, body: bytes, *, proof: bytes = b"", headers: Mapping[str, str] | None = None
) -> Exchange:
    """A POST request. Its answer must contain the SHA-256 digest of proof, a picture, if there is one."""
    address = urlsplit(url)
    lines = {
        "Host": address.netloc.rpartition("@")[2],
        "Content-Type": media_type,
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {its}\r\n" for name, its in lines.items())
    return Exchange(
        f"{head}\r\n".encode() + body, hashlib.sha256(proof).hexdigest().encode() if proof else b""
    )


def raw(picture: bytes) -> tuple[str, bytes]:
    """The media type and body of a request with the picture as its body."""
    return "image/jpeg" if picture.startswith(b"\xff\xd8") else "image/png", picture


def form(*pictures: bytes) -> tuple[str, bytes]:
    """The media type and body of a multipart form with each picture in a field `file`."""
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="picture"\r\n\r\n'
    boundary = _BOUNDARY.encode()
    fields = b"".join(head % boundary + picture + b"\r\n" for picture in pictures)
    return f"multipart/form-data; boundary={_BOUNDARY}", fields + b"--%s--\r\n" % boundary


class Tally:
    """Counts answers, which have status 200 and the expected bytes, and errors: everything else."""

    def __init__(self) -> None:
        self._latencies_ms: list[float] = []
        self._errors = Counter[str]()

    def came(self, status: int, body: bytes, expected: bytes, latency_ms: float) -> None:
        if status != 200:
            self.failed(str(status))
        elif expected not in body:
            self.failed("not the answer to this request")
        else:
            self._latencies_ms.append(latency_ms)

    def failed(self, kind: str) -> None:
        self._errors[kind] += 1

    def result(self, seconds: float) -> Result:
        """The result of a run that took this long."""
        ordered = sorted(self._latencies_ms)
        return Result(
            answers=len(ordered),
            requests_per_s=len(ordered) / seconds,
            p50_ms=percentile(ordered, 0.50),
            p90_ms=percentile(ordered, 0.90),
            p99_ms=percentile(ordered, 0.99),
            max_ms=percentile(ordered, 1.0),
            errors=dict(self._errors),
            quantiles_ms=[percentile(ordered, step / _QUANTILES) for step in range(_QUANTILES + 1)],
            generator_cpu_s=time.process_time(),
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that at least this share of them do not exceed; NaN for none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def run(url: str, given: Sequence[Exchange], **how: Any) -> Result:
    """Runs load() on a new event loop, uvloop's if it is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(load(url, given, **how))


async def load(
    url: str,
    given: Sequence[Exchange],
    *,
    clients: int,
    seconds: float,
    count: int | None = None,
    rate_per_s: float | None = None,
    patience_s: float = _PATIENCE_S,
) -> Result:
    """Sends the requests in turn, for this many seconds or until count are sent, whichever comes first.

    rate_per_s makes it an open loop, which starts 0.2 s late so that clients can connect. At the end, load()
    waits up to patience_s for requests in flight and, in an open loop, for those that are due. A request that
    could not be sent is an error.
    """
    tally = Tally()
    started = time.perf_counter() + (0.0 if rate_per_s is None else _LEAD_S)
    supply = (
        _as_they_are_answered(given, started + seconds)
        if rate_per_s is None
        else _as_they_are_due(given, started, seconds, rate_per_s)
    )
    tickets = itertools.islice(supply, count)
    tasks = [asyncio.create_task(_client(url, tickets, tally)) for _ in range(clients)]
    _, stuck = await asyncio.wait(tasks, timeout=seconds + patience_s)
    elapsed_s = time.perf_counter() - started
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    for task in set(tasks) - stuck:
        task.result()
    for _ in tickets:
        tally.failed("not sent")
    return tally.result(elapsed_s)


def _as_they_are_answered(given: Sequence[Exchange], end: float) -> Iterator[Due]:
    for one in itertools.cycle(given):
        if time.perf_counter() >= end:
            return
        yield Due(one, None)


def _as_they_are_due(
    given: Sequence[Exchange], started: float, seconds: float, rate_per_s: float
) -> Iterator[Due]:
    for number, one in zip(range(round(seconds * rate_per_s)), itertools.cycle(given), strict=False):
        yield Due(one, started + number / rate_per_s)


async def _client(url: str, supply: Iterator[Due], tally: Tally) -> None:
    """Sends requests until the supply ends; reconnects whenever the server closes the connection."""
    due = next(supply, None)
    while due is not None:
        connection = _Connection(itertools.chain([due], supply), tally)
        try:
            await _connect(url, connection)
        except OSError:
            await _until(due)
            tally.failed("no connection")
            await asyncio.sleep(_RECONNECT_S)
            left = None
        except asyncio.CancelledError:
            tally.failed("no connection")
            raise
        else:
            left = await connection.ended()
        if left is not None:
            await _until(left)
        due = left or next(supply, None)


async def _until(due: Due) -> None:
    await asyncio.sleep(max(0.0, (due.at or 0.0) - time.perf_counter()))


async def _connect(url: str, connection: "_Connection") -> None:
    address = urlsplit(url)
    is_tls = address.scheme == "https"
    port = address.port or (443 if is_tls else 80)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, address.hostname or "", port, ssl=is_tls or None)


class _Connection(asyncio.Protocol):
    """Sends requests from a shared supply until the supply or the connection ends."""

    def __init__(self, supply: Iterator[Due], tally: Tally) -> None:
        import httptools

        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supply = supply
        self._tally = tally
        self._not_http = httptools.HttpParserError
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: Due | None = None
        self._asked: Exchange | None = None
        self._counts_from = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._body = b""
        self._complete = False
        self._stays_open = False

    async def ended(self) -> Due | None:
        """Waits until the connection is closed. Returns the request that was not yet due then, if any.

        Cancelling it abandons the request in flight.
        """
        try:
            await self._closed
        except asyncio.CancelledError:
            self._give_up("no answer")
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
        except self._not_http:
            self._give_up("not HTTP")
        else:
            if self._complete:
                self._answered()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        """Saves whether the connection stays open, which the parser forgets after this call."""
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
        """Sends a request when it is due. uvloop rounds delays to milliseconds, so a timer may fire early."""
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

    def _give_up(self, why: str) -> None:
        if self._asked is not None:
            self._tally.failed(why)
            self._asked = None
        self._transport.abort()


@click.command()
@click.argument("url", metavar="URL")
@click.option(
    "--clients", type=click.IntRange(min=1), default=64, show_default=True, help="The number of clients."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=10, show_default=True, help="How long to send."
)
@click.option(
    "--rate", "rate_per_s", type=click.FloatRange(min=0, min_open=True), metavar="R",
    help="Send R requests a second, even if answers are slow; latency counts from the due time.",
)  # fmt: skip
@click.option(
    "--picture", "pictures", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A picture to send. May be repeated.  [default: generated pictures of 28 x 28 pixels]",
)  # fmt: skip
@JSON
def bench(
    url: str,
    clients: int,
    seconds: float,
    rate_per_s: float | None,
    pictures: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Send pictures to a URL and print the throughput and latencies.

    Sends as fast as the gateway answers, or at a fixed rate. An answer counts if it contains the SHA-256
    digest of the picture sent; the exit status is 1 if none does. On the same machine, the load generator
    takes CPU time from the gateway.
    """
    given = _given(url, pictures)
    found = run(url, given, clients=clients, seconds=seconds, rate_per_s=rate_per_s)
    if not found.answers:
        raise click.ClickException(_nothing(url, found))
    about = {"url": url, "clients": clients, "seconds": seconds, "rate_per_s": rate_per_s}
    document = msgspec.json.encode({**about, **msgspec.structs.asdict(found)}).decode()
    click.echo(document if is_json(as_json) else _text(found))


def _given(url: str, pictures: tuple[Path, ...]) -> list[Exchange]:
    if not _is_url(url):
        raise click.BadParameter(
            f"{url!r} is not a URL such as http://127.0.0.1:8000/predict", param_hint="URL"
        )
    key = os.environ.get("MLAAS_API_KEY", "").strip()
    contents = [path.read_bytes() for path in pictures] or made_pictures(_MADE_PICTURES)
    return exchanges(url, contents, {"X-API-Key": key} if key else {})


def made_pictures(count: int) -> list[bytes]:
    """This many different PNG files of 28 x 28 grey pixels."""
    from gateway.answer import grey_png

    places = range(_MADE_SIZE * _MADE_SIZE)
    return [
        grey_png(bytes(place * step % 251 for place in places), _MADE_SIZE) for step in range(1, count + 1)
    ]


def _is_url(text: str) -> bool:
    try:
        its = urlsplit(text)
        return its.scheme in ("http", "https") and bool(its.hostname) and its.port != 0
    except ValueError:
        return False


def _nothing(url: str, found: Result) -> str:
    hint = "`mlaas doctor` finds what is broken"
    if found.errors.keys() & {"404", "405"}:
        hint = "the path is /predict"
    elif "no connection" in found.errors:
        hint = "is it running? `mlaas up` starts it"
    elif "401" in found.errors:
        hint = "set MLAAS_API_KEY to a valid key"
    return f"{url} gave no valid answer ({_errors(found) or 'nothing was sent'}); {hint}"


def _errors(found: Result) -> str:
    return ", ".join(f"{kind}: {count}" for kind, count in found.errors.items())


def _text(found: Result) -> str:
    rows = (
        ("requests/s", f"{found.requests_per_s:.1f}"),
        ("answers", f"{found.answers}"),
        ("p50 ms", f"{found.p50_ms:.1f}"),
        ("p90 ms", f"{found.p90_ms:.1f}"),
        ("p99 ms", f"{found.p99_ms:.1f}"),
        ("max ms", f"{found.max_ms:.1f}"),
        ("errors", _errors(found) or "none"),
    )
    return "\n".join(f"{name:12}{value:>10}" for name, value in rows)
