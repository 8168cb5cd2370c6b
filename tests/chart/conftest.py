"""Where a tool that checks the chart cannot be had, its tests are skipped, unless REQUIRE_CHART is set."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.chart.tools import NotHere


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    with _skipping():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with _skipping():
        yield


@contextmanager
def _skipping() -> Iterator[None]:
    try:
        yield
    except NotHere as error:
        if os.environ.get("REQUIRE_CHART"):
            raise
        pytest.skip(str(error))
