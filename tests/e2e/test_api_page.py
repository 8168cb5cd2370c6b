"""docs/api.md: everything that it shows, typed as it stands there."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import click
import pytest

from mlaas.cli import command
from mlaas_client import errors
from tests.e2e.services import ROOT, SAMPLES, Service, label_of, up

pytestmark = pytest.mark.all_models

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}

Run = Callable[[str], str]


def blocks(section: str) -> list[tuple[str, str]]:
    """Language and text of each."""
    return re.findall(r"^```(\w+)\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Service, str]]:
    with up() as started:
        yield started


@pytest.fixture(scope="module")
def shell(running: tuple[Service, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs text as a reader would, but for the port and the broker. `mlaas` is the one of this checkout."""
    service, url = running
    commands = tmp_path_factory.mktemp("bin")
    script = commands / "mlaas"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m mlaas "$@"\n')
    script.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "MLAAS_URL": url,
        "MLAAS_BROKER__URL": service.wait_for(r"embedded broker at (kafka://\S+)")[1],
    }
    shown = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}

    def run(language: str, text: str) -> str:
        text = text.replace("localhost:8000", url.removeprefix("http://"))
        done = subprocess.run(
            [*shown[language], text], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def typed(shell: Callable[..., str]) -> Run:
    return lambda section: "\n".join(
        shell(language, text) for language, text in blocks(section) if language != "json"
    )


def test_every_call_is_shown_in_all_three_ways() -> None:
    for section in SECTIONS.keys() - {"How much it takes", "Straight onto the broker"}:
        text = "".join(text for _, text in blocks(section))
        assert re.search(r"\bcurl ", text), section
        assert re.search(r"^mlaas |^MLAAS_API_KEY=\S+ mlaas |\$\(mlaas ", text, re.MULTILINE), section
        assert "python" in [language for language, _ in blocks(section)], section


def test_predict(typed: Run) -> None:
    printed = typed("Predict")
    assert '"label":"Sandal"' in printed
    assert '"label":"Bag"' in printed
    assert re.search(r"^Sandal 0\.9\d+ \[\]$", printed, re.MULTILINE)
    assert '{"file": "-", "label": "Bag"' in printed
    assert '"label":"dress"' in printed
    assert "\nt-shirt\n" in printed
    entries = [json.loads(line) for line in printed.splitlines() if line.startswith('{"file": "samples')]
    assert [(entry["label"], entry["model"]) for entry in entries[-2:]] == [
        ("Bag", "fashion-mnist"),
        ("dress", "clothing-photo"),
    ]


def test_many_at_once(typed: Run) -> None:
    printed = typed("Many at once")
    assert "samples/coat.png Coat\nsamples/no-such.png failed\nsamples/dress.png Dress\n" in printed
    entries = [json.loads(line) for line in printed.splitlines() if line.startswith('{"file"')]
    photos = {"samples/photo-dress.jpg": "dress", "samples/photo-t-shirt.jpg": "t-shirt"}
    assert {entry["file"]: entry["label"] for entry in entries} == photos | {
        str(sample.relative_to(ROOT)): label_of(sample) for sample in SAMPLES
    }
    assert len(entries) == 2 * len(SAMPLES) + len(photos)


def test_jobs(typed: Run) -> None:
    assert [language for language, _ in blocks("Jobs")] == ["sh", "python", "sh"]
    printed = typed("Jobs")
    assert "done ['Bag', 'Coat']" in printed
    assert "event: done" in printed
    entries = [json.loads(line) for line in printed.splitlines() if line.startswith('{"file"')]
    assert [entry["label"] for entry in entries] == ["Bag", "Coat"] * 2


def test_models(typed: Run) -> None:
    printed = typed("Models")
    assert '{"models":[{"name":"fashion-mnist"' in printed
    assert re.search(r"^fashion-mnist \S+ 0\.9\d+ default$", printed, re.MULTILINE)
    assert printed.count('{"name": "fashion-mnist') == 2


def test_health(typed: Run) -> None:
    printed = typed("Health")
    assert '{"status":"live"}{"status":"ready"}\nready\n' in printed
    assert "FAILED" not in printed
    assert re.search(r"^ok +round trip +fashion-mnist", printed, re.MULTILINE)


def test_errors(typed: Run) -> None:
    printed = typed("Errors")
    assert '"type":"urn:mlaas:problem:not-a-picture"' in printed
    assert re.search(r"not a picture in JPEG, PNG, .* or HEIC 422 \w{32}$", printed, re.MULTILINE)
    assert '"label": "Bag"' in printed
    assert printed.endswith("some have no answer\n")


def test_the_table_of_errors_has_every_error_of_the_client() -> None:
    listed = set(re.findall(r"^\| [\w, ]+ \| `(\w+)` \|", SECTIONS["Errors"], re.MULTILINE))
    assert listed == {
        kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.MlaasError) and kind is not errors.MlaasError
    }


def test_deadlines(typed: Run) -> None:
    printed = typed("Deadlines")
    assert re.search(r"^\d+\.\d+$", printed, re.MULTILINE)
    assert printed.count("Sandal") >= 2


def test_the_same_job_twice(typed: Run) -> None:
    printed = typed("The same job twice")
    assert printed.lower().count("idempotent-replayed: true") == 1
    first, again = re.findall(r'"id":"(\w{32})"', printed)
    assert first == again
    assert "Bag\n" in printed


def test_api_keys(typed: Run) -> None:
    assert typed("API keys").count("Bag") >= 3


def test_how_much_it_takes(typed: Run) -> None:
    closed, open_ = map(json.loads, typed("How much it takes").splitlines())
    assert closed["answers"] > 0
    assert (open_["answers"], open_["rate_per_s"], open_["errors"]) == (40, 20, {})


def test_send_waits_for_the_answers_or_receive_prints_them(shell: Callable[..., str]) -> None:
    send_and_wait, receive, send = re.findall(
        r"^    (mlaas .*?)(?: &)?$", SECTIONS["Straight onto the broker"], re.MULTILINE
    )
    assert shell("sh", send_and_wait).count('"probabilities"') == 2
    listening = "until grep -q listening $LOG; do sleep 0.1; done"
    script = f"export LOG=$(mktemp); {receive} 2>$LOG & {listening}; {send} >/dev/null; wait $!"
    assert '"probabilities"' in shell("sh", script)


def test_every_command_that_the_page_names_exists() -> None:
    named = set(re.findall(r"\bmlaas (?!import)([a-z]+)\b", PAGE))
    assert named <= set(command.list_commands(click.Context(command)))
