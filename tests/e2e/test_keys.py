"""API keys as docs/operations.md shows them, over the real processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from deploy.kafka.local_kafka import free_port
from gateway.api_keys import digest_of
from mlaas.settings import load
from tests.e2e.services import PNG, ROOT, SAMPLES, service, until, up

pytestmark = pytest.mark.all_models

SECTION = (ROOT / "docs" / "operations.md").read_text().partition("## API keys\n")[2].partition("\n## ")[0]
FILE = "MLAAS_GATEWAY__API_KEYS_FILE"


def test_names_of_keys_are_at_the_port_for_metrics_alone(tmp_path: Path) -> None:
    file, port = tmp_path / "api-keys", free_port()
    file.write_text(f"phone-app {digest_of('key')} 0.001 1\n")
    with up(**{FILE: str(file), "MLAAS_GATEWAY__METRICS_PORT": str(port)}) as (_, url):
        assert [status(url, "key") for _ in range(3)] == [200, 429, 429]
        everybodys = httpx.get(f"{url}/metrics").text
        ours = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'mlaas_rate_limited_requests_total{process="gateway-1"} 2.0' in everybodys
    assert "phone-app" not in everybodys
    assert 'mlaas_rate_limited_requests_of_key_total{api_key="phone-app",process="gateway-1"} 2.0' in ours
    assert 'mlaas_rate_limited_requests_total{process="gateway-1"} 2.0' in ours


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


MAKE, START, ASK, ROTATE = blocks("sh")


def run(script: str, folder: Path, **variables: str) -> str:
    """As a reader would type it, in a folder with the samples in it."""
    here = f'mlaas() {{ "{sys.executable}" -m mlaas "$@"; }}\n'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        ["bash", "-ec", here + script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_making_using_and_rotating_a_key_work_as_shown_and_no_key_is_logged(tmp_path: Path) -> None:
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    file = tmp_path / "api-keys"
    key = run(MAKE + "printf %s $MLAAS_API_KEY", tmp_path)
    assert f"export {FILE}=$PWD/api-keys\nmlaas up\n" == START
    with up(**{FILE: str(file), "MLAAS_LOG__LEVEL": "debug"}) as (running, url):
        ask = ASK.replace("localhost:8000", url)
        assert '"label":"Sandal"' in run(ask, tmp_path, MLAAS_API_KEY=key)
        assert '"fashion-mnist-large"' in run(ask, tmp_path, MLAAS_API_KEY=key)
        assert '"status":401' in run(ask, tmp_path, MLAAS_API_KEY="mlaas_wrong")

        add, remove = ROTATE.splitlines()
        new_key = run(f"{add}\nprintf %s $MLAAS_API_KEY", tmp_path)
        until(lambda: status(url, new_key) == 200, "the new key's taking effect")
        assert status(url, key) == 200
        run(remove, tmp_path)
        until(lambda: status(url, key) == 401, "the old key's end")
        assert status(url, new_key) == 200

        file.write_text("broken")
        until(lambda: status(url, new_key) == 200 and "stay as they were" in running.output, "its refusal")
        running.wait_for("the API keys stay as they were: .*line 1 has 1 words")
        metrics = httpx.get(f"{url}/metrics").text
    for secret in (key, new_key, "mlaas_wrong"):
        assert secret not in running.output
        assert secret not in metrics
        assert secret not in file.read_text()
    assert "Traceback" not in running.output


def status(url: str, key: str) -> int:
    return httpx.post(
        f"{url}/predict", content=SAMPLES[0].read_bytes(), headers={**PNG, "X-API-Key": key}, timeout=30
    ).status_code


def test_the_secret_is_mounted_where_the_gateway_looks_for_it() -> None:
    (block,) = blocks("yaml")
    compose = yaml.safe_load(block)
    gateway = compose["services"]["gateway"]
    (name,) = gateway["secrets"]
    assert name in compose["secrets"]
    assert load(None, gateway["environment"]).gateway.api_keys_file == f"/run/secrets/{name}"


def test_a_file_that_is_missing_or_broken_is_said_in_one_line_and_nothing_is_open(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("phone mlaas_secret\n")
    for file, says in ((tmp_path / "none", "No such file"), (broken, "line 1: the second word is not")):
        with service(
            "gateway", "--port", "0", "--broker", "kafka://127.0.0.1:1", **{FILE: str(file)}
        ) as alone:
            assert alone.wait() == os.EX_CONFIG
        with service("up", "--port", "0", **{FILE: str(file)}) as together:
            assert together.wait() == os.EX_CONFIG
        for output in (alone.output, together.output):
            assert re.search(rf"mlaas: gateway.api_keys_file {file}:? {says}", output)
            assert "Traceback" not in output
            assert "mlaas_secret" not in output


@pytest.mark.parametrize(
    ("host", "keys", "is_open"), [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("::1", False, False)]
)
def test_a_gateway_that_anybody_may_ask_says_so(host: str, keys: bool, is_open: bool, tmp_path: Path) -> None:
    run(MAKE, tmp_path)
    environment = {FILE: str(tmp_path / "api-keys")} if keys else {}
    with service("gateway", "--host", host, "--port", "0", "--broker", "memory://", **environment) as running:
        running.wait_for("listening on")
        running.stop()
    assert ("anyone who can reach 0.0.0.0:" in running.output) == is_open
