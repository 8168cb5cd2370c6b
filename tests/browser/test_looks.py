"""For every eye, hand and screen; and for those who pay for each byte."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import visiting
from tests.browser.looking import SANDAL, expect_example, expect_label, file, history, noise, title
from tests.e2e.services import SAMPLES, Service

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

FORBID_STORAGE = """for (const name of ["localStorage", "sessionStorage"]) {
  Object.defineProperty(window, name, { get: () => { throw new Error("forbidden"); } });
}"""


def violations(page: Page) -> list[Any]:
    found = Axe().run(page).response["violations"]
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_about(
    browser: Browser, running: tuple[Service, str], scheme: str
) -> None:
    with visiting(browser, running[1], color_scheme=scheme) as (page, console):
        console.expect_status(422)
        expect_example(page)
        assert violations(page) == []
        page.get_by_role("button", name="Models").click()
        expect(page.get_by_role("dialog").get_by_role("table")).to_be_visible()
        assert violations(page) == []
        page.keyboard.press("Escape")
        page.get_by_label("Choose pictures").set_input_files(file("noise.png", noise()))
        expect(page.locator(".warning")).to_be_visible()
        assert violations(page) == []
        page.get_by_label("Choose pictures").set_input_files(file("broken.png", SANDAL.read_bytes()[:90]))
        expect(title(page)).to_have_text("Unreadable picture")
        page.locator("#key-form").evaluate("form => { form.hidden = false }")
        page.locator("#give-up").evaluate("button => { button.hidden = false }")
        page.dispatch_event("h1", "drop", {"dataTransfer": page.evaluate_handle("() => new DataTransfer()")})
        expect(page.locator("#remark")).to_be_visible()
        assert violations(page) == []


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, running: tuple[Service, str]) -> None:
    with visiting(browser, running[1], **PHONE) as (page, _):
        expect_example(page)
        assert width_of(page) == 360
        assert page.evaluate("() => scrollY") == 0
        expect(page.get_by_text("Take a photo")).to_be_visible()
        page.get_by_role("button", name="Sandal").tap()
        expect_label(page, "Sandal")
        expect(title(page)).to_be_in_viewport()
        assert width_of(page) == 360
        expect(page.get_by_role("heading", name="The same call")).to_be_visible()
        expect(page.locator("[data-call=curl]")).to_be_hidden()
        page.get_by_label("Choose pictures").set_input_files(SAMPLES)
        expect(page.locator("#summary")).to_have_text("11 pictures, all answered")
        expect(history(page).first).to_be_in_viewport()
        tops = [row.evaluate("row => row.getBoundingClientRect().top") for row in history(page).all()[:4]]
        assert len(set(tops)) == 1
        history(page).nth(2).tap()
        expect(title(page)).to_be_in_viewport()
        assert width_of(page) == 360


def width_of(page: Page) -> int:
    return int(page.evaluate("() => document.documentElement.scrollWidth"))


def test_dark_is_what_the_system_says_or_what_was_chosen_last(
    browser: Browser, running: tuple[Service, str]
) -> None:
    with visiting(browser, running[1], color_scheme="dark") as (page, _):
        switch = page.get_by_role("button", name="Dark")
        expect(switch).to_have_attribute("aria-pressed", "true")
        dark = background(page)
        switch.click()
        expect(switch).to_have_attribute("aria-pressed", "false")
        assert background(page) != dark
        page.reload()
        expect(switch).to_have_attribute("aria-pressed", "false")
        assert background(page) != dark


def test_a_browser_that_stores_nothing_is_dark_or_light_too(
    browser: Browser, running: tuple[Service, str]
) -> None:
    with visiting(browser, running[1], color_scheme="light") as (page, _):
        page.add_init_script(FORBID_STORAGE)
        page.reload()
        switch = page.get_by_role("button", name="Dark")
        light = background(page)
        switch.click()
        expect(switch).to_have_attribute("aria-pressed", "true")
        assert background(page) != light


def background(page: Page) -> str:
    return str(page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))


def test_the_keyboard_alone_reaches_everything_in_order(page: Page) -> None:
    page.on("filechooser", lambda chooser: chooser.set_files(SANDAL.with_name("bag.png")))
    focused = page.locator("*:focus")
    page.keyboard.press("Tab")
    expect(focused).to_have_text("Skip to the picture")
    page.keyboard.press("Enter")
    expect(focused).to_have_id("file")
    page.keyboard.press("Enter")
    expect_label(page, "Bag")
    expect(focused).to_have_id("file")
    for text in ("T-shirt photo", "Dress photo", "Sandal"):
        page.keyboard.press("Tab")
        expect(focused).to_have_text(text)
    assert focused.evaluate("button => getComputedStyle(button).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect_label(page, "Sandal")
    for text in (
        "Dress",
        "Bag",
        "Boot",
        "Automatic",
        "Download CSV",
        "Sandal",
        "Show all 10",
        "The same call",
        "curl",
    ):
        page.keyboard.press("Tab")
        expect(focused).to_contain_text(text)
    history(page).first.focus()
    page.keyboard.press("ArrowDown")
    expect_label(page, "Bag")
    expect(history(page).last).to_be_focused()
    expect(history(page).last).to_have_attribute("aria-current", "true")


def test_loading_and_asking_transfer_at_most_200_kb(browser: Browser, running: tuple[Service, str]) -> None:
    context = browser.new_context()
    page = context.new_page()
    network = context.new_cdp_session(page)
    received: list[float] = []
    network.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    network.send("Network.enable")
    page.goto(running[1])
    expect_example(page)
    page.get_by_role("button", name="Sandal").click()
    expect_label(page, "Sandal")
    context.close()
    assert len(received) > 15
    assert sum(received) <= 200_000


def test_what_the_policy_forbids_would_fail_these_tests(
    browser: Browser, running: tuple[Service, str]
) -> None:
    with (
        pytest.raises(AssertionError, match="Content Security Policy"),
        visiting(browser, running[1]) as (page, _),
        page.expect_console_message(),
    ):
        page.evaluate("() => document.body.setAttribute('style', 'color: red')")
