"""Many pictures at once: finding those to look at, going through them, and saving what was found."""

import csv
import io
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chromium import Console
from tests.browser.looking import SANDAL, expect_label, file, history, noise, title
from tests.e2e.services import SAMPLES, label_of


@pytest.fixture
def many(visit: tuple[Page, Console]) -> Page:
    """The ten samples, one that is no clothing, and one that is broken, under a name like a formula."""
    page, console = visit
    console.expect_status(422)
    given = [file(path.name, path.read_bytes()) for path in SAMPLES]
    others = [file("noise.png", noise()), file("=1+1,.png", SANDAL.read_bytes()[:90])]
    page.get_by_label("Choose pictures").set_input_files([*given, *others])
    expect(page.locator("#summary")).to_have_text("12 pictures, 11 answered, 1 failed")
    return page


def test_those_to_look_at_are_found(many: Page) -> None:
    only = many.get_by_role("button", name="Only doubtful (2)")
    only.click()
    expect(only).to_have_attribute("aria-pressed", "true")
    shown = many.locator("#items button:visible")
    expect(shown).to_have_count(2)
    expect(shown.first).to_contain_text("Probably not clothing")
    expect(shown.last).to_contain_text("Unreadable picture")
    only.click()
    expect(shown).to_have_count(12)


def test_the_arrow_keys_go_through_them(many: Page) -> None:
    history(many).first.focus()
    for path in SAMPLES[1:4]:
        many.keyboard.press("ArrowDown")
        expect_label(many, label_of(path))
    many.keyboard.press("End")
    expect(title(many)).to_have_text("Unreadable picture")
    many.keyboard.press("ArrowDown")
    expect(history(many).last).to_be_focused()
    many.keyboard.press("Home")
    expect_label(many, label_of(SAMPLES[0]))
    expect(many.locator("#items button[tabindex='0']")).to_have_count(1)


def test_the_answer_stays_in_view(many: Page) -> None:
    many.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    history(many).nth(9).click()
    expect_label(many, label_of(SAMPLES[9]))
    expect(title(many)).to_be_in_viewport()


def test_all_is_saved_as_a_table(many: Page, tmp_path: Path) -> None:
    with many.expect_download() as saving:
        many.get_by_role("button", name="Download CSV").click()
    assert saving.value.suggested_filename == "predictions.csv"
    saving.value.save_as(tmp_path / "found.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "found.csv").read_bytes().decode(), newline="")))
    assert [row["label"] for row in rows[:10]] == [label_of(path) for path in SAMPLES]
    assert [row["file"] for row in rows[10:]] == ["noise.png", "'=1+1,.png"]
    assert {row["model"] for row in rows[:11]} == {"fashion-mnist"}
    assert all(float(row["confidence"]) > 0.8 for row in rows[:10])
    assert (rows[10]["in_distribution"], rows[11]["label"]) == ("false", "")
    assert rows[11]["error"].startswith("Unreadable picture: ")
