"""Which model a picture is for, as the page or the user chooses."""

import json

import pytest
from PIL import Image, ImageOps
from playwright.sync_api import FilePayload, Page, Route, expect

from tests.browser.looking import PHOTO, SANDAL, encoded, expect_example, expect_label, file, title

SAMPLE = Image.open(SANDAL)


def chosen(page: Page, model: str, why: str) -> None:
    expect(page.locator("#answer .about")).to_contain_text(model)
    expect(page.locator("#answer .about")).to_contain_text(why)


def test_the_first_visit_shows_an_answered_photo_until_a_picture_is_given(page: Page) -> None:
    expect(title(page)).to_contain_text("t-shirt")
    chosen(page, "clothing-photo", "because this looks like a photo")
    assert page.get_by_alt_text("What the model saw").evaluate(
        "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    ) == [224, 224]
    expect(page.locator("#visit")).to_be_hidden()
    page.get_by_role("button", name="Bag").click()
    expect_label(page, "Bag")
    expect(page.locator(".eyebrow")).to_have_count(0)
    expect(page.locator("#summary")).to_have_text("1 picture, answered")


def test_a_photo_goes_to_the_model_for_photos(page: Page) -> None:
    page.get_by_label("Choose pictures").set_input_files(PHOTO)
    expect_label(page, "dress")
    chosen(page, "clothing-photo", "because this looks like a photo")
    expect(page.locator("[data-call=curl]")).to_contain_text("model=clothing-photo")


@pytest.mark.parametrize(
    ("given", "model"),
    [
        (file("small.png", SANDAL.read_bytes()), "fashion-mnist"),
        (file("enlarged.png", encoded(SAMPLE.resize((280, 280)))), "fashion-mnist"),
        (file("enlarged.jpg", encoded(SAMPLE.resize((280, 280)), "JPEG"), "image/jpeg"), "fashion-mnist"),
        (file("on-white.png", encoded(ImageOps.invert(SAMPLE).resize((280, 280)))), "clothing-photo"),
        (file("wide.png", encoded(SAMPLE.resize((280, 200)))), "clothing-photo"),
        (file("red.png", encoded(Image.new("RGB", (28, 28), "red"))), "fashion-mnist"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_the_picture_decides_as_for_the_command(page: Page, given: FilePayload, model: str) -> None:
    page.get_by_label("Choose pictures").set_input_files(given)
    expect(page.get_by_alt_text(f"Your picture: {given['name']}")).to_be_visible()
    expect(page.locator("#answer .about b")).to_have_text(model)


def test_the_user_may_choose_any_model_of_pictures(page: Page) -> None:
    options = page.locator("#model option")
    expect(options).to_have_count(4)
    expect(options.first).to_have_text("Automatic, by the picture")
    page.get_by_role("combobox", name="Model").select_option("fashion-mnist")
    page.get_by_role("button", name="Dress photo").click()
    expect(page.locator("#answer .about b")).to_have_text("fashion-mnist")
    expect(page.locator("#answer .about")).not_to_contain_text("because")
    page.get_by_role("combobox", name="Model").select_option("")
    page.get_by_role("button", name="Classify again with these options").click()
    expect(page.locator("#answer .about b")).to_have_text("clothing-photo")


def test_models_of_numbers_and_what_cannot_be_served_are_listed_but_not_offered(page: Page) -> None:
    def with_another(route: Route) -> None:
        answer = route.fetch()
        numbers = {"name": "prices", "version": "1.0", "kind": "tensor", "shape": [13], "accuracy": None}
        problem = {"version": "2.0", "share_percent": 0, "problem": "no weights"}
        broken = {"name": "flowers", "version": "2.0", "kind": "", "accuracy": None, "versions": [problem]}
        models = [numbers, *answer.json()["models"], broken]
        route.fulfill(response=answer, body=json.dumps({"models": models}))

    page.route("**/models", with_another)
    page.reload()
    expect_example(page)
    expect(page.locator("#model option")).to_have_count(4)
    page.get_by_role("button", name="Models").click()
    listed = page.get_by_role("dialog", name="Models").get_by_role("row")
    expect(listed).to_have_count(6)
    expect(listed.last).to_have_text("flowers2.0Not served: no weights")
    expect(listed.nth(1)).to_contain_text("prices1.0numbers")
    expect(listed.filter(has_text="default")).to_contain_text("fashion-mnist")
    expect(listed.filter(has_text="clothing-photo")).to_contain_text("pictures, 224 × 224")
    expect(listed.filter(has_text="clothing-photo")).to_contain_text("10 kinds: dress, hat")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_what_is_unlike_the_training_pictures_is_said_in_the_words_of_the_model(page: Page) -> None:
    def unlike(route: Route) -> None:
        answer = route.fetch()
        doubted = {"in_distribution": False, "ood_score": 3.2, "warnings": ["unlike"]}
        route.fulfill(response=answer, body=json.dumps(answer.json() | doubted))

    page.route("**/predict*", unlike)
    page.get_by_role("button", name="Dress photo").click()
    expect(title(page)).to_have_text("Unlike the training pictures")
    expect(page.locator(".guess")).to_contain_text("Best guess: dress")
