"""Requests that are too large, too slow, or not clear about their end, and what the process does."""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.e2e.services import ROOT, Service, predict, up

SANDAL = (ROOT / "samples" / "sandal.png").read_bytes()
LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
NOWHERE = POST.replace(b"predict", b"nowhere")
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HIDDEN = LIVE + b"\r\n"
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Service, str]]:
    with up(MLAAS_GATEWAY__HEAD_TIMEOUT_MS="500", MLAAS_GATEWAY__BODY_TIMEOUT_MS="1000") as started:
        yield started


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def all_of(connection: socket.socket) -> bytes:
    """Until the gateway closes it; fails if it does not."""
    received = b""
    try:
        while part := connection.recv(65_536):
            received += part
    except ConnectionResetError:
        pass
    return received


def ask(url: str, request: bytes) -> bytes:
    with connect(url) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        return all_of(connection)


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


@pytest.mark.parametrize(
    ("name", "request_", "status"),
    [
        ("a header of 100 kB", LIVE + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n", 431),
        ("20,000 headers", LIVE + b"X-A: a\r\n" * 20_000 + b"\r\n", 431),
        ("a path of 100 kB", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        ("a head without end", LIVE + b"X-A: a\r\n" * 20_000, 431),
        ("empty lines without end", b"\r\n" * 40_000, 431),
        ("half of a head", LIVE, 408),
        ("half of a body", POST + b"Content-Length: 100\r\n\r\nabc", 408),
        ("half of a chunk", POST + CHUNKED + b"\r\n64\r\nabc", 408),
        (
            "half of a body that nobody reads",
            NOWHERE + b"Content-Length: 9\r\n\r\nabc",
            404,
        ),
        ("a body that is too long, and does not come", POST + b"Content-Length: 99999999\r\n\r\n", 413),
    ],
)
def test_what_is_too_large_or_does_not_come_is_refused_and_cut_off(
    running: tuple[Service, str], name: str, request_: bytes, status: int
) -> None:
    received = ask(running[1], request_)
    # Who still sends when the connection is closed may lose the answer: TCP resets it.
    assert statuses(received) == [status] or (status == 431 and not received), name
    assert not received or b"application/problem+json" in received


def test_a_large_head_that_is_within_the_limit_is_answered(running: tuple[Service, str]) -> None:
    received = ask(running[1], LIVE + b"X-A: " + b"a" * 32_000 + b"\r\nConnection: close\r\n\r\n")
    assert statuses(received) == [200]


def test_who_sends_a_byte_at_a_time_is_ended_by_the_deadline(running: tuple[Service, str]) -> None:
    with connect(running[1]) as connection:
        connection.sendall(POST + b"Content-Length: 100000\r\n\r\n")
        connection.settimeout(0.1)
        received = b""
        for _ in range(300):
            try:
                received = connection.recv(65_536)
                break
            except TimeoutError:
                connection.sendall(b"a")
    assert statuses(received) == [408]


def test_a_hundred_connections_that_send_nothing_are_closed_and_harm_nobody(
    running: tuple[Service, str],
) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(running[1])) for _ in range(100)]
        slow = [stack.enter_context(connect(running[1])) for _ in range(20)]
        for connection in slow:
            connection.sendall(POST + b"Content-Length: 100\r\n\r\n")
        assert predict(running[1], SANDAL).json()["label"] == "Sandal"
        assert [all_of(connection) for connection in idle] == 100 * [b""]
        assert [statuses(all_of(connection)) for connection in slow] == 20 * [[408]]


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("length and chunks", POST + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN),
        ("chunks and length", POST + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN),
        ("two lengths", POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde" + HIDDEN),
        ("a list of lengths", POST + b"Content-Length: 4, 4\r\n\r\nabcd" + HIDDEN),
        ("a length with a sign", POST + b"Content-Length: +4\r\n\r\nabcd" + HIDDEN),
        ("a negative length", POST + b"Content-Length: -4\r\n\r\n" + HIDDEN),
        ("a space before the colon", POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN),
        ("another encoding", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN),
        (
            "an encoding after",
            POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
        ),
        ("two encodings", POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN),
        ("a folded header", POST + b"X-A: a\r\n b\r\n\r\n" + HIDDEN),
        ("line feeds alone", POST.replace(b"\r", b"") + b"Content-Length: 4\n\nabcd" + HIDDEN),
        ("a chunk of no number", POST + CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n" + HIDDEN),
        ("a chunk of 2^64 and more", POST + CHUNKED + b"\r\nffffffffffffffff1\r\nabc\r\n0\r\n\r\n" + HIDDEN),
        ("a chunk that is longer than it says", POST + CHUNKED + b"\r\n1\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    ],
)
def test_after_a_request_whose_end_is_not_clear_no_other_one_is_answered(
    running: tuple[Service, str], name: str, request_: bytes
) -> None:
    assert statuses(ask(running[1], request_)) == [400], name


def test_what_follows_the_last_request_of_a_connection_is_not_answered(running: tuple[Service, str]) -> None:
    assert statuses(ask(running[1], LIVE + b"Connection: close\r\n\r\n" + HIDDEN)) == [200]


def test_requests_sent_at_once_are_answered_in_their_order(running: tuple[Service, str]) -> None:
    good = POST + b"Content-Length: %d\r\n\r\n" % len(SANDAL) + SANDAL
    nowhere = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert statuses(ask(running[1], good + HIDDEN + nowhere)) == [200, 200, 404]


BOUNDARY = b"Content-Type: multipart/form-data; boundary=b\r\n"


def part(name: bytes, content: bytes, more: bytes = b"", filename: bytes = b'; filename="a"') -> bytes:
    disposition = b'Content-Disposition: form-data; name="' + name + b'"' + filename
    return b"--b\r\n" + disposition + b"\r\n" + more + b"\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("thousands of files", part(b"file", b"x") * 5_000 + b"--b--\r\n", 400),
        ("thousands of fields", part(b"x", b"", filename=b"") * 5_000 + b"--b--\r\n", 400),
        ("thousands of headers", part(b"file", SANDAL, b"X-A: a\r\n" * 5_000) + b"--b--\r\n", 400),
        (
            "a header of 100 kB",
            part(b"file", SANDAL, b"X-A: " + b"a" * 100_000 + b"\r\n") + b"--b--\r\n",
            400,
        ),
        ("a field of 2 MB alone", part(b"x", b"a" * 2_000_000, filename=b"") + b"--b--\r\n", 422),
        ("a form that is cut off", part(b"file", SANDAL), 400),
        ("a form in a form", part(b"file", part(b"file", SANDAL), b"Content-Type: multipart/x\r\n"), 400),
    ],
)
@pytest.mark.parametrize("path", [b"/predict", b"/predict/batch"])
def test_a_form_that_is_out_of_bounds_is_refused(
    running: tuple[Service, str], path: bytes, name: str, body: bytes, status: int
) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + BOUNDARY
    received = ask(running[1], head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert statuses(received) == [status], (name, received[-200:])
    assert b"application/problem+json" in received


def test_at_the_end_the_process_answers_as_ever_and_reported_no_defect(running: tuple[Service, str]) -> None:
    service, url = running
    assert predict(url, SANDAL).json()["label"] == "Sandal"
    assert "Traceback" not in service.output
