"""What cannot be answered, and what cannot be answered yet."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.chromium import Console, visiting
from tests.browser.looking import SANDAL, encoded, expect_example, expect_label, file, icon, title
from tests.e2e.services import SAMPLES, Service, label_of, service, status, until


def problem(title: str, detail: str, status: int) -> str:
    return json.dumps({"title": title, "detail": detail, "status": status, "request_id": "abc"})


def test_what_is_no_picture_is_refused_in_the_services_own_words(visit: tuple[Page, Console]) -> None:
    page, console = visit
    console.expect_status(422)
    page.get_by_label("Choose pictures").set_input_files(file("letter.bin", b"Dear Sir or Madam", ""))
    expect(title(page)).to_have_text("Unreadable picture")
    expect(page.locator("#answer")).to_contain_text("The bytes are not a picture in JPEG, PNG")
    expect(page.locator("#announcer")).to_contain_text("letter.bin: Unreadable picture")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_an_empty_file_is_called_empty_and_not_sent(page: Page) -> None:
    page.get_by_label("Choose pictures").set_input_files(file("nothing.png", b""))
    expect(title(page)).to_have_text("The file is empty")
    expect(page.locator("#answer")).to_contain_text("It has 0 bytes")


def test_who_does_not_want_to_wait_cancels(page: Page) -> None:
    held: list[Route] = []
    page.route(re.compile("/predict"), lambda route: held.append(route))
    page.get_by_role("button", name="Sandal").click()
    expect(title(page)).to_have_text("Classifying")
    expect(page.locator("#answer .muted").first).to_have_text(re.compile(r"^sandal\.png · \d+\.\d s$"))
    page.get_by_role("button", name="Cancel").click()
    expect(title(page)).to_have_text("Cancelled")
    assert len(held) == 1
    page.unroute_all(behavior="ignoreErrors")
    page.get_by_role("button", name="Try again").click()
    expect_label(page, "Sandal")


def test_a_picture_over_the_limit_is_not_sent_and_can_be_made_smaller(page: Page, tmp_path: Path) -> None:
    large = encoded(Image.open(SANDAL).resize((280, 280), Image.Resampling.NEAREST)) + bytes(11_000_000)
    (tmp_path / "huge.png").write_bytes(large)
    page.get_by_label("Choose pictures").set_input_files(tmp_path / "huge.png")
    expect(title(page)).to_have_text("Picture too large")
    expect(page.locator("#answer")).to_contain_text("It has 11.0 MB; at most 4.2 MB are accepted.")
    page.get_by_role("button", name="Shrink and send").click()
    expect_label(page, "Sandal")
    expect(page.locator("#answer")).to_contain_text("made smaller by this page")


def test_what_the_service_reads_is_sent_as_it_is_and_what_the_browser_alone_reads_is_converted(
    visit: tuple[Page, Console],
) -> None:
    page, console = visit
    console.expect_status(422)
    page.get_by_label("Choose pictures").set_input_files(
        file("sandal.gif", encoded(Image.open(SANDAL), "GIF"), "image/gif")
    )
    expect_label(page, "Sandal")
    expect(page.locator("#answer")).not_to_contain_text("by this page")
    page.get_by_label("Choose pictures").set_input_files(file("sandal.ico", icon(), ""))
    expect(page.locator("#answer")).to_contain_text("converted from ICON by this page")
    expect_label(page, "Sandal")
    heic = file("IMG_1.HEIC", b"\0\0\0\x18ftypheic" + bytes(100), "image/heic")
    page.get_by_label("Choose pictures").set_input_files(heic)
    expect(title(page)).to_have_text("Unreadable picture")
    expect(page.locator("#answer")).to_contain_text("HEIC")


def test_a_large_picture_that_the_browser_cannot_read_cannot_be_made_smaller(
    page: Page, tmp_path: Path
) -> None:
    (tmp_path / "huge.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(11_000_000))
    page.get_by_label("Choose pictures").set_input_files(tmp_path / "huge.heic")
    page.get_by_role("button", name="Shrink and send").click()
    expect(title(page)).to_have_text(re.compile("^This browser cannot read HEI[CF]$"))


def test_the_api_key_is_asked_for_kept_and_sent(visit: tuple[Page, Console]) -> None:
    page, console = visit
    console.expect_status(401)
    sent: list[str | None] = []

    def guard(route: Route) -> None:
        given = route.request.headers.get("x-api-key")
        sent.append(given)
        if given == "right":
            return route.continue_()
        detail = "the key is not known" if given else "send a key as X-API-Key"
        route.fulfill(
            status=401,
            content_type="application/problem+json",
            headers={"WWW-Authenticate": "Bearer"},
            body=problem("API key missing or wrong", detail, 401),
        )

    page.route(re.compile("/predict"), guard)
    page.get_by_role("button", name="Sandal").click()
    key = page.get_by_label("This service requires an API key")
    expect(key).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-hint")).to_have_text("The key was refused. The key is not known.")
    expect(key).to_be_focused()
    page.keyboard.type("right")
    page.get_by_role("button", name="Use key").click()
    expect_label(page, "Sandal")
    expect(key).to_be_hidden()
    expect(page.locator("[data-call=curl]")).to_contain_text('-H "X-API-Key: $MLAAS_API_KEY"')
    page.get_by_role("button", name="Bag").click()
    expect_label(page, "Bag")
    assert sent == [None, "wrong", "right", "right"]
    assert "right" not in (page.locator("main").text_content() or "")


def test_who_gives_no_key_is_told_so_and_can_try_again(visit: tuple[Page, Console]) -> None:
    page, console = visit
    console.expect_status(401)
    page.route(
        re.compile("/predict"), lambda route: route.fulfill(status=401, body=problem("No key", "", 401))
    )
    page.get_by_role("button", name="Sandal").click()
    page.get_by_role("button", name="Cancel").click()
    expect(title(page)).to_have_text("No key")
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect_label(page, "Sandal")


@pytest.mark.parametrize("gone", [True, False])
def test_a_sample_that_does_not_come_is_said_not_to(visit: tuple[Page, Console], gone: bool) -> None:
    page, console = visit
    console.expect_unreachable()
    console.expect_status(503)
    page.route(
        re.compile("/samples/"), lambda route: route.abort() if gone else route.fulfill(status=503, body="")
    )
    page.get_by_role("button", name="Sandal").click()
    expect(page.locator("#remark")).to_contain_text("The sample could not be loaded.")
    expect(page.locator("#announcer")).to_contain_text("The sample could not be loaded.")
    page.unroute_all()
    page.get_by_role("button", name="Sandal").click()
    expect_label(page, "Sandal")
    expect(page.locator("#remark")).to_be_hidden()


def test_all_that_wait_are_given_up_by_one_key(visit: tuple[Page, Console]) -> None:
    page, console = visit
    console.expect_status(503)
    calls: list[str] = []

    def down(route: Route) -> None:
        calls.append(route.request.url)
        body = problem("No worker answers", "", 503)
        route.fulfill(status=503, headers={"Retry-After": "600"}, body=body)

    page.route(re.compile("/predict"), down)
    page.get_by_label("Choose pictures").set_input_files(SAMPLES[:6])
    expect(page.locator("#announcer")).to_contain_text("is an answer, or until you press Cancel all.")
    expect(page.locator("#items [data-state=delayed]")).to_have_count(4)
    page.get_by_role("button", name="Cancel all").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_have_text("6 pictures, 0 answered, 6 failed")
    expect(page.locator("#announcer")).to_have_text("6 pictures, 0 answered, 6 failed")
    expect(page.get_by_role("button", name="Cancel all")).to_be_hidden()
    expect(page.locator("#visit-title")).to_be_focused()
    assert len(calls) == 4
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect_label(page, label_of(SAMPLES[0]))


def test_told_to_come_back_later_it_does_so_by_itself(visit: tuple[Page, Console]) -> None:
    page, console = visit
    console.expect_status(429)
    calls: list[str] = []

    def once_too_many(route: Route) -> None:
        calls.append(route.request.url)
        if len(calls) > 1:
            return route.continue_()
        body = problem("Too many requests in flight", "", 429)
        route.fulfill(status=429, headers={"Retry-After": "1"}, body=body)

    page.route(re.compile("/predict"), once_too_many)
    page.get_by_role("button", name="Sandal").click()
    expect_label(page, "Sandal")
    assert len(calls) == 2


def test_without_a_worker_it_says_so_and_goes_on_when_there_is_one(
    browser: Browser, running: tuple[Service, str]
) -> None:
    broker = running[0].wait_for(r"embedded broker at (kafka://\S+)")[1]
    own = {
        "MLAAS_BROKER__URL": broker,
        "MLAAS_TOPICS__REQUESTS": "of.their.own",
        "MLAAS_WORKER__GROUP": "own",
        "MLAAS_GATEWAY__WORKER_SILENCE_MS": "3000",
    }
    with service("gateway", "--port", "0", **own) as gateway:
        url = "http://" + gateway.wait_for(r"listening on (\S+)")[1]
        until(lambda: status(url) == 200, "answering")
        with visiting(browser, url) as (page, console):
            console.expect_status(503)
            expect(page.locator("#notice")).to_contain_text("Not ready yet")
            page.get_by_role("button", name="Sandal").click()
            expect(page.get_by_role("button", name="Try now")).to_be_visible()
            expect(page.locator("#announcer")).to_contain_text("retries until there is an answer")
            expect(page.locator("#answer")).to_contain_text(re.compile(r"png will be sent again in \d s"))
            with service("worker", **own):
                expect_label(page, "Sandal")
                expect(page.locator("#notice")).to_be_hidden()
                expect(page.locator("#model option")).to_have_count(4)
            until(lambda: status(f"{url}/health/ready") == 503, "not ready")
            page.reload()
            expect(page.locator("#notice")).to_contain_text("Not ready yet. No worker has answered")
            with service("worker", **own):
                expect(page.locator("#notice")).to_be_hidden()
                expect_example(page)
