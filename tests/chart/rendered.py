"""What the chart makes of its examples and of several queues, and the settings that a pod reads from it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlaas.settings import Settings, load
from tests.chart.tools import CHART, Resource, template

EXAMPLES = ("", *(file.stem for file in sorted((CHART / "examples").glob("*.yaml"))), "queues")
"""The names for values_of: no values, each file of examples/, and several queues on Strimzi."""

QUEUES = Path(__file__).with_name("queues.yaml")


def values_of(example: str) -> list[str]:
    """Helm's arguments for an example."""
    files = [CHART / "examples" / f"{example}.yaml"] if example else []
    if example == "queues":
        files = [CHART / "examples" / "strimzi.yaml", QUEUES]
    return [part for file in files for part in ("-f", str(file))]


def made(example: str, *arguments: str) -> list[Resource]:
    return template(*values_of(example), *arguments)


def of(kind: str, resources: list[Resource]) -> dict[str, Resource]:
    """Those of a kind, by name."""
    return {its["metadata"]["name"]: its for its in resources if its["kind"] == kind}


def pods(resources: list[Resource]) -> Iterator[Resource]:
    """The templates of pods, with their metadata and spec."""
    return (its["spec"]["template"] for its in resources if "template" in its.get("spec", {}))


def containers(pod: Resource) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def environment(container: dict[str, Any]) -> dict[str, str]:
    """The variables of a container, as Kubernetes would set them from Secrets whose values are "secret"."""
    found: dict[str, str] = {}
    for variable in container["env"]:
        value = variable.get(
            "value", "postgresql://secret" if variable["name"].endswith("STORE") else "secret"
        )
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], value)
    return found


def settings_of(resources: list[Resource], part: str, folder: Path) -> Settings:
    """The settings that a gateway or a worker has, read as it reads them."""
    (container,) = of("Deployment", resources)[f"mlaas-{part}"]["spec"]["template"]["spec"]["containers"]
    file = folder / "settings.yaml"
    file.write_text(of("ConfigMap", resources)["mlaas-settings"]["data"]["settings.yaml"])
    ours = {name: value for name, value in environment(container).items() if name.startswith("MLAAS_")}
    return load(None, ours | {"MLAAS_CONFIG": str(file)})
