"""The same tests over every store of jobs."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.jobs.service import connect
from gateway.jobs.store import Store
from tests.stores.servers import LocalPostgresql

TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Bench:
    """connect() is the store as another gateway has it."""

    url: str
    connect: Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'folder' / 'jobs.sqlite3'}"
    else:
        url = request.getfixturevalue(request.param).url
    made: list[Store] = []

    def connect_one() -> Store:
        made.append(connect(url, TIMEOUT_S))
        return made[-1]

    yield Bench(url, connect_one)
    for store in made:
        store.close()


@pytest.fixture
def store(bench: Bench) -> Store:
    return bench.connect()


@pytest.fixture
def server() -> Iterator[LocalPostgresql]:
    """One of its own for this test."""
    require()
    with LocalPostgresql() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[LocalPostgresql]:
    require()
    with LocalPostgresql() as server:
        yield server


def require() -> None:
    """Skips the test where the server is not installed; REQUIRE_JOB_STORES makes that a failure."""
    reason = LocalPostgresql.missing()
    if reason is not None:
        if os.environ.get("REQUIRE_JOB_STORES"):
            pytest.fail(reason)
        pytest.skip(reason)
