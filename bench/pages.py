"""What a run writes: its figures, plots of them, and the pages that show them."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from bench import scaling, tables
from bench.measured import encode
from bench.report import Report

RESULTS = Path("bench", "results")
JSON = RESULTS / "bench.json"
START, END = "<!-- written by bench.run from results/bench.json -->", "<!-- end of what is written -->"

WRITTEN: dict[Path, Callable[[Report], str]] = {
    Path("bench", "README.md"): tables.markdown,
    Path("docs", "scaling.md"): scaling.markdown,
}
"""The pages, with what stands between their markers."""


def write(report: Report, root: Path) -> None:
    from bench import plots

    (root / RESULTS).mkdir(exist_ok=True)
    (root / JSON).write_bytes(encode(report))
    for name, plot in plots.PLOTS.items():
        (root / RESULTS / f"{name}.svg").write_bytes(plot(report))
    for path, text in WRITTEN.items():
        page = (root / path).read_text(encoding="utf-8")
        (root / path).write_text(between_markers(page, text(report)), encoding="utf-8")


def read(root: Path) -> Report:
    return msgspec.json.decode((root / JSON).read_bytes(), type=Report)


def between_markers(page: str, text: str) -> str:
    """The page with the text in place of what was between the markers. Raises ValueError without them."""
    before, _, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"no {START} ... {END}")
    return f"{before}{START}\n\n{text}\n\n{END}{after}"
