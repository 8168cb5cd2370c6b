"""docs/page.png, for the README: `make screenshot`. In whichever font this system has for its own."""

import io

from PIL import Image

from tests.browser.chromium import chromium, visiting
from tests.browser.looking import expect, expect_example, expect_label
from tests.e2e.services import ROOT, SAMPLES, up

TARGET = ROOT / "docs" / "page.png"
LOOK = {"viewport": {"width": 1240, "height": 1085}, "device_scale_factor": 1.5, "color_scheme": "light"}
SHOWN_BELOW = 4


def main() -> None:
    with (
        up() as (_, url),
        chromium() as browser,
        visiting(browser, url, **LOOK) as (page, _),
    ):
        expect_example(page)
        page.get_by_label("Choose pictures").set_input_files(SAMPLES[:SHOWN_BELOW])
        expect(page.locator("#summary")).to_have_text(f"{SHOWN_BELOW} pictures, all answered")
        page.get_by_role("button", name="Dress photo").click()
        expect_label(page, "dress")
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
        picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
