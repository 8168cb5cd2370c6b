"""What is to be seen on the page."""

import io
import re

import numpy as np
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.e2e.services import ROOT

SANDAL = ROOT / "samples" / "sandal.png"
PHOTO = ROOT / "samples" / "photo-dress.jpg"


def title(page: Page) -> Locator:
    """The label of the answer that is shown, or what went wrong."""
    return page.locator("#answer-title")


def expect_label(page: Page, label: str) -> None:
    expect(page.locator("#answer")).to_have_attribute("data-state", "answered")
    expect(title(page)).to_have_text(re.compile(rf"^{re.escape(label)} [\d.]+\s%$"))


def expect_example(page: Page) -> None:
    """What a first visit shows."""
    expect(page.locator(".eyebrow")).to_contain_text("An example")


def history(page: Page) -> Locator:
    return page.locator("#items button")


def file(name: str, content: bytes, media_type: str = "image/png") -> FilePayload:
    return {"name": name, "mimeType": media_type, "buffer": content}


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    written = io.BytesIO()
    image.save(written, form)
    return written.getvalue()


def icon() -> bytes:
    """The sandal in a format that browsers read and the service does not."""
    written = io.BytesIO()
    Image.open(SANDAL).save(written, "ICO", sizes=[(28, 28)])
    return written.getvalue()


def noise() -> bytes:
    """Nothing that anybody wears."""
    pixels = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))
