"""Gateway and workers over Google Pub/Sub: a fake of Google's own, and nothing changes but the URL."""

import hashlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from google.pubsub_v1.types import pubsub as types

from messaging import connect
from messaging.broker import Message
from messaging.pubsub_link import Link
from tests.e2e.services import (
    PATIENCE_S,
    ROOT,
    SAMPLES,
    Service,
    descendants,
    label_of,
    mlaas,
    predict,
    service,
    until,
)
from tests.pubsub.local_pubsub import LocalPubSub

SANDAL = (ROOT / "samples" / "sandal.png").read_bytes()
BROKER = "pubsub://end-to-end"


@pytest.fixture(scope="module")
def running(pubsub: LocalPubSub) -> Iterator[tuple[Service, str]]:
    theirs = {"MLAAS_JOBS__STORE": f"sqlite:///{tempfile.mkdtemp()}/jobs.sqlite3"}
    with service("up", "--port", "0", "--workers", "2", "--broker", BROKER, **theirs) as started:
        yield started, started.wait_for(r"Ready: (http://\S+)")[1]


def over_it(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return mlaas(*arguments, MLAAS_BROKER__URL=BROKER)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_comes_back_with_its_own_label(running: tuple[Service, str], sample: Path) -> None:
    assert predict(running[1], sample.read_bytes()).json()["label"] == label_of(sample)


def test_a_batch_and_the_page_and_the_models_are_answered(running: tuple[Service, str]) -> None:
    _, url = running
    files = [("file", sample.read_bytes()) for sample in SAMPLES]
    results = httpx.post(f"{url}/predict/batch", files=files, timeout=PATIENCE_S).json()["results"]
    assert [each["prediction"]["label"] for each in results] == [label_of(sample) for sample in SAMPLES]
    assert "<title>" in httpx.get(url).text
    assert httpx.get(f"{url}/models").json()


def test_a_job_is_done(running: tuple[Service, str]) -> None:
    _, url = running
    submitted = httpx.post(f"{url}/jobs", files=[("file", SANDAL)] * 5, timeout=PATIENCE_S)
    assert submitted.status_code == 202
    job = f"{url}{httpx.URL(submitted.headers['location']).path}"

    def is_done() -> bool:
        return httpx.get(job, params={"wait": "5s"}, timeout=PATIENCE_S).json()["status"] == "done"

    until(is_done, "the job's end")


def test_send_and_receive_go_straight_over_the_broker(running: tuple[Service, str]) -> None:
    broker = {"MLAAS_BROKER__URL": BROKER}
    with service("receive", "--count", "1", "--timeout", "30", **broker) as receiving:
        receiving.wait_for("listening on predict.replies/cli")
        sent = over_it("send", "samples/sandal.png")
        assert sent.returncode == 0, sent.stderr
        assert receiving.wait() == 0
    assert f'"correlation_id": "{sent.stdout.split()[0]}"' in receiving.output
    assert hashlib.sha256(SANDAL).hexdigest() in receiving.output
    waited = over_it("send", "--wait", "samples/sandal.png")
    assert json.loads(waited.stdout)["file"] == "samples/sandal.png"


def test_doctor_finds_all_sound_and_what_is_missing(running: tuple[Service, str]) -> None:
    sound = over_it("doctor", "--url", running[1])
    assert sound.returncode == 0, sound.stdout
    assert f"{BROKER} answers" in sound.stdout
    elsewhere = mlaas("topics", "plan", MLAAS_BROKER__URL="pubsub://elsewhere")
    assert elsewhere.returncode == 1
    assert "topic predict.requests" in elsewhere.stdout
    assert "subscription predict.requests.mlaas-workers" in elsewhere.stdout
    created = mlaas("topics", "create", MLAAS_BROKER__URL="pubsub://elsewhere")
    assert "predict.dead-letters.records: created" in created.stdout
    assert mlaas("topics", "plan", MLAAS_BROKER__URL="pubsub://elsewhere").returncode == 0
    assert "exists already" in mlaas("topics", "create", MLAAS_BROKER__URL="pubsub://elsewhere").stdout


def test_rights_are_granted_elsewhere(pubsub: LocalPubSub) -> None:
    refused = over_it("topics", "grant", "worker", "somebody")
    assert refused.returncode == os.EX_UNAVAILABLE
    assert "roles of IAM" in refused.stderr


def test_dead_letters_are_listed_shown_replayed_and_deleted(running: tuple[Service, str]) -> None:
    def letters() -> list[str]:
        return [json.loads(line)["letter"] for line in over_it("dlq", "ls").stdout.splitlines()]

    broker = connect(BROKER)
    for number in range(3):
        unanswerable = Message(SANDAL, {"correlation_id": f"id-{number}", "deadline_ms": "1"})
        broker.publish("predict.requests", unanswerable).result(PATIENCE_S)
    broker.close()
    until(lambda: len(letters()) == 3, "burying them")
    first, second, third = letters()
    shown = json.loads(over_it("dlq", "show", second).stdout)
    assert shown["sha256"] == hashlib.sha256(SANDAL).hexdigest()
    assert shown["original"]["topic"] == "predict.requests"
    replayed = over_it("dlq", "replay", second, "--purge", "--yes")
    assert replayed.stdout.startswith(f"{second}  answered: Sandal"), replayed.stderr
    assert sorted(letters()) == sorted([first, third])
    assert "no record" in over_it("dlq", "show", second).stderr
    assert over_it("dlq", "purge", "--yes").stderr.startswith("2 letters deleted")
    assert letters() == []


def test_a_killed_gateway_is_replaced_and_the_next_answers(running: tuple[Service, str]) -> None:
    started, url = running

    def gateways() -> set[int]:
        return {pid for pid, line in descendants(started.process.pid).items() if " gateway " in f"{line} "}

    (killed,) = gateways()
    os.kill(killed, signal.SIGKILL)
    until(lambda: bool(gateways() - {killed}), "a new gateway")

    def answers() -> bool:
        try:
            return predict(url, SANDAL).status_code == 200
        except httpx.TransportError:
            return False

    until(answers, "an answer of the new gateway")


def test_the_subscription_of_a_gateway_is_gone_after_a_clean_end(pubsub: LocalPubSub) -> None:
    link = Link("clean-end")

    def of_replies() -> list[str]:
        request = types.ListTopicSubscriptionsRequest.pb()(topic=link.topic("predict.replies"))
        answer = types.ListTopicSubscriptionsResponse.pb()
        return list(link.ask("Publisher/ListTopicSubscriptions", request, answer).subscriptions)

    with service("up", "--port", "0", "--broker", "pubsub://clean-end") as started:
        started.wait_for("Ready: ")
        assert len(of_replies()) == 1
        assert started.stop() == 0
    assert of_replies() == []
    link.close()


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "__init__.py").write_text("raise ModuleNotFoundError('gone', name='google.auth')")
    refused = mlaas("topics", "plan", "--broker", BROKER, PYTHONPATH=str(tmp_path))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "google-cloud-pubsub is not installed: run make install in " in refused.stderr
