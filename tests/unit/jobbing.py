"""Gateways that take jobs, over a broker in memory and a store in a file."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.app import create_app
from gateway.jobs.service import Jobs
from gateway.request_reply import Requester
from messaging import TopicSettings
from messaging.memory import MemoryBroker
from mlaas.settings import load
from tests.unit.gateways import SANDAL, Worker, gateway_settings, working

DEFAULTS = load(None, {})
PATIENCE_S = 20.0


class Gateway:
    """One of those that share broker and store."""

    def __init__(
        self,
        broker: MemoryBroker,
        store: Path,
        topics: TopicSettings = DEFAULTS.topics,
        **changes: object,
    ) -> None:
        of_gateway = {name: changes.pop(name) for name in list(changes) if hasattr(DEFAULTS.gateway, name)}
        settings = gateway_settings(**of_gateway)
        job_settings = msgspec.structs.replace(
            DEFAULTS.jobs, **{"store": f"sqlite:///{store}", "poll_interval_ms": 10, **changes}
        )
        self.requester = Requester(broker, topics, settings)
        self.jobs = Jobs(broker, topics, job_settings, settings, self.requester)
        self.app = create_app(self.requester, settings, "1", self.jobs)

    @asynccontextmanager
    async def running(self, owner: str = "") -> AsyncIterator[httpx.AsyncClient]:
        """owner: the name of the API key that requests come with."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("state", {})["api_key_name"] = owner
            await self.app(scope, receive, send)

        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            self.app.router.lifespan_context(self.app),
            httpx.AsyncClient(transport=transport, base_url="http://g", timeout=PATIENCE_S) as http,
        ):
            yield http


@asynccontextmanager
async def job_gateway(
    worker: Worker | None,
    folder: Path,
    broker: MemoryBroker | None = None,
    owner: str = "",
    **changes: object,
) -> AsyncIterator[httpx.AsyncClient]:
    broker = broker or MemoryBroker()
    at_work = working(broker, worker) if worker else contextlib.nullcontext()
    with at_work:
        async with Gateway(broker, folder / "jobs.sqlite3", **changes).running(owner) as http:
            while worker and (await http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.005)
            yield http


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    """As form fields, named 0.png and so on."""
    return [("file", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]


async def submit(
    http: httpx.AsyncClient, *contents: bytes, query: str = "", **headers: str
) -> dict[str, Any]:
    response = await http.post(f"/jobs{query}", files=files(*(contents or (SANDAL,))), headers=headers)
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/jobs/{document['id']}"
    return document


async def until_status(http: httpx.AsyncClient, job_id: str, status: str) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_S
    while (document := (await http.get(f"/jobs/{job_id}")).json())["status"] != status:
        assert time.monotonic() < end, document
        await asyncio.sleep(0.01)
    found: dict[str, Any] = document
    return found


def parse(stream: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """id, event and data of each event; comments and retry are left out."""
    for block in stream.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if "event" in fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
