"""The ways to give the page a picture, and what it says of it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import Console, visiting, with_camera
from tests.browser.looking import SANDAL, expect_example, expect_label, file, history, icon, noise, title
from tests.e2e.services import ROOT, SAMPLES, Service, label_of

GIVE_TO_DROP = """content => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(content)], "dropped.png", { type: "image/png" }));
  return given;
}"""

WORDS_TO_DROP = """() => {
  const given = new DataTransfer();
  given.setData("text/plain", "a sandal");
  return given;
}"""

PUT_INTO_CLIPBOARD = """async content => {
  const picture = new Blob([new Uint8Array(content)], { type: "image/png" });
  await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
}"""


def test_the_sample_is_one_click_away_and_everything_about_it_is_shown(page: Page) -> None:
    page.get_by_role("button", name="Sandal").click()
    expect_label(page, "Sandal")
    rows = page.get_by_role("table", name="Probability of each kind").locator("tbody tr:visible")
    expect(rows).to_have_count(3)
    page.get_by_role("button", name="Show all 10").click()
    expect(rows).to_have_count(10)
    page.get_by_role("button", name="Show fewer").click()
    expect(rows).to_have_count(3)
    probability = rows.first.get_by_role("cell").inner_text()
    assert re.fullmatch(r"99\.9\d\u00a0%", probability)
    for name in ("Broker, both ways", "Queue", "Batch", "Decode", "Infer", "Browser and network"):
        expect(page.locator(".timings li", has_text=name)).to_contain_text("ms")
    seen = page.get_by_alt_text("What the model saw")
    assert seen.evaluate("image => image.decode().then(() => image.naturalWidth)") == 28
    given = page.get_by_alt_text("Your picture: sandal.png")
    assert given.evaluate("image => image.decode().then(() => image.naturalWidth)") == 28
    expect(page.locator("#announcer")).to_have_text(f"sandal.png: Sandal, {probability}")


def test_a_file_is_chosen(page: Page) -> None:
    page.get_by_label("Choose pictures").set_input_files(ROOT / "samples" / "coat.png")
    expect_label(page, "Coat")


def test_a_picture_is_dropped_anywhere(page: Page) -> None:
    given = page.evaluate_handle(GIVE_TO_DROP, list(SANDAL.read_bytes()))
    page.dispatch_event("h1", "drop", {"dataTransfer": given})
    expect_label(page, "Sandal")
    expect(history(page)).to_contain_text("dropped.png")


def test_a_picture_is_pasted(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(PUT_INTO_CLIPBOARD, list(SANDAL.read_bytes()))
    page.keyboard.press("Control+V")
    expect_label(page, "Sandal")


def test_what_is_no_picture_is_said_to_be_none_until_the_next_thing_is_done(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("() => navigator.clipboard.writeText('a sandal')")
    page.keyboard.press("Control+V")
    remark = page.locator("#remark")
    expect(remark).to_be_visible()
    expect(remark).to_have_text("The clipboard contains no picture.")
    page.dispatch_event("h1", "drop", {"dataTransfer": page.evaluate_handle(WORDS_TO_DROP)})
    expect(remark).to_have_text("You dropped something other than a file.")
    expect(page.locator("#announcer")).to_have_text("You dropped something other than a file.")
    page.get_by_role("button", name="Sandal").click()
    expect(remark).to_be_hidden()
    expect_label(page, "Sandal")


def test_of_ten_pictures_the_broken_one_fails_alone(visit: tuple[Page, Console]) -> None:
    page, console = visit
    console.expect_status(422)
    samples = [file(path.name, path.read_bytes()) for path in SAMPLES]
    samples[3]["buffer"] = samples[3]["buffer"][:100]
    page.get_by_label("Choose pictures").set_input_files(samples)
    expect(page.locator("#summary")).to_have_text("10 pictures, 9 answered, 1 failed")
    expect(page.locator("#announcer")).to_have_text("10 pictures, 9 answered, 1 failed")
    expect(page.get_by_role("progressbar")).to_be_hidden()
    for index, path in enumerate(SAMPLES):
        shown = "Unreadable picture" if index == 3 else label_of(path)
        expect(history(page).nth(index)).to_contain_text(shown)
    history(page).nth(3).click()
    expect(title(page)).to_have_text("Unreadable picture")
    expect(page.locator("#answer")).to_contain_text("The PNG picture is cut off")
    history(page).nth(8).click()
    expect_label(page, label_of(SAMPLES[8]))
    expect(history(page).nth(8)).to_have_attribute("aria-current", "true")
    expect(page.locator("#items [aria-current=true]")).to_have_count(1)


def test_what_is_no_clothing_is_answered_with_a_warning(page: Page) -> None:
    page.get_by_label("Choose pictures").set_input_files(file("noise.png", noise()))
    expect(title(page)).to_have_text("Probably not clothing")
    expect(page.locator(".guess")).to_contain_text("Best guess:")
    expect(page.locator(".warning")).to_contain_text("does not look like the clothing that the model knows")
    expect(history(page)).to_contain_text("uncertain")
    expect(history(page)).to_contain_text("Probably not clothing")
    expect(page.locator("#announcer")).to_contain_text("noise.png: Probably not clothing; best guess: ")
    expect(page.locator("#announcer")).to_contain_text("does not look like")


def test_another_model_and_kind_are_asked_for_and_the_first_answer_stays(page: Page) -> None:
    page.get_by_role("button", name="Dress", exact=True).click()
    expect_label(page, "Dress")
    again = page.get_by_role("button", name="Classify again with these options")
    expect(again).to_be_hidden()
    expect(page.get_by_role("combobox", name="Kind of picture")).to_be_hidden()
    page.get_by_role("combobox", name="Model").select_option("fashion-mnist-large")
    page.get_by_role("combobox", name="Kind of picture").select_option("raw28")
    again.click()
    expect(page.locator("#answer .about")).to_contain_text("fashion-mnist-large")
    expect(history(page)).to_have_count(2)
    expect(page.locator("[data-call=curl]")).to_contain_text(
        "model=fashion-mnist-large&mode=raw28&explain=input"
    )
    history(page).last.click()
    expect(page.locator("#answer .about")).not_to_contain_text("large")


def code(page: Page, call: str) -> str:
    return page.locator(f"[data-call={call}]").text_content() or ""


def test_the_lines_give_the_same_label_when_they_are_run(page: Page) -> None:
    page.get_by_role("button", name="Sandal").click()
    expect_label(page, "Sandal")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy curl").click()
    expect(page.locator("#announcer")).to_have_text("curl copied")
    curl = page.evaluate("() => navigator.clipboard.readText()")
    assert curl == code(page, "curl")
    assert json.loads(run(["bash", "-c", curl]))["label"] == "Sandal"
    assert run([sys.executable, "-c", code(page, "python")]).startswith("Sandal 0.99")
    shown = json.loads(code(page, "json"))
    assert (shown["label"], shown["input"][-1]) == ("Sandal", "…")


@pytest.mark.skipif(
    shutil.which("node") is None, reason="Node.js, which runs the JavaScript lines, is not installed"
)
def test_the_javascript_lines_give_the_same_label_when_they_are_run(page: Page) -> None:
    page.get_by_role("button", name="Dress photo").click()
    expect_label(page, "dress")
    said = run(["node", "--input-type=module", "-e", code(page, "javascript")])
    assert said.startswith("dress 0.9")


def test_one_tab_of_code_is_open_and_stays_so_for_the_next_picture(page: Page) -> None:
    tabs = page.get_by_role("tablist", name="The same call")
    expect(tabs.get_by_role("tab", selected=True)).to_have_text("curl")
    tabs.get_by_role("tab", name="curl").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("*:focus")).to_have_text("Python")
    expect(page.get_by_role("tabpanel")).to_have_count(1)
    expect(page.get_by_role("tabpanel", name="Python")).to_contain_text("client.predict(")
    page.keyboard.press("End")
    page.get_by_role("button", name="Sandal").click()
    expect_label(page, "Sandal")
    expect(page.get_by_role("tabpanel", name="JSON")).to_contain_text('"label": "Sandal"')


def test_a_file_with_a_dreadful_name_is_quoted_so_that_it_is_found(page: Page, tmp_path: Path) -> None:
    path = tmp_path / """it's; a \\ "sandal", $HOME.png"""
    path.write_bytes(SANDAL.read_bytes())
    page.get_by_label("Choose pictures").set_input_files(path)
    expect_label(page, "Sandal")
    assert json.loads(run(["bash", "-c", code(page, "curl")], tmp_path))["label"] == "Sandal"
    assert run([sys.executable, "-c", code(page, "python")], tmp_path).startswith("Sandal")


@pytest.mark.parametrize("name", ["it's.ico", "sandal.png"])
def test_what_was_converted_is_saved_and_the_lines_are_for_that(
    page: Page, tmp_path: Path, name: str
) -> None:
    page.get_by_label("Choose pictures").set_input_files(file(name, icon(), "image/x-icon"))
    expect_label(page, "Sandal")
    with page.expect_download() as saving:
        page.get_by_role("link", name="Save").click()
    saved = saving.value.suggested_filename
    assert saved != name
    saving.value.save_as(tmp_path / saved)
    assert json.loads(run(["bash", "-c", code(page, "curl")], tmp_path))["label"] == "Sandal"


def run(command: list[str], folder: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_picture_is_taken_with_the_webcam_where_there_is_one(
    browser: Browser, running: tuple[Service, str]
) -> None:
    with with_camera(browser) as another, visiting(another, running[1]) as (page, _):
        expect_example(page)
        page.get_by_role("button", name="Use the camera").click()
        dialog = page.get_by_role("dialog", name="Take a picture")
        expect(dialog.locator("video")).to_be_visible()
        expect(dialog).to_contain_text("No picture is sent until you take it")
        dialog.get_by_role("button", name="Take it").click()
        expect(dialog).to_be_hidden()
        expect(page.get_by_alt_text("Your picture: camera.jpg")).to_be_visible()
        expect(page.locator("#answer")).to_have_attribute("data-state", "answered")
        expect(page.locator("#answer .about")).to_contain_text("clothing-photo")
        assert page.locator("video").evaluate("view => view.srcObject") is None


def test_the_camera_is_closed_with_the_dialog_and_not_asked_for_before(
    browser: Browser, running: tuple[Service, str]
) -> None:
    with with_camera(browser) as another, visiting(another, running[1]) as (page, _):
        expect(page.get_by_role("button", name="Use the camera")).to_be_visible()
        assert page.locator("video").evaluate("view => view.srcObject") is None
        page.get_by_role("button", name="Use the camera").click()
        expect(page.get_by_role("button", name="Take it")).to_be_focused()
        track = page.evaluate_handle("() => document.querySelector('video').srcObject.getTracks()[0]")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert track.evaluate("track => track.readyState") == "ended"


def test_without_a_webcam_none_is_offered(page: Page) -> None:
    expect(page.get_by_role("button", name="Use the camera")).to_be_hidden()
