"""What the README says is what happens."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway import errors
from model import manifest as manifests
from tests.e2e.services import NO_BROKER, PATIENCE_S, ROOT, SAMPLES, Service, label_of, up

pytestmark = pytest.mark.all_models

README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "bench" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Service, str]]:
    with up() as started:
        yield started


def run(command: str, url: str) -> str:
    """As a reader would type it, but for the port and the place of the environment."""
    command = command.replace(".venv/bin/mlaas", f"{sys.executable} -m mlaas")
    for there in ("localhost:8000", "127.0.0.1:8000"):
        command = command.replace(there, url.removeprefix("http://"))
    environment = {**os.environ, "MLAAS_URL": url, **NO_BROKER}
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_lines_answer_with_the_label(running: tuple[Service, str]) -> None:
    curls = [command for command in COMMANDS if command.startswith("curl") and "/predict" in command]
    assert len(curls) == 4
    for command in curls:
        ((photo, name),) = re.findall(r"samples/(photo-)?(\w+)\.(?:png|jpg)", command)
        label = name if photo else name.capitalize()
        assert f'"label":"{label}"' in run(command, running[1])


def test_the_job_lines_end_with_the_results(running: tuple[Service, str]) -> None:
    lines = [command for command in COMMANDS if "/jobs" in command]
    assert len(lines) == 2
    job = json.loads(run("\n".join(lines), running[1]))
    assert job["status"] == "done"
    assert [entry["prediction"]["label"] for entry in job["results"]] == ["Coat", "Shirt"]


def test_the_answer_has_the_fields_that_are_shown(running: tuple[Service, str]) -> None:
    (shown,) = blocks("json")
    answer = run(next(command for command in COMMANDS if command.startswith("curl")), running[1])
    for field in re.findall(r'"(\w+)":', shown):
        assert f'"{field}":' in answer


def test_the_python_lines_print_the_label(running: tuple[Service, str]) -> None:
    (code,) = blocks("python")
    code = code.replace("http://localhost:8000", running[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Dress 0.9") or done.stdout.startswith("Dress 1.0")


def test_the_predict_lines_name_every_sample(running: tuple[Service, str]) -> None:
    predicts = [command for command in COMMANDS if "mlaas predict" in command]
    assert len(predicts) == 2
    lines = "".join(run(command, running[1]) for command in predicts).splitlines()
    found = [(answer["file"], answer["label"]) for answer in map(json.loads, lines)]
    expected = [*SAMPLES, ROOT / "samples" / "sneaker.png"]
    assert found == [(str(sample.relative_to(ROOT)), label_of(sample)) for sample in expected]


def test_doctor_finds_nothing_broken(running: tuple[Service, str]) -> None:
    assert "`.venv/bin/mlaas doctor`" in README
    assert "inside `mlaas up`" in run(".venv/bin/mlaas doctor", running[1])


def test_the_first_answer_is_within_the_first_sixty_lines() -> None:
    first = "\n".join(README.splitlines()[:60])
    assert "make run" in first
    assert '"label": "Sandal"' in first


def test_every_document_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", README))
    assert linked == {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}


def test_every_status_is_in_the_table_of_errors() -> None:
    table = re.findall(r"^\| (\d{3}) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    ours = {kind.status for kind in subclasses(errors.GatewayError)} - {errors.ClientGone.status}
    assert {int(status) for status in table} == ours | {400, 405, 431}


def subclasses(kind: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    for its in kind.__subclasses__():
        yield its
        yield from subclasses(its)


def test_config_show_prints_the_settings(running: tuple[Service, str]) -> None:
    assert "reply_timeout_ms: 30000" in run(".venv/bin/mlaas config show", running[1])
    assert ".venv/bin/mlaas config show" in COMMANDS


def test_the_photo_model_answers_its_golden_pictures(running: tuple[Service, str]) -> None:
    folder = manifests.folder(ROOT / "weights", "clothing-photo")
    for each in manifests.read(folder).golden:
        content = (folder / each.file).read_bytes()
        asked = httpx.post(f"{running[1]}/predict?model=clothing-photo", content=content, timeout=PATIENCE_S)
        answer = asked.json()
        assert (answer["label"], answer["in_distribution"]) == (each.label, None)
        assert answer["confidence"] == pytest.approx(each.probability, abs=0.02)


@pytest.mark.parametrize("name", ["fashion-mnist", "fashion-mnist-large"])
def test_the_accuracy_is_the_shipped_models(name: str) -> None:
    manifest = manifests.read(manifests.folder(ROOT / "weights", name))
    accuracy = f"{manifest.accuracy:.2%}".replace("%", " %")
    assert re.search(rf"`{name}`[^`]*? {accuracy}", README)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make (\w+)", README))))
def test_every_make_target_exists(target: str) -> None:
    subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_file_named_in_the_architecture_exists_and_those_on_the_way_are_counted() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert [name for name in re.findall(r"`([\w/]+\.py)`", page) if not (ROOT / name).is_file()] == []
    way = page.partition("## The way of a picture\n")[2].partition("\n## ")[0]
    (count,) = re.findall(r"in (\d+) files", way)
    steps = "\n".join(re.findall(r"^(?:\d+\. |   ).*", way, re.MULTILINE))
    assert len(set(re.findall(r"`([\w/]+\.py)`", steps))) == int(count)


def test_every_setting_named_in_the_readme_exists(running: tuple[Service, str]) -> None:
    for variable in set(re.findall(r"MLAAS_\w+__\w+=", README)):
        value = {"MLAAS_BROKER__URL=": "kafka://h:1"}.get(variable, "8123")
        run(f"{variable}{value} .venv/bin/mlaas config show", running[1])
