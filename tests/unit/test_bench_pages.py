"""What the pages say of speed is what bench/results/bench.json has."""

import pytest

from bench import plots
from bench.report import END, KAFKA, MOBILENET, RESULTS, START, Aim, Failed, between_markers, read, write
from bench.run import PAGES
from bench.tables import markdown
from mlaas.settings import ROOT
from tests.unit.bench_reports import ours, report, row


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_page_says_what_was_measured(path):
    page = (ROOT / path).read_text(encoding="utf-8")
    assert between_markers(page, PAGES[path](read(ROOT))) == page


@pytest.mark.parametrize("name", plots.PLOTS)
def test_a_plot_is_there(name):
    assert (ROOT / RESULTS / f"{name}.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("name", plots.PLOTS)
def test_a_plot_shows_its_figures(name):
    plot = plots.PLOTS[name]

    def drawn(milliseconds):
        low_rate = row("Mosec", 50, clients=0, rate_per_s=50.0)
        low_rate = type(low_rate)(**{**_fields(low_rate), "quantiles_ms": [1.0, 2.0, milliseconds]})
        return plot(report(ours(1000 * milliseconds), row("Mosec", 500, cpu_ms={"server": 1.0}), low_rate))

    assert drawn(7.0) == drawn(7.0)
    if name != "cost":
        assert drawn(7.0) != drawn(9.0)


def test_a_cost_is_stacked_by_part():
    def drawn(cpu_ms):
        return plots.cost(report(ours(1000), row("Mosec", 500, cpu_ms={"server": cpu_ms})))

    assert drawn(1.0) != drawn(2.0)
    assert b"model process" in drawn(1.0)


def test_plots_are_of_the_shipped_model():
    assert plots.systems(report(ours(1000), row("Mosec", 500, model=MOBILENET))) == [KAFKA]


def test_a_gate_and_an_aim_are_shown_with_whether_they_are_met():
    met = Aim(name="so fast", value=None, target=">= 1", met=False, gate=">= 0.8", gate_met=True)
    (line,) = (each for each in markdown(report(aims=[met])).splitlines() if "so fast" in each)
    assert line == "| so fast | not measured | >= 0.8 | yes | >= 1 | **no** |"


def test_what_could_not_be_measured_is_a_row_with_its_reason():
    found = markdown(report(ours(1000), failed=[Failed("Ray Serve", 2, "not installed: no such version")]))
    (line,) = (line for line in found.splitlines() if "Ray Serve" in line)
    assert "round 2: not installed: no such version" in line


def test_only_what_is_between_the_markers_is_written_anew():
    page = f"before\n{START}\n\nold\n\n{END}\nafter\n"
    assert between_markers(page, "new") == f"before\n{START}\n\nnew\n\n{END}\nafter\n"


def test_a_page_without_markers_is_not_written():
    with pytest.raises(ValueError, match="no <!--"):
        between_markers("nothing", "new")


def test_a_written_run_is_read_as_it_was(tmp_path):
    for path in PAGES:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(f"{START}\n{END}\n")
    found = report(ours(1000, 1100), row("Mosec", 500))
    write(found, tmp_path, plots.PLOTS, PAGES)
    assert read(tmp_path) == found
    assert "Mosec" in (tmp_path / "bench" / "README.md").read_text()
    assert "gateways" in (tmp_path / "docs" / "scaling.md").read_text()


def _fields(of):
    return {name: getattr(of, name) for name in of.__struct_fields__}
