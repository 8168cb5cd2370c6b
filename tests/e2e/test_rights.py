"""With the rights on the broker that docs/operations.md lists, everything works."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from deploy.kafka.local_kafka import LocalKafka
from messaging.kafka_config import Properties, parse_url
from tests.e2e.services import ROOT, SAMPLES, is_ready, label_of, mlaas, predict, service, until

SECTION = (ROOT / "docs" / "operations.md").read_text().partition("## Rights on the broker")[2]
PASSWORD = "p@ss/w:rd%"
USERS = ("admin", "gateway", "worker", "dlq")
# In a file of properties, of one key the last line counts.
PROPERTIES = f"""
listeners=SASL_PLAINTEXT://$host:$port,CONTROLLER://$host:$controller_port
listener.security.protocol.map=SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \\
  required username="admin" password="{PASSWORD}" {" ".join(f'user_{user}="{PASSWORD}"' for user in USERS)};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:ANONYMOUS
"""


def url(kafka: LocalKafka, user: str) -> str:
    credentials = f"{user}:{quote(PASSWORD, safe='')}"
    query = "security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN"
    return f"kafka://{credentials}@{kafka.bootstrap_servers}?{query}"


def rows() -> dict[str, list[list[str]]]:
    """Of each user, the names in each column: topics to write, to read, groups."""
    table = re.findall(r"^\| (gateway|worker|`mlaas dlq`) \| (.*) \|$", SECTION, re.MULTILINE)
    return {
        user.strip("`").removeprefix("mlaas "): [
            re.findall(r"`(?:topics\.)?([\w.-]+)`", cell) for cell in cells.split(" | ")
        ]
        for user, cells in table
    }


def rights(environment: dict[str, str]) -> Iterator[AclBinding]:
    workers, gateways = environment["MLAAS_WORKER__GROUP"], environment["MLAAS_JOBS__GROUP"]
    groups = {"jobs.group": gateways, "worker.group": workers, ".jobs": f"{workers}.jobs"}

    def right(user: str, kind: ResourceType, name: str, what: AclOperation) -> AclBinding:
        begins = kind is ResourceType.GROUP and name == gateways
        pattern = ResourcePatternType.PREFIXED if begins else ResourcePatternType.LITERAL
        return AclBinding(kind, name, pattern, f"User:{user}", "*", what, AclPermissionType.ALLOW)

    for user, (written, read, its_groups) in rows().items():
        for topics, what in ((written, AclOperation.WRITE), (read, AclOperation.READ)):
            for topic in topics:
                yield right(user, ResourceType.TOPIC, environment[f"MLAAS_TOPICS__{topic.upper()}"], what)
        for group in its_groups:
            yield right(user, ResourceType.GROUP, groups.get(group, group), AclOperation.READ)


@pytest.fixture
def kafka(apache_kafka: LocalKafka) -> Iterator[LocalKafka]:
    """One that asks for user and password; apache_kafka skips where none can be started."""
    with LocalKafka(more_properties=PROPERTIES) as kafka:
        yield kafka


def as_admin(kafka: LocalKafka) -> Properties:
    servers, properties = parse_url(url(kafka, "admin"))
    return {"bootstrap.servers": servers, **properties}


def test_a_picture_a_job_and_a_dead_letter(kafka: LocalKafka, tmp_path: Path) -> None:
    prefix, sample = uuid.uuid4().hex[:8], SAMPLES[0]
    names = ("requests", "replies", "dead_letters", "cancellations", "jobs", "job_replies")
    theirs = {f"MLAAS_TOPICS__{name.upper()}": f"{prefix}.{name}" for name in names} | {
        "MLAAS_JOBS__GROUP": f"{prefix}.gateways",
        "MLAAS_WORKER__GROUP": f"{prefix}.workers",
        "MLAAS_JOBS__STORE": f"sqlite:///{tmp_path}/jobs.sqlite3",
    }
    assert mlaas("topics", "create", "--broker", url(kafka, "admin"), **theirs).returncode == 0
    admin = AdminClient(as_admin(kafka))
    for made in admin.create_acls(list(rights(theirs))).values():
        made.result(30)
    with (
        service("worker", "--broker", url(kafka, "worker"), **theirs) as worker,
        service("gateway", "--port", "0", "--broker", url(kafka, "gateway"), **theirs) as gateway,
    ):
        address = f"http://{gateway.wait_for(r'listening on (127.0.0.1:[0-9]+)')[1]}"
        until(lambda: is_ready(address), "the gateway's readiness")
        assert predict(address, sample.read_bytes()).json()["label"] == label_of(sample)

        job = httpx.post(f"{address}/jobs", files={"file": sample.read_bytes()})
        done = httpx.get(f"{address}{job.headers['location']}?wait=30s", timeout=40).json()
        assert (done["status"], done["completed"]) == ("done", 1)

        producer = Producer(as_admin(kafka))
        producer.produce(theirs["MLAAS_TOPICS__REQUESTS"], sample.read_bytes())  # nobody to answer
        assert producer.flush(30) == 0
        broker = ("--broker", url(kafka, "dlq"))
        until(lambda: "no correlation_id" in mlaas("dlq", "ls", *broker, **theirs).stdout, "the dead letter")
        replayed = mlaas("dlq", "replay", "--all", "--yes", *broker, **theirs)
        assert label_of(sample) in replayed.stdout, replayed.stderr
    said = worker.output + gateway.output + replayed.stderr
    assert "uthoriz" not in said
    assert PASSWORD not in said and quote(PASSWORD, safe="") not in said
