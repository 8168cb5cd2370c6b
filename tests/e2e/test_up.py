"""The one-command start, with everything in it: embedded broker, worker, gateway."""

import base64
import io
import json
import os
import shutil
import signal
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from messaging.contract import MODES, Mode
from messaging.kafka import EmbeddedBroker
from model.preprocessing import prepare
from tests import second_model
from tests.e2e.services import (
    ROOT,
    SAMPLES,
    Service,
    descendants,
    is_alive,
    label_of,
    mlaas,
    predict,
    service,
    until,
    up,
)

pytestmark = pytest.mark.all_models

SANDAL = (ROOT / "samples" / "sandal.png").read_bytes()


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Service, str]]:
    """Its gateway reads the partition that `mlaas receive` reads, as one of twelve does by chance."""
    with up(MLAAS_GATEWAY__INSTANCE_ID="cli") as started:
        yield started


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_comes_back_with_its_own_label(running: tuple[Service, str], sample) -> None:
    _, url = running
    as_body = predict(url, sample.read_bytes()).json()
    as_form = httpx.post(f"{url}/predict", files={"file": sample.read_bytes()}, timeout=30).json()
    assert as_body["label"] == as_form["label"] == label_of(sample)
    assert sum(as_body["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert set(as_body) == {
        "label", "confidence", "probabilities", "in_distribution", "ood_score", "mode", "warnings",
        "model", "version", "request_id", "sha256", "timings",
    }  # fmt: skip
    assert (as_body["mode"], as_body["model"]) == ("raw28", "fashion-mnist")


def test_there_are_ten_samples() -> None:
    assert len(SAMPLES) == 10


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "auto"])
def test_what_the_model_saw_is_what_preparing_the_picture_gives(
    running: tuple[Service, str], mode: Mode
) -> None:
    _, url = running
    answer = predict(url, SANDAL, mode=mode, explain="input").json()
    assert answer["mode"] == mode
    data = base64.b64decode(answer["input"].removeprefix("data:image/png;base64,"), validate=True)
    with Image.open(io.BytesIO(data)) as picture:
        saw = np.asarray(picture)
    assert np.array_equal(saw, prepare(SANDAL, mode=mode, max_pixels=1000).pixels)


def test_pictures_up_to_what_the_broker_holds_are_answered_one_after_another_and_larger_ones_refused(
    running: tuple[Service, str],
) -> None:
    """They are padded behind the picture, where a JPEG file may have anything."""
    _, url = running
    into = io.BytesIO()
    Image.open(ROOT / "samples" / "photo-dress.jpg").save(into, "JPEG")
    largest = into.getvalue().ljust(EmbeddedBroker.max_bytes_in_flight, b"\0")
    for _ in range(9):  # two for each of its four partitions, and one
        assert predict(url, largest).status_code == 200
    refused = predict(url, largest + b"\0")
    assert refused.status_code == 413
    assert f"{len(largest)}" in refused.json()["detail"]
    assert predict(url, SANDAL).json()["label"] == "Sandal"


def test_what_is_not_served_is_a_problem_that_says_what_is(running: tuple[Service, str]) -> None:
    _, url = running
    unknown_mode, unknown_model = predict(url, SANDAL, mode="sketch"), predict(url, SANDAL, model="none")
    assert (unknown_mode.status_code, unknown_model.status_code) == (422, 404)
    assert all(mode in unknown_mode.json()["detail"] for mode in MODES)
    assert "served: fashion-mnist 1." in unknown_model.json()["detail"]


def test_each_of_two_models_answers_who_asks_for_it(tmp_path: Path) -> None:
    second_model.copy_shipped(tmp_path)
    second_model.add_mirrored(tmp_path, "mirrored")
    environment = {
        "MLAAS_MODEL__NAMES": "[fashion-mnist, mirrored]",
        "MLAAS_MODEL__WEIGHTS_DIR": str(tmp_path),
    }
    with up(**environment) as (_, url):
        answers = {name: predict(url, SANDAL, model=name).json() for name in ("fashion-mnist", "mirrored")}
        default = predict(url, SANDAL).json()
        asking = ["predict", "--url", url, "--model", "mirrored", "samples/sandal.png"]
        with service(*asking) as command:
            assert command.wait() == 0
    assert {name: answer["label"] for name, answer in answers.items()} == {
        "fashion-mnist": "Sandal",
        "mirrored": "Coat",
    }
    assert {answer["model"] for answer in answers.values()} == set(answers)
    assert (default["model"], default["probabilities"]) == (
        "fashion-mnist",
        answers["fashion-mnist"]["probabilities"],
    )
    assert '"label": "Coat"' in command.output


def test_a_broken_model_is_said_at_the_start_and_in_the_listing_and_the_others_are_served(
    tmp_path: Path,
) -> None:
    second_model.copy_shipped(tmp_path)
    second_model.add_mirrored(tmp_path, "flowers")
    (second_model.in_weights(tmp_path, "flowers") / "model.onnx").write_bytes(b"")
    with up(MLAAS_MODEL__WEIGHTS_DIR=str(tmp_path)) as (running_, url):
        assert running_.wait_for("Running: .*")[0].startswith("Running: 1 gateway, 1 worker, and a broker in")
        assert running_.wait_for("Models: [^.]*.")[0] == "Models: fashion-mnist."
        why = running_.wait_for(r"Not served: flowers (\S+): (.*)")
        listed = {its["name"]: its for its in httpx.get(f"{url}/models").json()["models"]}
        refused = predict(url, SANDAL, model="flowers")
        table = mlaas("models", "--url", url)
    assert [(its["version"], its["problem"]) for its in listed["flowers"]["versions"]] == [why.groups()]
    assert "is not the file that its manifest names" in why[2]
    assert [its["ready"] for its in listed.values()] == [True, False]
    assert refused.status_code == 404
    assert refused.json()["detail"] == f"flowers {why[1]} cannot be served: {why[2]}"
    assert why[2] in table.stdout


def huge_png() -> bytes:
    """100 megapixels in a hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(10_001) * 10_000, 9))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "body", "media_type", "status"),
    [
        ("an HTML file", b"<!doctype html><title>x</title>", "text/html", 415),
        ("an HTML file called a picture", b"<!doctype html><title>x</title>", "image/png", 415),
        ("an empty body", b"", "image/png", 422),
        ("a truncated PNG", SANDAL[: len(SANDAL) // 2], "image/png", 422),
        ("a 100-megapixel PNG", huge_png(), "image/png", 413),
        ("a 50 MB body", bytes(50_000_000), "image/png", 413),
        ("text", b"hello" * 100, "image/png", 422),
        ("a damaged GIF", b"GIF89a" + bytes(100), "image/gif", 422),
    ],
)
@pytest.mark.parametrize("as_form", [False, True], ids=["body", "form"])
def test_rubbish_is_a_4xx_problem_and_harms_no_process(
    running: tuple[Service, str], name: str, body: bytes, media_type: str, status: int, as_form: bool
) -> None:
    service_, url = running
    before = descendants(service_.process.pid)
    with httpx.Client(timeout=30) as http:
        if as_form:
            response = http.post(
                f"{url}/predict", files={"file": ("picture.png", io.BytesIO(body), media_type)}
            )
        else:
            response = http.post(f"{url}/predict", content=body, headers={"Content-Type": media_type})
    assert response.status_code == status, name
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"]
    assert descendants(service_.process.pid) == before


def test_the_broker_can_be_spoken_to_directly(running: tuple[Service, str]) -> None:
    service_, _ = running
    url = service_.wait_for(r"embedded broker at (kafka://\S+)")[1]
    with service("receive", "--broker", url, "--count", "2") as receiving:
        receiving.wait_for("listening on")
        with service("send", "--broker", url, "samples/sandal.png", "samples/bag.png") as sending:
            assert sending.wait() == 0
            ids = [line.split()[0] for line in sending.lines if "samples/" in line]
        assert receiving.wait() == 0
    for correlation_id in ids:
        assert correlation_id in receiving.output
    assert all('"probabilities"' in line for line in receiving.lines if line.startswith("{"))
    assert '"Sandal": 0.9' in receiving.output or '"Sandal": 1.0' in receiving.output


def test_the_answers_can_be_waited_for_without_a_gateway(running: tuple[Service, str]) -> None:
    url = running[0].wait_for(r"embedded broker at (kafka://\S+)")[1]
    told = mlaas("send", "--wait", "--broker", url, "samples/sandal.png", "samples/bag.png")
    assert told.returncode == 0, told.stderr
    answers = {its["file"]: its["probabilities"] for its in map(json.loads, told.stdout.splitlines())}
    best = {file: max(probabilities, key=probabilities.get) for file, probabilities in answers.items()}
    assert best == {"samples/sandal.png": "Sandal", "samples/bag.png": "Bag"}
    told = mlaas("send", "--wait", "--broker", url, "README.md")
    assert told.returncode == 1
    assert json.loads(told.stdout)["error"]["code"] == "invalid_picture"
    nobody = {"MLAAS_TOPICS__REQUESTS": "nobody", "MLAAS_GATEWAY__REPLY_TIMEOUT_MS": "200"}
    told = mlaas("send", "--wait", "--broker", url, "samples/bag.png", **nobody)
    assert (told.returncode, told.stdout) == (os.EX_UNAVAILABLE, "")
    assert "1 of 1 pictures were not answered within 0.2 s; is a worker running?" in told.stderr


def test_a_killed_worker_is_replaced_and_who_asks_meanwhile_is_answered(
    running: tuple[Service, str],
) -> None:
    service_, url = running

    def workers() -> set[int]:
        return {pid for pid, line in descendants(service_.process.pid).items() if " worker " in line}

    (killed,) = workers()
    os.kill(killed, signal.SIGKILL)
    assert predict(url, SANDAL).json()["label"] == "Sandal"
    assert workers() and killed not in workers()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_its_end_leaves_no_process_behind(how: signal.Signals) -> None:
    with up("--workers", "2") as (service_, _):
        below = descendants(service_.process.pid)
        assert len(below) >= 5, below  # a gateway, two workers, two model processes, and perhaps decoders
        code = service_.stop(how)
        until(lambda: not any(is_alive(pid) for pid in below), "the end of all processes")
    assert code == (0 if how != signal.SIGKILL else -signal.SIGKILL)
    assert "Traceback" not in service_.output


def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with service("up", "--port", port) as running_:
            assert running_.wait() == 1
    assert (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port"
        in running_.output
    )
    assert "Traceback" not in running_.output


def test_weights_that_do_not_match_their_digest_are_said_and_nothing_stays(tmp_path) -> None:
    shutil.copytree(ROOT / "weights", tmp_path, dirs_exist_ok=True)
    with (second_model.in_weights(tmp_path) / "model.onnx").open("ab") as file:
        file.write(b"!")
    with service("up", "--port", "0", MLAAS_MODEL__WEIGHTS_DIR=str(tmp_path)) as running_:
        assert running_.wait() == 1
    assert "model.onnx is not the file that its manifest names" in running_.output
    assert "Traceback" not in running_.output
