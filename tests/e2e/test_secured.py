"""TLS, passwords and rights: Kafka with SASL_SSL, SCRAM and ACLs; API keys, behind a proxy that ends TLS."""

import os
import shutil
import ssl
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from urllib.parse import quote

import httpx
import pytest
from confluent_kafka import Producer

from deploy.kafka.local_kafka import LocalKafka, free_port
from messaging.kafka_config import parse_url
from tests.e2e.services import ROOT, SAMPLES, Service, is_ready, label_of, mlaas, service, status, until

pytestmark = pytest.mark.long

PASSWORD = "p@ss/w:rd%"
USERS = ("admin", "gateway", "worker", "dlq")
SAMPLE = SAMPLES[0]
# In a file of properties, of one key the last line counts. Brokers talk to each other on INTERNAL.
PROPERTIES = """
listeners=SASL_SSL://$$host:$$port,INTERNAL://$$host:{internal},CONTROLLER://$$host:$$controller_port
listener.security.protocol.map=SASL_SSL:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INTERNAL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:ANONYMOUS
"""


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"
        )

    def issue(self, name: str, *, expired: bool = False) -> Path:
        """A key and its certificate for 127.0.0.1, in one file."""
        (self._folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
        self._openssl(f"req -new -newkey rsa:2048 -nodes -subj /CN=broker -keyout {name}.key -out {name}.csr")
        self._openssl(
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions"
            f" -days {0 if expired else 2} -out {name}.crt"
        )
        both = self._folder / f"{name}.pem"
        both.write_text("".join((self._folder / f"{name}.{part}").read_text() for part in ("key", "crt")))
        return both

    def _openssl(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=self._folder, check=True, capture_output=True)


class SecuredKafka:
    """One that asks for TLS, user and password, and allows what it was told to allow."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self._keystore = folder / "broker.pem"
        shutil.copy(self.authority.issue("valid"), self._keystore)
        properties = PROPERTIES.format(internal=free_port(), keystore=self._keystore).replace("$$", "$")
        self.broker = LocalKafka(
            folder=folder / "kafka", more_properties=properties, passwords=dict.fromkeys(USERS, PASSWORD)
        )

    def url(self, user: str, password: str = PASSWORD) -> str:
        query = "security.protocol=SASL_SSL&sasl.mechanism=SCRAM-SHA-512"
        credentials = f"{user}:{quote(password, safe='')}"
        trusted = f"ssl.ca.location={self.authority.certificate}"
        return f"kafka://{credentials}@{self.broker.bootstrap_servers}?{query}&{trusted}"

    def use(self, certificate: Path) -> None:
        """The broker restarts with it."""
        self.broker.stop()
        shutil.copy(certificate, self._keystore)
        self.broker.start()


class Secured:
    """The service on such a Kafka, with topics and groups of its own."""

    def __init__(self, kafka: SecuredKafka, folder: Path) -> None:
        self._kafka = kafka
        self.url, self.use, self.authority = kafka.url, kafka.use, kafka.authority
        prefix = uuid.uuid4().hex[:8]
        names = ("requests", "replies", "dead_letters", "cancellations", "jobs", "job_replies")
        self.environment = {f"MLAAS_TOPICS__{name.upper()}": f"{prefix}.{name}" for name in names} | {
            "MLAAS_JOBS__GROUP": f"{prefix}-gateways",
            "MLAAS_WORKER__GROUP": f"{prefix}-workers",
            "MLAAS_JOBS__STORE": f"sqlite:///{folder}/jobs.sqlite3",
        }
        self.requests = self.environment["MLAAS_TOPICS__REQUESTS"]

    def run(self, user: str, *arguments: str, password: str = PASSWORD) -> str:
        """What the command prints."""
        done = mlaas(*arguments, "--broker", self.url(user, password), **self.environment)
        return done.stdout + done.stderr

    def grant(self, *roles: str) -> None:
        for role in roles:
            assert f"{role} may " in self.run("admin", "topics", "grant", role, role)

    @contextmanager
    def part(self, name: str, *more: str, password: str = PASSWORD) -> Iterator[Service]:
        with service(name, "--broker", self.url(name, password), *more, **self.environment) as running:
            yield running

    @contextmanager
    def gateway(self, *, password: str = PASSWORD, **more: str) -> Iterator[tuple[Service, str]]:
        """A gateway and its address."""
        self.environment |= more
        with self.part("gateway", "--port", "0", password=password) as running:
            yield running, f"http://{running.wait_for(r'listening on (127.0.0.1:[0-9]+)')[1]}"

    def doctor(self, user: str, password: str = PASSWORD) -> dict[str, str]:
        """The lines of the checks, by the names of the checks."""
        lines = self.run(user, "doctor", "--url", "http://127.0.0.1:9", password=password).splitlines()
        return {line[8:18].strip(): line for line in lines}


@pytest.fixture(scope="module")
def kafka(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"))
    with kafka.broker:
        yield kafka


@pytest.fixture
def secured(kafka: SecuredKafka, tmp_path: Path) -> Secured:
    secured = Secured(kafka, tmp_path)
    assert f"{secured.requests}: created" in secured.run("admin", "topics", "create")
    return secured


@contextmanager
def proxy(folder: Path, certificate: Path, gateway: str) -> Iterator[str]:
    """nginx with the project's configuration, and its address."""
    if shutil.which("nginx") is None:
        if os.environ.get("REQUIRE_NGINX"):
            pytest.fail("nginx, which ends TLS, is not installed: apt-get install nginx-light")
        pytest.skip("nginx, which ends TLS, is not installed: apt-get install nginx-light")
    address = f"127.0.0.1:{free_port()}"
    server = Template((ROOT / "deploy" / "tls" / "gateway.conf.template").read_text()).substitute(
        {
            "TLS_LISTEN": address,
            "TLS_CERTIFICATE": certificate,
            "TLS_KEY": certificate,
            "GATEWAY": gateway,
        }
    )
    paths = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{server}}}\n"
    )
    command = ["nginx", "-p", str(folder), "-c", str(configuration)]
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield f"https://{address}"
    finally:
        running.terminate()
        running.wait(30)


def submitted(address: str) -> Callable[[], bool]:
    """Submits a job. Returns what tells whether its picture was answered correctly."""
    job = httpx.post(f"{address}/jobs", files={"file": SAMPLE.read_bytes()}, timeout=60)
    assert job.status_code == 202, job.text

    def is_done() -> bool:
        seen = httpx.get(f"{address}{job.headers['location']}?wait=5s", timeout=40).json()
        return seen["status"] == "done" and seen["results"][0]["prediction"]["label"] == label_of(SAMPLE)

    return is_done


def test_a_picture_a_job_and_a_dead_letter_with_no_more_than_the_rights(
    secured: Secured, tmp_path: Path, shown: Callable[[str, object], None]
) -> None:
    secured.grant("gateway", "worker", "dlq")
    key = mlaas("keys", "new", "phone-app", "--file", str(tmp_path / "api-keys")).stdout.strip()
    keys = {"MLAAS_GATEWAY__API_KEYS_FILE": str(tmp_path / "api-keys")}
    certificate = secured.authority.issue("proxy")
    trusting = ssl.create_default_context(cafile=secured.authority.certificate)
    with (
        secured.part("worker") as worker,
        secured.gateway(**keys) as (gateway, inside),
        proxy(tmp_path, certificate, inside.removeprefix("http://")) as outside,
        httpx.Client(base_url=outside, verify=trusting, timeout=60) as client,
    ):
        until(lambda: is_ready(inside), "the gateway's readiness")
        picture = {"file": SAMPLE.read_bytes()}
        assert client.post("/predict", files=picture).status_code == 401
        client.headers["X-API-Key"] = key
        assert client.post("/predict", files=picture).json()["label"] == label_of(SAMPLE)

        job = client.post("/jobs", files=picture)
        done = client.get(f"{job.headers['location']}?wait=30s").json()
        assert (done["status"], done["completed"]) == ("done", 1)

        servers, properties = parse_url(secured.url("admin"))
        producer = Producer({"bootstrap.servers": servers, **properties})
        producer.produce(secured.requests, SAMPLE.read_bytes())  # nobody to answer
        assert producer.flush(30) == 0
        until(lambda: "no correlation_id" in secured.run("dlq", "dlq", "ls"), "the dead letter")
        replayed = secured.run("dlq", "dlq", "replay", "--all", "--purge", "--yes")
        assert label_of(SAMPLE) in replayed
        assert "no letters" in secured.run("dlq", "dlq", "ls")
        assert secured.doctor("gateway")["broker"].startswith("ok")
    said = worker.output + gateway.output + replayed
    assert "uthoriz" not in said
    assert PASSWORD not in said and quote(PASSWORD, safe="") not in said
    shown("over TLS, with a key and no more than its rights", "a picture, a job and a dead letter replayed")


def test_a_wrong_password_is_named_and_the_right_one_loses_nothing(
    secured: Secured, shown: Callable[[str, object], None]
) -> None:
    secured.grant("gateway", "worker")
    refused = r"does not accept user '{}' with this password"
    with secured.gateway(password="wrong") as (gateway, address):
        line = gateway.wait_for(f"cannot read replies, retrying: .*{refused.format('gateway')}")
        shown("a wrong password", line[0])
        until(lambda: status(f"{address}/health/live") == 200, "the gateway's start")
        assert httpx.post(f"{address}/predict", files={"file": SAMPLE.read_bytes()}).status_code == 503
    assert refused.format("admin") in secured.run("admin", "topics", "create", password="wrong")
    assert refused.format("worker") in secured.doctor("worker", password="wrong")["broker"]
    with secured.gateway() as (_, address):
        until(lambda: status(f"{address}/health/live") == 200, "the gateway's start")
        with secured.part("worker", password="wrong") as worker:
            worker.wait_for(f"cannot receive requests, retrying: .*{refused.format('worker')}")
            is_done = submitted(address)
        with secured.part("worker"):
            until(is_done, "the job's end")
    shown("a job submitted meanwhile", "answered once the password was right")


def test_a_missing_right_is_named_and_comes_into_effect_without_a_restart(
    secured: Secured, shown: Callable[[str, object], None]
) -> None:
    denied = r"authorization failed.*`mlaas topics grant` gives a user its rights"
    with secured.part("worker") as worker, secured.gateway() as (gateway, address):
        line = worker.wait_for(f"cannot receive requests, retrying: topic .*requests: .*{denied}")
        shown("a missing right", line[0])
        gateway.wait_for(f"cannot read replies, retrying: topic .*replies: .*{denied}")
        assert "`mlaas topics grant`" in secured.doctor("gateway")["topics"]
        secured.grant("gateway", "worker")
        until(lambda: is_ready(address), "the gateway's readiness")
        until(submitted(address), "the job's end")
    shown("a job submitted once the right was granted", "answered without a restart")
    assert "Traceback" not in worker.output + gateway.output


def test_an_expired_certificate_is_named_and_a_new_one_loses_nothing(
    secured: Secured, shown: Callable[[str, object], None]
) -> None:
    secured.grant("gateway", "worker")
    expired = "its certificate is not valid: certificate has expired"
    valid = secured.authority.issue("renewed")
    with secured.gateway() as (gateway, address):
        until(lambda: httpx.get(f"{address}/health/live").status_code == 200, "the gateway's start")
        is_done = submitted(address)
        secured.use(secured.authority.issue("old", expired=True))
        with secured.part("worker") as worker:
            line = worker.wait_for(f"cannot receive requests, retrying: .*{expired}")
            shown("an expired certificate", line[0])
            gateway.wait_for(expired)
            assert expired in secured.doctor("gateway")["broker"]
            secured.use(valid)
            until(is_done, "the job's end")
            until(lambda: is_ready(address), "the gateway's readiness")
    shown("a job submitted before", "answered once the certificate was valid")
