"""With API keys on: whoever gives one late or a wrong one is not worse off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from gateway.api_keys import digest_of
from tests.browser.chromium import visiting
from tests.browser.looking import expect_label, title
from tests.e2e.services import up

KEY = "mlaas_right"


@pytest.fixture(scope="module")
def guarded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file: Path = tmp_path_factory.mktemp("keys") / "api-keys"
    file.write_text(f"phone {digest_of(KEY)}\n")
    with up(MLAAS_GATEWAY__API_KEYS_FILE=str(file)) as (_, url):
        yield url


@pytest.fixture
def page(browser: Browser, guarded: str) -> Iterator[Page]:
    with visiting(browser, guarded) as (page, console):
        console.expect_status(401)
        yield page


def field(page: Page) -> Locator:
    return page.get_by_label("This service requires an API key")


def give_key(page: Page, key: str) -> None:
    expect(field(page)).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def test_the_models_are_there_once_a_key_is_given_though_not_at_first(page: Page) -> None:
    expect(field(page)).to_be_focused()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Sandal").click()
    give_key(page, "mlaas_wrong")
    expect(page.locator("#key-hint")).to_contain_text("The key was refused")
    expect(page.locator("#model option")).to_have_count(1)
    give_key(page, KEY)
    expect_label(page, "Sandal")
    expect(page.locator("#model option")).to_have_count(2)


def test_no_link_leads_to_a_page_that_wants_a_key(page: Page) -> None:
    models = page.get_by_role("link", name="Models")
    give_key(page, KEY)
    expect(page.locator("#model option")).to_have_count(2)
    expect(models).to_be_hidden()
    page.reload()
    expect(page.locator("#model option")).to_have_count(2)
    expect(models).to_be_hidden()
    expect(page.get_by_role("link", name="Metrics")).to_be_visible()


def test_a_refused_key_is_forgotten_by_who_gives_no_other(page: Page) -> None:
    give_key(page, "mlaas_wrong")
    expect(page.locator("#key-hint")).to_contain_text("The key was refused")
    page.get_by_role("button", name="Cancel").click()
    expect(field(page)).to_be_hidden()
    assert page.evaluate("() => sessionStorage.length") == 0
    page.get_by_role("button", name="Sandal").click()
    expect(page.locator("#key-hint")).to_contain_text("The key is kept until you close this tab")
    page.get_by_role("button", name="Cancel").click()
    expect(title(page)).to_contain_text("API key")
