"""wrk, where it is installed, against a small server; what is sent by it and by others."""

import asyncio
import hashlib
import os
from typing import get_args

import pytest

from bench import load
from bench.report import Body
from bench.run import GROUPS, arguments
from mlaas.commands.bench import Exchange, exchange, exchanges, form
from tests.e2e.services import ROOT, SAMPLES
from tests.unit.http_server import BUSY, OK, server

pytestmark = pytest.mark.anyio


def given(url: str, expected: bytes = b"answer") -> list[Exchange]:
    return [
        Exchange(one.request, expected) for one in exchanges(url, [path.read_bytes() for path in SAMPLES[:2]])
    ]


@pytest.mark.skipif(
    not load.wrk_is_installed() and "REQUIRE_WRK" not in os.environ, reason="needs wrk: apt-get install wrk"
)
async def test_wrk_sends_every_picture_as_it_is_and_counts_answers() -> None:
    bodies = set()
    async with server(lambda number, body: bodies.add(body) or (BUSY if number % 2 else OK)) as url:
        result = await asyncio.to_thread(load.by_wrk, url, given(url), clients=3, seconds=1)
    assert bodies == {path.read_bytes() for path in SAMPLES[:2]}
    assert result.generator == "wrk"
    assert abs(result.answers - result.errors["not 200"]) <= 3
    assert result.quantiles_ms == sorted(result.quantiles_ms)


def test_what_wrk_prints_becomes_a_result() -> None:
    quantiles_us = [1000.0 * step for step in range(101)]
    printed = load.WrkPrinted(1000, 2_000_000, 0, 1, 2, 100, 0, quantiles_us)
    result = load.wrk_result(printed, 0.5)
    assert (result.answers, result.requests_per_s, result.p50_ms, result.p99_ms) == (900, 450, 50, 99)
    assert result.errors == {"not 200": 100, "closed": 3}


@pytest.mark.parametrize("body", get_args(Body))
def test_every_body_expects_the_digest_of_its_picture(body) -> None:
    (one,) = load.exchanges("http://any:1/predict", [SAMPLES[0].read_bytes()], body)
    head, _, content = one.request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(content)}".encode() in head
    assert one.expected == hashlib.sha256(SAMPLES[0].read_bytes()).hexdigest().encode()


def test_a_batch_has_all_of_its_pictures() -> None:
    pictures = [path.read_bytes() for path in SAMPLES]
    found = exchange("http://any:1/predict/batch", *form(*pictures))
    assert all(picture in found.request for picture in pictures)
    assert found.request.count(b'name="file"') == len(pictures)


def test_the_command_that_the_page_shows_is_one() -> None:
    page = (ROOT / "bench" / "README.md").read_text()
    (line,) = (line.strip() for line in page.splitlines() if "-m bench.run --quick" in line)
    chosen = arguments(line.split("bench.run ")[1].split())
    assert chosen.quick
    assert set(chosen.only) < set(GROUPS)
    assert all(f"`{group}`" in page for group in GROUPS)
