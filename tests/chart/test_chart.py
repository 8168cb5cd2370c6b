"""What the chart makes of its values is valid, can do no more than it must, and fits the service."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from messaging.broker import Right
from messaging.kafka_admin import new_topic
from messaging.kafka_config import parse_url
from mlaas.commands.broker import rights_of
from mlaas.settings import load
from tests.chart.rendered import EXAMPLES, containers, environment, made, of, pods, settings_of
from tests.chart.tools import CHART, Refused, keda_sources, problems

ROOT = CHART.parents[1]
VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = load(None, {})

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda name: name or "defaults")


@each_example
def test_kubernetes_and_the_operators_know_every_field(
    example: str, shown: Callable[[str, object], None]
) -> None:
    resources = made(example)
    assert [problem for resource in resources for problem in problems(resource)] == []
    kinds = Counter(its["kind"] for its in resources)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    shown(f"{example or 'defaults'}: resources without an unknown or wrong field", listed)


@pytest.mark.parametrize("kind", ["Deployment", "ScaledObject", "KafkaTopic", "KafkaUser", "PodMonitor"])
def test_a_field_that_they_do_not_know_is_noticed(kind: str) -> None:
    resource = next(iter(of(kind, made("strimzi")).values()))
    resource["spec"]["redinessProbe"] = {}
    assert "redinessProbe" in problems(resource)[0]


def test_keda_knows_every_parameter_of_a_trigger() -> None:
    for scaled in of("ScaledObject", made("strimzi")).values():
        for trigger in scaled["spec"]["triggers"]:
            known = re.findall(r'keda:"name=(\w+)', keda_sources(trigger["type"]))
            assert known and set(trigger["metadata"]) <= set(known), trigger["type"]


@each_example
def test_a_container_can_do_no_more_than_it_must(example: str, shown: Callable[[str, object], None]) -> None:
    fetch = (
        "--set",
        "worker.models.fetch.image=models",
        "--set",
        "worker.models.fetch.command={cp,-r,/m,/models}",
    )
    found = list(pods(made(example, *fetch)))
    assert len(found) >= 2
    for pod in found:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all("hostPath" not in volume for volume in pod["spec"]["volumes"])
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    unprivileged = [container["name"] for pod in found for container in containers(pod)]
    shown(f"{example or 'defaults'}: containers without root, privileges or writable root", len(unprivileged))


@each_example
def test_what_a_container_mounts_is_there(example: str) -> None:
    for pod in pods(made(example, "--set", "apiKeys.secret=keys")):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@each_example
def test_a_selector_selects_the_pods_of_one_deployment(example: str) -> None:
    resources = made(example)
    labels = {
        name: its["spec"]["template"]["metadata"]["labels"]
        for name, its in of("Deployment", resources).items()
    }

    def selected(selector: dict[str, str]) -> list[str]:
        return [name for name, its in labels.items() if selector.items() <= its.items()]

    for kind in ("Deployment", "PodDisruptionBudget"):
        for name, its in of(kind, resources).items():
            assert selected(its["spec"]["selector"]["matchLabels"]) == [name], kind
    assert of("PodDisruptionBudget", resources).keys() == labels.keys()
    assert selected(of("Service", resources)["mlaas-gateway"]["spec"]["selector"]) == ["mlaas-gateway"]
    for part in ("gateway", "worker"):
        policy = of("NetworkPolicy", resources)[f"mlaas-{part}"]["spec"]["podSelector"]["matchLabels"]
        assert selected(policy) == [name for name in labels if name.startswith(f"mlaas-{part}")]
    for monitor in of("PodMonitor", resources).values():
        assert selected(monitor["spec"]["selector"]["matchLabels"]) == list(labels)


@each_example
def test_gateway_and_worker_start_with_these_settings(example: str, tmp_path: Path) -> None:
    resources = made(example)
    gateway, worker = (settings_of(resources, part, tmp_path) for part in ("gateway", "worker"))
    assert gateway.gateway.metrics_port == worker.worker.metrics_port == 9100
    (container,) = of("Deployment", resources)["mlaas-gateway"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "http", "containerPort": gateway.gateway.port} in container["ports"]
    for settings, user in ((gateway, "mlaas-gateway"), (worker, "mlaas-worker")):
        if example == "pubsub":
            assert settings.broker.url == "pubsub://my-project"
            continue
        servers, properties = parse_url(settings.broker.url)
        assert servers
        if example in ("strimzi", "without-keda", "queues"):
            assert properties["security.protocol"] == "SASL_SSL"
            assert properties["sasl.username"] == user
            assert properties["sasl.password"] == "secret"
        else:
            assert properties == {}


@each_example
def test_live_is_for_liveness_and_ready_for_readiness(example: str) -> None:
    (gateway,) = of("Deployment", made(example))["mlaas-gateway"]["spec"]["template"]["spec"]["containers"]
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert gateway["startupProbe"]["httpGet"]["path"] == "/health/live"
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_a_worker_lives_while_its_heart_beats() -> None:
    (worker,) = of("Deployment", made(""))["mlaas-worker"]["spec"]["template"]["spec"]["containers"]
    image = (ROOT / "deploy" / "worker.Dockerfile").read_text()
    heartbeat = re.search(r"MLAAS_WORKER__HEARTBEAT_FILE=(\S+)", image)
    assert heartbeat
    assert worker["startupProbe"]["exec"]["command"] == ["test", "-e", heartbeat[1]]
    check = re.search(r"^ +CMD (test -n .*)$", image, re.MULTILINE)
    assert check
    in_image = check[1].replace('"$MLAAS_WORKER__HEARTBEAT_FILE"', heartbeat[1])
    assert worker["livenessProbe"]["exec"]["command"] == ["sh", "-c", in_image]
    seconds = worker["startupProbe"]["periodSeconds"] * worker["startupProbe"]["failureThreshold"]
    assert seconds * 1000 > DEFAULTS.worker.model_start_timeout_ms


@pytest.mark.parametrize("drain", [(), ("gateway.drain_delay_ms=20000", "gateway.drain_timeout_ms=90500")])
def test_a_pod_has_time_to_finish(drain: tuple[str, ...], tmp_path: Path) -> None:
    resources = made("", *(part for each in drain for part in ("--set", f"settings.{each}")))
    settings = settings_of(resources, "gateway", tmp_path)
    grace = {
        name: its["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for name, its in of("Deployment", resources).items()
    }
    draining_ms = settings.gateway.drain_delay_ms + settings.gateway.drain_timeout_ms
    assert grace["mlaas-gateway"] * 1000 >= draining_ms + 10_000
    assert grace["mlaas-worker"] * 1000 > settings.worker.model_timeout_ms


def test_memory_is_what_compose_allows() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for part in ("gateway", "worker"):
        (container,) = of("Deployment", made(""))[f"mlaas-{part}"]["spec"]["template"]["spec"]["containers"]
        allowed = services[part]["mem_limit"].upper().replace("G", "Gi").replace("M", "Mi")
        assert container["resources"]["limits"] == {"memory": allowed}


# Kafka.


def test_operations_lists_the_rights_that_are_granted() -> None:
    section = (
        (ROOT / "docs" / "operations.md")
        .read_text()
        .partition("## Rights on the broker")[2]
        .partition("## ")[0]
    )
    listed = {
        role: [re.findall(r"`(?:topics\.)?([\w.-]+)`", cell) for cell in cells.split("|")]
        for role, cells in re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    }
    granted = yaml.safe_load((ROOT / "configs" / "rights.yaml").read_text())
    assert listed == {
        role: [
            *(its.get(operation, []) for operation in ("write", "read", "delete")),
            its["groups"] + its.get("groups_that_begin_with", []),
        ]
        for role, its in granted.items()
    }


@pytest.mark.parametrize(
    "own",
    [
        (),
        (
            "settings.topics.requests=own.requests",
            "settings.worker.group=own-workers",
            "worker.queues.slow.models.names={large}",
        ),
    ],
)
def test_users_of_strimzi_have_the_rights_that_the_command_grants(
    own: tuple[str, ...], tmp_path: Path, shown: Callable[[str, object], None]
) -> None:
    resources = made("strimzi", *(part for each in own for part in ("--set", each)))
    settings = settings_of(resources, "worker", tmp_path)
    users = of("KafkaUser", resources)
    assert users.keys() == {"mlaas-gateway", "mlaas-worker", "mlaas-dlq"}
    for name, user in users.items():
        rights = {
            Right(operation.lower(), what["type"], what["name"], what["patternType"] == "prefix")
            for acl in user["spec"]["authorization"]["acls"]
            for what in [acl["resource"]]
            for operation in acl["operations"]
        }
        assert rights == set(rights_of(name.removeprefix("mlaas-"), settings))
        shown(
            f"{name}, {'own names' if own else 'defaults'}: rights, the same as `mlaas topics grant`",
            len(rights),
        )


@pytest.mark.parametrize("copies", [1, 3])
def test_topics_of_strimzi_are_those_that_the_command_creates(copies: int, tmp_path: Path) -> None:
    resources = made("queues", "--set", f"settings.topics.replication_factor={copies}")
    settings = settings_of(resources, "worker", tmp_path)
    of_strimzi = {
        its["spec"]["topicName"]: (
            its["spec"]["partitions"],
            its["spec"]["replicas"],
            {name: str(value) for name, value in its["spec"]["config"].items()},
        )
        for its in of("KafkaTopic", resources).values()
    }
    assert of_strimzi == {
        topic.topic: (topic.num_partitions, topic.replication_factor, topic.config)
        for wanted in settings.topics.wanted(settings.worker.group)
        for topic in [new_topic(wanted, copies, settings.broker.max_message_bytes)]
    }


def test_google_pubsub_takes_the_place_of_kafka(tmp_path: Path) -> None:
    resources = made("pubsub")
    for part in ("gateway", "worker"):
        assert settings_of(resources, part, tmp_path).broker.url == "pubsub://my-project"
        pod = of("Deployment", resources)[f"mlaas-{part}"]["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == "mlaas"
        ports = of("NetworkPolicy", resources)[f"mlaas-{part}"]["spec"]["egress"]
        assert {"ports": [{"port": 443}]} in ports
        assert "9092" not in json.dumps(ports)
    (job,) = of("Job", resources).values()
    assert environment(job["spec"]["template"]["spec"]["containers"][0])["MLAAS_BROKER__URL"] == (
        "pubsub://my-project"
    )
    with pytest.raises(Refused, match="use hpa"):
        made("pubsub", "--set", "scaling.by=keda")
    with pytest.raises(Refused, match="two brokers"):
        made("pubsub", "--set", "kafka.strimzi=cluster")


def test_a_job_makes_the_topics_where_strimzi_does_not() -> None:
    (job,) = of("Job", made("without-keda")).values()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["topics", "create"]
    assert environment(container)["KAFKA_USER"] == "mlaas-admin"
    assert not of("Job", made("strimzi"))
    assert not of("Job", made("", "--set", "kafka.createTopics=false"))


# Network and keys.


@each_example
def test_a_worker_reaches_its_broker_and_dns_and_nothing_else(example: str, tmp_path: Path) -> None:
    resources = made(example)
    policy = of("NetworkPolicy", resources)["mlaas-worker"]["spec"]
    ports = {rule["port"] for its in policy["egress"] for rule in its["ports"]}
    if example == "pubsub":
        brokers = {443, 80, 988}
    else:
        servers, _ = parse_url(settings_of(resources, "worker", tmp_path).broker.url)
        brokers = {int(server.rpartition(":")[2]) for server in servers.split(",")}
    assert ports == {53, *brokers}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["ports"] == [{"port": "metrics"}] for rule in policy["ingress"] or [])


def test_lines_of_keys_become_a_secret_that_the_gateway_reads() -> None:
    line = f"phone-app {'0' * 64} 20 40"
    resources = made("", "--set", f"apiKeys.lines={{{line}}}")
    assert of("Secret", resources)["mlaas-api-keys"]["stringData"]["api-keys"] == f"{line}\n"
    pod = of("Deployment", resources)["mlaas-gateway"]["spec"]["template"]["spec"]
    assert {"name": "api-keys", "secret": {"secretName": "mlaas-api-keys"}} in pod["volumes"]
    file = Path(environment(pod["containers"][0])["MLAAS_GATEWAY__API_KEYS_FILE"])
    (mount,) = (its for its in pod["containers"][0]["volumeMounts"] if its["name"] == "api-keys")
    assert file.parent == Path(mount["mountPath"]) and "subPath" not in mount


# Values.


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ("gatway.replicas=2", "gatway"),
        ("gateway.replica=2", "replica"),
        ("kafka.protocol=SSSL", "kafka/protocol"),
        ("settings.gateway.drain_dealy_ms=1", "settings.gateway.drain_dealy_ms: there is no such setting"),
        ("settings.topics.queues.large=slow", "settings/topics/queues"),
        ("worker.queues.Slow.models.names={large}", "'Slow' not allowed"),
        ("worker.queues.shared.models.names={large}", "worker itself has its values"),
        ("worker.queues.slow.replicas=2", "missing property 'models'"),
        ("worker.queues.slow.models.names={large,large}", "large is in the queues slow and slow"),
        ("worker.queues.slow.models.names={fashion-mnist}", "fashion-mnist is the default model"),
        ("settings.broker.url=kafka://elsewhere:9092", "settings/broker/url"),
        ("apiKeys.lines={the-key-itself}", "apiKeys/lines/0"),
        ("gateway.replicas=2", "several gateways need jobs.store.secret"),
        ("kafka.protocol=SASL_SSL", "is needed, because kafka.protocol is SASL_SSL"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it(values: str, reason: str) -> None:
    with pytest.raises(Refused, match=re.escape(reason)):
        made("", "--set", values)


def test_large_numbers_stay_whole(tmp_path: Path) -> None:
    resources = made("", "--set", "settings.broker.max_message_bytes=1073741824")
    assert settings_of(resources, "worker", tmp_path).broker.max_message_bytes == 1_073_741_824


def test_the_schema_has_every_value_and_no_others() -> None:
    def names(schema: dict[str, Any], values: Any, path: str = "") -> None:
        if isinstance(values, dict) and "properties" in schema and path != ".settings":
            assert schema["additionalProperties"] is False, path
            assert schema["properties"].keys() - {"global"} == values.keys(), path
            for name, value in values.items():
                names(schema["properties"][name], value, f"{path}.{name}")

    names(SCHEMA, yaml.safe_load(VALUES))
    sections = SCHEMA["properties"]["settings"]["properties"]
    assert sections.keys() <= yaml.safe_load((ROOT / "configs" / "config.yaml").read_text()).keys()
