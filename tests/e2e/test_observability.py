"""Rules, alerts and dashboard: what each query finds in a running service, and when alerts fire."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.kafka.local_kafka import free_port
from deploy.observability.generate import DASHBOARD, ROWS, dashboard
from model import serving
from model.serving import Pointer
from tests import second_model
from tests.e2e.services import PNG, ROOT, SAMPLES, predict, until, up

FOLDER = ROOT / "deploy" / "observability"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
MIRRORED = "2.0.0"  # takes each kind of garment for another
# A metric with its labels' conditions, as it stands in a query.
SELECTOR = re.compile(r"\b((?:mlaas[_:]|process_)[a-z0-9_:]*|up(?=\{))(\{[^}]*\})?")

pytestmark = pytest.mark.usefixtures("prometheus")


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that the query finds now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=30).json()
        assert answer["status"] == "success", f"{query}: {answer.get('error')}"
        return list(answer["data"]["result"])

    def values(self, query: str) -> list[float]:
        """Without those that are no numbers, as when nothing is divided by nothing."""
        return [value for its in self.ask(query) if (value := float(its["value"][1])) == value]


@contextmanager
def scraping(folder: Path, ports: Mapping[str, int]) -> Iterator[Prometheus]:
    """Debian's Prometheus with our configuration, but a scrape each second, of these ports by job."""
    settings = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(FOLDER / "rules.yaml")]
    settings["scrape_configs"] = [
        {
            "job_name": its["job_name"],
            "static_configs": [{"targets": [f"127.0.0.1:{ports[its['job_name']]}"]}],
        }
        for its in settings["scrape_configs"]
    ]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yaml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Two gateways and a worker with a shadow, after requests that ended in several ways, twice."""
    ports = {"mlaas-gateway": free_port(), "mlaas-worker": free_port()}
    weights = tmp_path_factory.mktemp("weights")
    answering = second_model.copy_shipped(weights).name
    second_model.add_mirrored(weights, second_model.NAME)
    serving.write(weights, second_model.NAME, Pointer(version=answering, shadow=MIRRORED))
    settings = {
        "MLAAS_MODEL__WEIGHTS_DIR": str(weights),
        "MLAAS_GATEWAY__METRICS_PORT": str(ports["mlaas-gateway"]),
        "MLAAS_WORKER__METRICS_PORT": str(ports["mlaas-worker"]),
    }
    folder = tmp_path_factory.mktemp("prometheus")
    with up("--gateways", "2", **settings) as (_, url), scraping(folder, ports) as prometheus:
        use(url)  # a series is seen to grow only after it was scraped once

        def is_seen() -> bool:
            use(url)
            try:
                growing = (
                    'rate(mlaas_requests_total{code="504"}[5m])',
                    'rate(mlaas_worker_shadow_answers_total{answer="other"}[5m])',
                    "mlaas:predictions:increase1d",
                    "mlaas:failures:ratio_rate6h",
                )
                return all(any(value > 0 for value in prometheus.values(query)) for query in growing)
            except httpx.TransportError:  # it has not started
                return False

        until(is_seen, "Prometheus sees the requests")
        yield prometheus


def use(url: str) -> None:
    for sample in SAMPLES:
        assert predict(url, sample.read_bytes()).status_code == 200
    assert predict(url, b"\x89PNG\r\n\x1a\n broken").status_code in (400, 413, 422)
    assert httpx.get(f"{url}/never-seen").status_code == 404
    named = {"X-Request-ID": "never-seen", "User-Agent": "never-seen"}
    asked = {"model": "never-seen"}
    refused = httpx.post(f"{url}/predict", params=asked, content=b"", headers=named)
    assert refused.status_code in (404, 415, 422)
    late = {**PNG, "X-Request-Timeout-Ms": "1"}
    httpx.post(f"{url}/predict", content=SAMPLES[0].read_bytes(), headers=late, timeout=30)


def test_nothing_fires_while_all_is_well_but_for_the_failures_that_were_asked_for(
    watched: Prometheus,
) -> None:
    firing = {its["metric"]["alertname"] for its in watched.ask('ALERTS{alertstate="firing"}')}
    assert firing <= {"MlaasErrorsFast"}


def test_each_gateway_and_the_worker_are_told_apart(watched: Prometheus) -> None:
    found = {its["metric"]["process"] for its in watched.ask("mlaas_process_up == 1")}
    assert found == {"gateway-1", "gateway-2", "worker-1"}


def test_no_label_has_what_a_request_said(watched: Prometheus, shown: Callable[[str, object], None]) -> None:
    """The path of a request, its model and its id: each would be a series for each value."""
    series = watched.ask('{__name__=~"mlaas_.*"}')
    assert "never-seen" not in json.dumps(series)
    shown("series of two gateways and a worker", len(series))


def test_the_rules_are_right_and_the_alerts_fire_when_they_should(
    shown: Callable[[str, object], None],
) -> None:
    """rules.test.yaml: each alert, its limits, and a quiet day without any."""
    for check in (["check", "rules", FOLDER / "rules.yaml"], ["test", "rules", FOLDER / "rules.test.yaml"]):
        done = subprocess.run(["promtool", *map(str, check)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    shown("alerts that fire where they should, and in no hour of a quiet day", len(ALERTS))


def test_the_quiet_day_would_show_an_alert_that_fires(tmp_path: Path) -> None:
    """One restart of a model process is part of it."""
    rules = (FOLDER / "rules.yaml").read_text()
    assert rules.count("[15m])) > 2") == 1
    (tmp_path / "rules.yaml").write_text(rules.replace("[15m])) > 2", "[15m])) > 0"))
    tests = yaml.safe_load((FOLDER / "rules.test.yaml").read_text())
    tests["tests"] = tests["tests"][:1]
    (tmp_path / "rules.test.yaml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "rules.test.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "MlaasModelRestarts" in done.stdout + done.stderr


def test_every_alert_is_tested_and_explained() -> None:
    tested = {
        each["alertname"]
        for its in yaml.safe_load((FOLDER / "rules.test.yaml").read_text())["tests"]
        for each in its.get("alert_rule_test", ())
        if each["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in ALERTS}
    page = (ROOT / "docs" / "operations.md").read_text()
    anchors = {
        re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))
        for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }
    for rule in ALERTS:
        runbook = rule["annotations"]["runbook"]
        assert runbook.partition("#")[2] in anchors, runbook
        assert rule["alert"].lower() in runbook


def test_the_configuration_for_compose_is_right(tmp_path: Path) -> None:
    for name in ("prometheus.yaml", "rules.yaml"):
        shutil.copy(FOLDER / name, tmp_path)
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_made_from_the_code() -> None:
    assert DASHBOARD.read_text() == dashboard(), "run make observability"


def test_a_shadow_that_always_errs_is_seen_to_agree_never(watched: Prometheus) -> None:
    (panel,) = (its for its in ROWS["Models"] if its.title == "A shadow's answers")
    (agrees,) = watched.ask(panel.queries[0][0])
    assert agrees["metric"] == {"model": second_model.NAME, "version": MIRRORED}
    assert float(agrees["value"][1]) == 0


def test_every_query_of_the_dashboard_and_the_rules_finds_data(
    watched: Prometheus, shown: Callable[[str, object], None]
) -> None:
    """An alert finds nothing while all is well; then what it reads must be there."""
    rows: list[tuple[str, str, int]] = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        rows += [
            ("panel", f"{panel['title']} {target['refId']}", len(watched.values(target["expr"])))
            for target in panel.get("targets", ())
        ]
    rows += [
        ("rule", rule["record"], len(watched.values(rule["expr"]))) for rule in RULES if "record" in rule
    ]
    for rule in ALERTS:
        watched.ask(rule["expr"])
        selectors = {name + (conditions or "") for name, conditions in SELECTOR.findall(rule["expr"])}
        assert selectors, rule["expr"]
        rows.append(("alert", rule["alert"], min(len(watched.values(each)) for each in selectors)))
    for kind, name, found in rows:
        shown(f"{kind:6} {name}", f"{found:4} series")
    assert [row for row in rows if not row[2]] == []
