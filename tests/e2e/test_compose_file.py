"""What the compose files and the Dockerfiles promise, as far as it can be read off them."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.api_keys import parse
from messaging.kafka_config import parse_url

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECURE: dict[str, Any] = yaml.safe_load((ROOT / "compose.secure.yaml").read_text())["services"]
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.stem)


def secured(name: str) -> dict[str, Any]:
    """A service as compose makes it of both files: mappings and lists of volumes are merged."""
    plain, more = SERVICES.get(name, {}), SECURE[name]
    merged = {
        key: {**plain.get(key, {}), **more[key]} for key in ("environment", "depends_on") if key in more
    }
    return {**plain, **more, **merged, "volumes": plain.get("volumes", []) + more.get("volumes", [])}


@each_service
def test_a_service_can_do_no_more_than_it_must(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "container_name" not in service


def test_only_the_gateway_and_what_watches_it_are_reached_and_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {
        "gateway": ["127.0.0.1:8000:8000"],
        "pubsub-gateway": ["127.0.0.1:8000:8000"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


@pytest.mark.parametrize("name", SECURE)
def test_a_secured_service_can_do_no_more_and_has_an_image_of_a_full_version(name: str) -> None:
    test_a_service_can_do_no_more_than_it_must(secured(name))
    test_an_image_of_others_is_a_full_version(secured(name))


def test_whoever_talks_to_the_secured_kafka_has_a_user_of_its_own() -> None:
    users = set()
    for name in ("topics", "gateway", "worker"):
        environment = secured(name)["environment"]
        servers, properties = parse_url(re.sub(r"\$\{(\w+):\?}", r"\1", environment["MLAAS_BROKER__URL"]))
        assert (servers, properties["security.protocol"]) == ("kafka:9092", "SASL_SSL")
        assert f"./.secrets/ca.pem:{properties['ssl.ca.location']}:ro" in secured(name)["volumes"]
        assert properties["sasl.password"] == f"{properties['sasl.username'].upper()}_PASSWORD"
        users.add(properties["sasl.username"])
    assert users == {"admin", "gateway", "worker"}


def test_only_the_secured_kafka_itself_is_anonymous() -> None:
    kafka = secured("kafka")["environment"]
    protocols = dict(its.split(":") for its in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    for listener in kafka["KAFKA_LISTENERS"].split(","):
        name, address = listener.split("://")
        assert address.startswith("localhost:") or protocols[name] == "SASL_SSL"


def test_the_secrets_are_what_the_services_mount(tmp_path: Path) -> None:
    (tmp_path / "deploy" / "tls").mkdir(parents=True)
    script = shutil.copy(ROOT / "deploy" / "tls" / "make_secrets.sh", tmp_path / "deploy" / "tls")
    subprocess.run([script, "mlaas.example.org"], check=True, capture_output=True)
    made = tmp_path / ".secrets"
    assert made.stat().st_mode & 0o777 == 0o700
    for name in SECURE:
        for source in (its.partition(":")[0] for its in secured(name)["volumes"]):
            if source.startswith("./.secrets/"):
                assert (tmp_path / source).stat().st_mode & 0o777 == 0o644
    passwords = dict(line.split("=") for line in (made / "passwords").read_text().splitlines())
    asked = set(re.findall(r"\$\{(\w+_PASSWORD):", (ROOT / "compose.secure.yaml").read_text()))
    assert passwords.keys() == asked and len(set(passwords.values())) == len(passwords)
    keyring = parse((made / "api-keys").read_text())
    assert keyring.name_of((made / "api-key").read_bytes().strip()) == "first-client"
    again = subprocess.run([script], capture_output=True, text=True)
    assert again.returncode == 1 and "move .secrets away first" in again.stderr


def test_prometheus_scrapes_the_ports_that_the_services_open() -> None:
    watching = yaml.safe_load((ROOT / "deploy/observability/prometheus.yaml").read_text())
    for scraped in watching["scrape_configs"]:
        (found,) = scraped["dns_sd_configs"]
        (name,) = found["names"]
        its = SERVICES[name]["environment"]
        assert its[f"MLAAS_{name.upper()}__METRICS_PORT"] == str(found["port"])
        assert its[f"MLAAS_{name.upper()}__METRICS_HOST"] == "0.0.0.0"
        shared = set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"])
        assert shared == {"messages"}, "in two networks, it would be scraped twice"


@each_service
def test_a_file_that_a_service_mounts_exists(service: dict[str, Any]) -> None:
    for source in (its.partition(":")[0] for its in service.get("volumes", ()) if its.startswith("./")):
        assert (ROOT / source).is_file()


@each_service
def test_an_image_of_others_is_a_full_version(service: dict[str, Any]) -> None:
    image = re.search(r":-(.+)}", service.get("image", ""))
    assert "build" in service or (image and re.search(r":v?\d+\.\d+\.\d+$", image[1]))


def test_the_services_over_pubsub_start_with_its_profile_alone_and_are_otherwise_the_same() -> None:
    assert all("pubsub" in its["profiles"] for name, its in SERVICES.items() if name.startswith("pubsub"))
    for part in ("topics", "gateway", "worker"):
        own = {"profiles", "build", "environment", "depends_on", "restart"}
        ours, theirs = SERVICES[part], SERVICES[f"pubsub-{part}"]
        assert {key: its for key, its in theirs.items() if key not in own} == {
            key: its for key, its in ours.items() if key not in own
        }
        assert theirs["environment"]["MLAAS_BROKER__URL"] == "pubsub://demo"
        assert {**ours["build"]["args"], "BROKER": "pubsub"} == theirs["build"]["args"]
    fake = (ROOT / "tests" / "pubsub" / "Dockerfile").read_text()
    go = re.search(r"^go (.+)$", (ROOT / "tests" / "pubsub" / "go.mod").read_text(), re.M)
    assert go and f"ARG GO_IMAGE=golang:{go[1]}-" in fake
    assert SERVICES["pubsub-worker"]["environment"]["PUBSUB_EMULATOR_HOST"] == "pubsub:8085"
    assert '"0.0.0.0:8085"' in fake


def test_the_worker_has_no_way_out() -> None:
    assert all(COMPOSE["networks"][name]["internal"] for name in SERVICES["worker"]["networks"])


def test_kafka_is_the_version_that_the_tests_run() -> None:
    version = re.search(r"<kafka.version>(.+?)<", (ROOT / "deploy/kafka/pom.xml").read_text())
    assert version
    assert SERVICES["kafka"]["image"] == f"${{KAFKA_IMAGE:-apache/kafka:{version[1]}}}"


def test_the_gateway_has_time_to_drain() -> None:
    settings = yaml.safe_load((ROOT / "configs/config.yaml").read_text())
    seconds = int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))
    assert seconds * 1000 > settings["gateway"]["drain_timeout_ms"]


@each_dockerfile
def test_an_image_is_pinned_watched_and_not_root(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.M)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) == {"${PYTHON_IMAGE}"}
    built = [service["build"] for service in SERVICES.values() if "args" in service.get("build", ())]
    assert {its["args"]["PYTHON_IMAGE"] for its in built} == {f"${{PYTHON_IMAGE:-{base}}}"}
    assert "--require-hashes" in text
    assert re.search(r"^USER 10001:10001$", text, re.M)
    assert re.search(r"^HEALTHCHECK ", text, re.M)
    assert re.search(r"^ENTRYPOINT \[", text, re.M)


@pytest.mark.parametrize(
    ("image", "modules"),
    [
        ("gateway", "commands.serve, mlaas.commands.broker, mlaas.serving, gateway.server, messaging.kafka"),
        ("worker", "commands.serve, mlaas.serving, messaging.kafka, worker.consumer, worker.model_main"),
    ],
)
def test_an_image_has_every_module_that_it_loads(image: str, modules: str, tmp_path: Path) -> None:
    fill(image, tmp_path)
    run_in(tmp_path, "-c", f"import mlaas.cli, mlaas.{modules}").check_returncode()


def test_a_command_for_which_an_image_lacks_modules_says_so(tmp_path: Path) -> None:
    fill("gateway", tmp_path)
    done = run_in(tmp_path, "-m", "mlaas", "doctor")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"mlaas: \S+ is not in this image; run the command where .+\n", done.stderr)


def fill(image: str, folder: Path) -> None:
    """Copies what the image's Dockerfile does."""
    for line in re.findall(r"^COPY (?!--from)(.+)", (ROOT / f"deploy/{image}.Dockerfile").read_text(), re.M):
        *sources, target = line.split()
        for source in sources:
            _copy(
                ROOT / source,
                folder / target / Path(source).name if target.endswith("/") else folder / target,
            )


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the libraries, but no editable installation, which would lend what an image lacks."""
    libraries = {"PYTHONPATH": sysconfig.get_path("purelib")}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | libraries, capture_output=True, text=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source, target)


def test_images_carry_no_more_of_the_model_than_they_run() -> None:
    gateway, worker = (_locked(f"requirements/{name}.txt") for name in ("gateway", "worker"))
    assert not gateway & {"keras", "numpy", "onnx", "onnxruntime", "pillow", "tensorflow", "tensorflow-cpu"}
    assert "onnxruntime" in worker
    assert not worker & {"fastapi", "keras", "tensorflow", "tensorflow-cpu", "uvicorn"}


def _locked(file: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / file).read_text(), re.M))
