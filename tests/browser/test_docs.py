"""The documentation at /docs, and the calls that it makes."""

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.services import Service


@pytest.mark.parametrize("prefix", ["", "/ml"])
def test_a_call_works_below_any_path_that_a_proxy_takes_away(
    page: Page, running: tuple[Service, str], prefix: str
) -> None:
    url, asked = running[1], []

    def without_prefix(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(response=route.fetch(url=route.request.url.replace(f"{url}{prefix}/", f"{url}/", 1)))

    page.route(f"{url}{prefix}/**", without_prefix)
    page.goto(f"{url}{prefix}/docs")
    page.locator('[data-path="/models"]').click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text('"name": "fashion-mnist"')
    assert f"{url}{prefix}/models" in asked
