"""A real Chromium, and a watch on what its console says."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

_ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
_FAILED = re.compile(r"^Failed to load resource: (?:the server responded with a status of (\d+)|net::(\w+))")

DESKTOP = {"width": 1280, "height": 900}
_PATIENCE_MS = 45_000


def missing() -> str | None:
    """What has to be installed; None where nothing is missing."""
    return None if shutil.which("chromium") else "the page is tested in chromium, which is not installed"


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_ARGUMENTS)
        expect.set_options(timeout=_PATIENCE_MS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def with_camera(browser: Browser) -> Iterator[Browser]:
    """Another one, with a camera that shows a test picture and that every page may use."""
    another = browser.browser_type.launch(
        executable_path=shutil.which("chromium"), args=[*_ARGUMENTS, *_CAMERA]
    )
    try:
        yield another
    finally:
        another.close()


class Console:
    """Its complaints: errors, warnings, and exceptions that nobody caught."""

    def __init__(self, page: Page) -> None:
        self._complaints: list[str] = []
        self._expected: set[str] = set()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._complaints.append(str(error)))

    def expect_status(self, status: int) -> None:
        """The browser itself logs each answer of 400 or more."""
        self._expected.add(str(status))

    def expect_unreachable(self) -> None:
        """As when a route is aborted."""
        self._expected.add("ERR_FAILED")

    @property
    def complaints(self) -> list[str]:
        return [text for text in self._complaints if not self._is_expected(text)]

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self._complaints.append(message.text)

    def _is_expected(self, text: str) -> bool:
        found = _FAILED.match(text)
        return found is not None and (found[1] or found[2]) in self._expected


@contextmanager
def visiting(browser: Browser, url: str, **look: Any) -> Iterator[tuple[Page, Console]]:
    """The page, open in a window of its own. At the end the console must have been silent."""
    context = browser.new_context(**{"viewport": DESKTOP, **look})
    try:
        context.set_default_timeout(_PATIENCE_MS)
        page = context.new_page()
        console = Console(page)
        page.goto(url)
        yield page, console
        assert not console.complaints, console.complaints
    finally:
        context.close()
