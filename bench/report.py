"""The report of a run: rows, figures over the rounds, aims; and the pages that show them."""

import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from deploy.kafka.local_kafka import POM
from mlaas import __version__
from mlaas.commands.bench import Result

KAFKA, EMBEDDED, BARE = "mlaas, Apache Kafka", "mlaas, embedded broker", "bare uvicorn"
CLIENTS = (1, 16, 64, 256)
GARMENTS, MOBILENET = "fashion-mnist", "mobilenet"
"""The models: the shipped one, for 28 x 28 pixels, and an untrained one for 224 x 224 x 3."""

ROOT = Path(__file__).parents[1]
RESULTS = Path("bench", "results")
JSON = RESULTS / "bench.json"
REQUIREMENTS = ROOT / "bench" / "peers" / "requirements"
START, END = "<!-- written by bench.run from results/bench.json -->", "<!-- end of what is written -->"

Body = Literal["raw", "form", "oip", "json"]
"""How a picture is sent: as the body, in a multipart field, in base64 by the Open Inference Protocol, or in
base64 in a JSON list named `pictures`."""

Rounds = Mapping[int, float]
"""Values by round."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A load on a system. clients have one request in flight each; 0 if requests come at a rate."""

    system: str
    workers: int = 1
    body: Body = "raw"
    clients: int = 0
    rate_per_s: float = 0.0
    generator: str = "wrk"
    model: str = GARMENTS


class Cell(msgspec.Struct, frozen=True):
    """The result of a case in one round."""

    result: Result
    cpu_ms: dict[str, float]
    seconds: float


class Figure(msgspec.Struct, frozen=True):
    """A value over the rounds, which are kept for ratios within each round."""

    median: float
    least: float
    most: float
    rounds: dict[int, float]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A case over all rounds: max_ms is the worst of all, errors are summed, quantiles_ms are medians.

    cpu_ms is per request, by role. generator_cores is the number of cores that the load generator used.
    """

    case: Case
    requests_per_s: Figure
    p50_ms: Figure
    p99_ms: Figure
    max_ms: float
    answers: int
    errors: dict[str, int]
    quantiles_ms: list[float]
    cpu_ms: dict[str, Figure]
    generator_cores: float


class Failed(msgspec.Struct, frozen=True):
    """A measurement that failed."""

    system: str
    round: int
    reason: str


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """efficiency is relative to `workers` times one; busiest and idlest are partitions over the mean."""

    workers: int
    requests_per_s: float
    efficiency: float
    busiest: float
    idlest: float


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """value is None if it was not measured. gate is the least that is acceptable; empty: there is none."""

    name: str
    value: Figure | None
    target: str
    met: bool
    gate: str = ""
    gate_met: bool = True


class Ratio(msgspec.Struct, frozen=True):
    """Requests/s of mlaas over Apache Kafka divided by a peer's; None if either was not measured."""

    peer: str
    at_64_clients: Figure | None
    best_of_each: Figure | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """values has single measurements, with units in their names. took_s is for the whole run.

    seconds is for each load, shorter_s for those that no aim is about.
    """

    machine: dict[str, str | int | float]
    versions: dict[str, str]
    command: str
    date: str
    rounds: int
    seconds: float
    took_s: float
    notes: list[str]
    rows: list[Row]
    values: dict[str, Figure]
    scales: list[Scale]
    failed: list[Failed]
    shorter_s: float = 0.0
    ratios: list[Ratio] = []
    aims: list[Aim] = []

    def row(
        self,
        system: str,
        clients: int = 0,
        *,
        body: Body = "raw",
        workers: int = 1,
        rate: float = 0.0,
        model: str = GARMENTS,
    ) -> Row | None:
        """Prefers the row measured by wrk."""
        wanted = (system, clients, body, workers, rate, model)
        return _by_wrk([row for row in self.rows if _key(row.case) == wanted])

    def plainest(self, system: str, clients: int, workers: int = 1) -> Row | None:
        """The row whose body is not a form."""
        wanted = (system, clients, workers)
        return _by_wrk([r for r in self._plain(system) if (system, r.case.clients, r.case.workers) == wanted])

    def best(self, system: str) -> Row | None:
        """The row with the most requests/s, except forms."""
        return max(self._plain(system), key=lambda row: row.requests_per_s.median, default=None)

    def _plain(self, system: str) -> list[Row]:
        """Of the shipped model."""
        of_it = [row for row in self.rows if (row.case.system, row.case.model) == (system, GARMENTS)]
        return [row for row in of_it if row.case.body != "form"]


def _key(case: Case) -> tuple[str, int, Body, int, float, str]:
    return case.system, case.clients, case.body, case.workers, case.rate_per_s, case.model


def _by_wrk(found: Sequence[Row]) -> Row | None:
    return min(found, key=lambda row: row.case.generator != "wrk", default=None)


def figure(rounds: Rounds) -> Figure:
    """Needs at least one value."""
    values = list(rounds.values())
    kept = {number: _rounded(value) for number, value in rounds.items()}
    return Figure(*map(_rounded, (median(values), min(values), max(values))), kept)


def ratio(above: Figure | None, below: Figure | None) -> Figure | None:
    """The ratio within each round, so that drift cancels out. None without a common round."""
    if above is None or below is None:
        return None
    common = [number for number in above.rounds if below.rounds.get(number)]
    rounds = {number: above.rounds[number] / below.rounds[number] for number in common}
    return figure(rounds) if rounds else None


def total(figures: Sequence[Figure | None]) -> Figure | None:
    """The sum within each round; None if a figure is missing."""
    there = [one for one in figures if one is not None]
    if len(there) < len(figures) or not there:
        return None
    common = set.intersection(*(set(one.rounds) for one in there))
    return figure({n: sum(one.rounds[n] for one in there) for n in sorted(common)}) if common else None


def row(case: Case, cells: Mapping[int, Cell]) -> Row:
    results = {number: cell.result for number, cell in cells.items()}
    roles = sorted({role for cell in cells.values() for role in cell.cpu_ms})
    columns = zip(*(result.quantiles_ms for result in results.values()), strict=True)
    return Row(
        case=case,
        requests_per_s=figure({number: result.requests_per_s for number, result in results.items()}),
        p50_ms=figure({number: result.p50_ms for number, result in results.items()}),
        p99_ms=figure({number: result.p99_ms for number, result in results.items()}),
        max_ms=_rounded(max(result.max_ms for result in results.values())),
        answers=sum(result.answers for result in results.values()),
        errors=dict(sum((Counter(result.errors) for result in results.values()), Counter())),
        quantiles_ms=[_rounded(median(values)) for values in columns],
        cpu_ms={role: figure({n: cell.cpu_ms.get(role, 0.0) for n, cell in cells.items()}) for role in roles},
        generator_cores=_rounded(
            median(cell.result.generator_cpu_s / cell.seconds for cell in cells.values())
        ),
    )


def _rounded(value: float) -> float:
    """Four significant digits, more than is reproducible."""
    return float(f"{value:.4g}")


def encode(found: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def read(root: Path) -> Report:
    return msgspec.json.decode((root / JSON).read_bytes(), type=Report)


def between_markers(page: str, text: str) -> str:
    """Replace what is between the markers. Raises ValueError without them."""
    before, _, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"no {START} ... {END}")
    return f"{before}{START}\n\n{text}\n\n{END}{after}"


def write(
    report: Report,
    root: Path,
    plots: Mapping[str, Callable[[Report], bytes]],
    pages: Mapping[Path, Callable[[Report], str]],
) -> None:
    """Write the figures as JSON, the plots, and the generated part of each page."""
    (root / RESULTS).mkdir(exist_ok=True)
    (root / JSON).write_bytes(encode(report))
    for name, plot in plots.items():
        (root / RESULTS / f"{name}.svg").write_bytes(plot(report))
    for path, text in pages.items():
        page = (root / path).read_text(encoding="utf-8")
        (root / path).write_text(between_markers(page, text(report)), encoding="utf-8")


def machine() -> dict[str, str | int | float]:
    """The hardware and system."""
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        system = platform.platform()
    return {
        "cpu": _first(r"model name\s*: (.+)", Path("/proc/cpuinfo")) or platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": system,
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """The software versions."""
    packages = ("confluent-kafka", "onnxruntime", "uvicorn", "fastapi", "uvloop", "httptools")
    return {
        "python": platform.python_version(),
        "mlaas": __version__,
        "apache-kafka": _first(r"<kafka.version>(.+?)<", POM) or "unknown",
        **{name: version(name) for name in packages},
        **{name: version_of(name) for name in ("mosec", "litserve", "bentoml", "ray", "mlserver")},
        "wrk": _wrk(),
    }


def version_of(peer: str) -> str:
    """The pinned version of a peer."""
    lines = (REQUIREMENTS / f"{peer}.txt").read_text().splitlines()
    return next((line.partition("==")[2] for line in lines if line.startswith(f"{peer}==")), "unknown")


def _wrk() -> str:
    try:
        said = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout
    except OSError:
        return "none"
    return said.split()[1] if said.startswith("wrk ") else "unknown"


def _first(pattern: str, file: Path) -> str | None:
    try:
        found = re.search(pattern, file.read_text())
    except OSError:
        return None
    return found[1] if found else None
