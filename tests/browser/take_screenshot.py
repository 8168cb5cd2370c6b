"""The pictures of the README and the docs: `make screenshot`. In whichever fonts this system has.

docs/page.png: the page. docs/terminal.png: the command. docs/trace.png: the trace of a call.
"""

import html
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser
from rich.console import Console
from rich.text import Text

from tests.browser.chromium import chromium, visiting
from tests.browser.looking import expect, expect_example, expect_label
from tests.e2e.otlp import Recorded, receiving
from tests.e2e.services import PATIENCE_S, ROOT, SAMPLES, until, up

DOCS = ROOT / "docs"
LOOK = {"viewport": {"width": 1240, "height": 1085}, "device_scale_factor": 1.5, "color_scheme": "light"}
SHOWN_BELOW = 4

COMMANDS = (
    "mlaas predict --model auto samples/photo-*.jpg samples/bag.png samples/sandal.png",
    "mlaas models",
)
COLUMNS = 100
TERMINAL = """
<body style="margin: 0; background: #fff">
<pre id="shot" style="margin: 0; padding: 20px 24px; display: inline-block; background: #101418;
 color: #e6e6e6; font: 15px/1.45 monospace; border-radius: 8px">{code}</pre></body>
"""

TRACE_ID = f"{1:032x}"
SPANS = 7
TRACE = """
<style>
body {{ margin: 0; background: #fff; font: 14px sans-serif }}
#shot {{ width: 900px; padding: 16px }}
.row {{ display: flex; align-items: center; height: 30px }}
.name {{ width: 230px }}
.way {{ flex: 1; position: relative; height: 18px; background: #f3f3f0 }}
.bar {{ position: absolute; height: 18px; min-width: 2px; border-radius: 3px }}
.ms {{ width: 80px; text-align: right; color: #555 }}
</style>
<div id="shot">{rows}</div>
"""
ROW = """
<div class="row"><div class="name">{name}</div>
<div class="way">
<div class="bar" style="left: {left:.2%}; width: {width:.2%}; background: {colour}"></div></div>
<div class="ms">{ms:.2f} ms</div></div>
"""
COLOURS = {"mlaas-gateway": "#2446c8", "mlaas-worker": "#d97706"}


def main() -> None:
    with chromium() as browser, receiving() as receiver, up(**receiver.environment) as (_, url):
        save(of_page(browser, url), DOCS / "page.png")
        save(of_terminal(browser, url), DOCS / "terminal.png")
        ask_traced(url)
        until(lambda: len(receiver.of(TRACE_ID)) == SPANS, "the trace")
        save(of_trace(browser, receiver.of(TRACE_ID)), DOCS / "trace.png")


def save(shot: bytes, path: Path) -> None:
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def of_page(browser: Browser, url: str) -> bytes:
    with visiting(browser, url, **LOOK) as (page, _):
        expect_example(page)
        page.get_by_label("Choose pictures").set_input_files(SAMPLES[:SHOWN_BELOW])
        expect(page.locator("#summary")).to_have_text(f"{SHOWN_BELOW} pictures, all answered")
        page.get_by_role("button", name="Dress photo").click()
        expect_label(page, "dress")
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
        return page.screenshot()


def of_terminal(browser: Browser, url: str) -> bytes:
    """The commands, and what they print on a terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for command in COMMANDS:
        console.print(Text(f"$ {command}", "bold"), Text.from_ansi(on_terminal(command, url)), sep="\n")
    return shot_of(browser, console.export_html(inline_styles=True, code_format=TERMINAL))


def on_terminal(command: str, url: str) -> str:
    run = command.replace("mlaas", f"{shlex.quote(sys.executable)} -m mlaas", 1)
    done = subprocess.run(
        ["script", "-qec", f"stty cols {COLUMNS}; {run}", "/dev/null"],
        cwd=ROOT,
        env={**os.environ, "MLAAS_URL": url},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout.replace("\r", "")


def ask_traced(url: str) -> None:
    """Twice: the first picture of a kind starts a decoder."""
    photo = (ROOT / "samples" / "photo-dress.jpg").read_bytes()
    for trace_id in (f"{2:032x}", TRACE_ID):
        headers = {"traceparent": f"00-{trace_id}-{1:016x}-01", "Content-Type": "image/jpeg"}
        query = {"model": "clothing-photo"}
        asked = httpx.post(f"{url}/predict", params=query, content=photo, headers=headers, timeout=PATIENCE_S)
        asked.raise_for_status()


def of_trace(browser: Browser, spans: list[Recorded]) -> bytes:
    """Each span as a bar on the way of the first one."""
    ordered = sorted(spans, key=lambda span: (span.began_ns, -span.ended_ns))
    began, whole = ordered[0].began_ns, max(span.ended_ns for span in spans) - ordered[0].began_ns
    rows = "".join(
        ROW.format(
            name=html.escape(span.name),
            left=(span.began_ns - began) / whole,
            width=(span.ended_ns - span.began_ns) / whole,
            colour=COLOURS[span.service],
            ms=(span.ended_ns - span.began_ns) / 1e6,
        )
        for span in ordered
    )
    return shot_of(browser, TRACE.format(rows=rows))


def shot_of(browser: Browser, content: str) -> bytes:
    page = browser.new_page(device_scale_factor=1.5, viewport={"width": 1240, "height": 800})
    page.set_content(content)
    shot = page.locator("#shot").screenshot()
    page.close()
    return shot


if __name__ == "__main__":
    main()
