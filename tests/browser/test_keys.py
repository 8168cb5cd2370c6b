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
MODELS = 4
"""With the automatic choice."""


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
    expect(page.locator("#model option")).to_have_count(MODELS)


def test_the_models_are_listed_for_who_has_a_key(page: Page) -> None:
    expect(field(page)).to_be_focused()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Models").click()
    give_key(page, KEY)
    listed = page.get_by_role("dialog", name="Models")
    expect(listed.get_by_role("rowheader", name="fashion-mnist default")).to_be_visible()


def test_no_link_leads_to_a_page_that_wants_a_key(page: Page) -> None:
    for link in page.get_by_role("navigation").get_by_role("link").all():
        address = link.evaluate("link => link.href")
        assert page.request.get(address).status == 200, address


def test_after_a_refused_key_the_page_says_what_it_waits_for(page: Page) -> None:
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Sandal").click()
    expect(title(page)).to_have_text("Waiting for an API key")
    expect(page.locator("#answer")).to_contain_text("sandal.png will be sent when you enter a key above.")
    give_key(page, "mlaas_wrong")
    expect(page.locator("#answer")).to_contain_text("The last one was refused.")
    expect(page.locator("#answer")).to_contain_text("will be sent when you enter another key above.")
    expect(page.locator("#items")).to_contain_text("Needs an API key")
    give_key(page, KEY)
    expect_label(page, "Sandal")


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
