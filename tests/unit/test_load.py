"""The load generator against a small server that does not always answer."""

import asyncio
import itertools
import math
import time

import pytest

from mlaas.commands.bench import Exchange, Result, Tally, exchange, exchanges, form, load, percentile
from tests.e2e.services import ROOT
from tests.unit.http_server import BUSY, CHUNKED, ENDING, HANG_UP, NOTHING, OK, server

pytestmark = pytest.mark.anyio

PICTURE = (ROOT / "samples" / "sandal.png").read_bytes()


def any_answer(url: str) -> list[Exchange]:
    return [exchange(url, "image/png", PICTURE)]


async def send(url: str, count: int, expected: bytes = b"answer") -> Result:
    given = [Exchange(one.request, expected) for one in exchanges(url, [PICTURE])]
    return await load(url, given, clients=4, seconds=30, count=count, patience_s=30)


async def test_every_answer_is_counted_once() -> None:
    bodies = []
    async with server(lambda _, body: bodies.append(body) or OK) as url:
        result = await send(url, 100)
    assert (result.answers, result.errors) == (100, {})
    assert bodies == [PICTURE] * 100
    assert 0 < result.p50_ms <= result.p90_ms <= result.p99_ms <= result.max_ms


async def test_each_client_keeps_its_connection() -> None:
    connections = itertools.count()
    async with server(lambda *_: OK, lambda: next(connections)) as url:
        result = await send(url, 100)
    assert (result.answers, next(connections)) == (100, 4)


async def test_a_503_is_no_answer() -> None:
    async with server(lambda number, _: BUSY if number % 5 == 0 else OK) as url:
        result = await send(url, 100)
    assert (result.answers, result.errors) == (80, {"503": 20})


async def test_a_connection_that_is_closed_instead_of_answered_is_an_error_and_is_replaced() -> None:
    async with server(lambda number, _: HANG_UP if number % 10 == 0 else OK) as url:
        result = await send(url, 100)
    assert (result.answers, result.errors) == (90, {"closed": 10})


async def test_a_connection_that_is_closed_after_its_answer_is_no_error() -> None:
    async with server(lambda *_: ENDING) as url:
        result = await send(url, 20)
    assert (result.answers, result.errors) == (20, {})


async def test_an_answer_in_pieces_is_put_together() -> None:
    async with server(lambda *_: CHUNKED) as url:
        result = await send(url, 20)
    assert (result.answers, result.errors) == (20, {})


async def test_an_answer_to_another_request_is_an_error() -> None:
    async with server(lambda *_: OK) as url:
        result = await send(url, 10, expected=b"another")
    assert (result.answers, result.errors) == (0, {"not the answer to this request": 10})
    assert math.isnan(result.p50_ms)


async def test_what_is_not_http_is_an_error() -> None:
    async with server(lambda *_: b"220 ready for mail\r\n") as url:
        result = await send(url, 3)
    assert (result.answers, result.errors) == (0, {"not HTTP": 3})


async def test_a_request_that_is_never_answered_is_an_error() -> None:
    async with server(lambda number, _: NOTHING if number == 2 else OK) as url:
        given = any_answer(url)
        result = await load(url, given, clients=2, seconds=0.2, patience_s=0.2)
    assert result.errors == {"no answer": 1}
    assert result.answers > 0


async def test_nobody_listening_is_an_error_for_each_request() -> None:
    async with server(lambda *_: OK) as url:
        pass
    result = await send(url, 3)
    assert (result.answers, result.errors) == (0, {"no connection": 3})


async def test_at_a_rate_requests_come_when_they_are_due_and_not_before() -> None:
    times = []
    async with server(lambda *_: times.append(time.perf_counter()) or OK) as url:
        given = any_answer(url)
        started = time.perf_counter()
        result = await load(url, given, clients=2, seconds=0.5, rate_per_s=40)
    assert (result.answers, result.errors) == (20, {})
    assert all(at - started >= number / 40 for number, at in enumerate(sorted(times)))


async def test_at_a_rate_what_waits_for_a_client_counts_from_when_it_was_due() -> None:
    """The first answer is late; a closed loop would see that alone, and nothing of those behind it."""

    async def late(number: int, _: bytes) -> bytes:
        if number == 1:
            await asyncio.sleep(0.5)
        return OK

    async with server(late) as url:
        given = any_answer(url)
        result = await load(url, given, clients=1, seconds=0.5, rate_per_s=40)
    assert result.answers == 20
    assert result.p50_ms > 200


async def test_at_a_rate_what_could_not_be_sent_is_an_error() -> None:
    async with server(lambda number, _: NOTHING if number == 1 else OK) as url:
        given = any_answer(url)
        result = await load(url, given, clients=1, seconds=0.1, rate_per_s=100, patience_s=0.4)
    assert (result.answers, result.errors) == (0, {"no answer": 1, "not sent": 9})


async def test_at_a_rate_a_connection_that_is_closed_while_it_waits_is_replaced() -> None:
    """Nothing was under way on it, so nothing went wrong."""
    async with server(lambda *_: OK, idle_timeout_s=0.05) as url:
        given = any_answer(url)
        result = await load(url, given, clients=2, seconds=0.6, rate_per_s=10)
    assert (result.answers, result.errors) == (6, {})


async def test_at_a_rate_a_connection_that_is_closed_instead_of_answered_is_replaced() -> None:
    async with server(lambda number, _: HANG_UP if number == 1 else OK) as url:
        given = any_answer(url)
        result = await load(url, given, clients=2, seconds=0.1, rate_per_s=200)
    assert (result.answers, result.errors) == (19, {"closed": 1})


async def test_at_a_rate_nobody_listening_is_an_error_for_each_request_when_it_is_due() -> None:
    async with server(lambda *_: OK) as url:
        pass
    started = time.perf_counter()
    result = await load(url, exchanges(url, [PICTURE]), clients=4, seconds=0.3, rate_per_s=10)
    assert (result.answers, result.errors) == (0, {"no connection": 3})
    assert time.perf_counter() - started >= 0.2


def test_query_and_headers_are_part_of_the_request() -> None:
    (one,) = exchanges("http://g:1/predict?model=m", [PICTURE], headers={"X-API-Key": "k"})
    head, _, body = one.request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /predict?model=m HTTP/1.1\r\nHost: g:1\r\n")
    assert head.endswith(b"X-API-Key: k")
    assert body == PICTURE


async def test_a_form_carries_the_picture_in_its_field() -> None:
    bodies = []
    async with server(lambda _, body: bodies.append(body) or OK) as url:
        await load(url, [exchange(url, *form(PICTURE))], clients=1, seconds=30, count=1)
    assert b'name="file"' in bodies[0]
    assert PICTURE in bodies[0]


def test_percentiles_are_values_that_were_measured() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7
    assert percentile([1.0, 2.0], 0.99) == 2


def test_requests_per_second_count_answers_alone() -> None:
    tally = Tally()
    for status, body in ((200, b"mine"), (200, b"mine"), (200, b"yours"), (429, b"mine")):
        tally.came(status, body, b"mine", 5.0)
    tally.failed("closed")
    result = tally.result(seconds=2)
    assert (result.requests_per_s, result.p50_ms, sum(result.errors.values())) == (1.0, 5.0, 3)
