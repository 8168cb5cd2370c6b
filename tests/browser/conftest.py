"""For each file of tests one Chromium and one running service.

Not for the whole run: Playwright keeps an event loop running, which tests of coroutines do not bear.
"""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import chromium
from tests.browser.chromium import Console, visiting
from tests.browser.looking import expect_example
from tests.e2e.services import Service, up


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Without Chromium the test is skipped, unless REQUIRE_CHROMIUM is set."""
    reason = chromium.missing()
    if reason is not None:
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(reason)
    with chromium.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def running(browser: Browser) -> Iterator[tuple[Service, str]]:
    with up() as started:
        yield started


@pytest.fixture
def visit(browser: Browser, running: tuple[Service, str]) -> Iterator[tuple[Page, Console]]:
    """The page when its first example is answered."""
    with visiting(browser, running[1]) as (page, console):
        expect_example(page)
        yield page, console


@pytest.fixture
def page(visit: tuple[Page, Console]) -> Page:
    return visit[0]
