"""The user's commands and the client, over everything that `mlaas up` starts."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import AsyncClient, Client, Prediction, Refused
from tests.e2e.services import ROOT, SAMPLES, Service, descendants, is_ready, label_of, service, until, up

SLICE = np.load(ROOT / "tests" / "data" / "fashion-mnist-test-500.npz")


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Service, str]]:
    with up() as started:
        yield started


@pytest.fixture(scope="module")
def url(running: tuple[Service, str]) -> str:
    return running[1]


def mlaas(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mlaas", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as its:
        its.bind(("127.0.0.1", 0))
        return int(its.getsockname()[1])


# The client.


def test_a_picture_may_be_given_in_any_form(url: str) -> None:
    sandal = ROOT / "samples" / "sandal.png"
    with Client(url) as client, Image.open(sandal) as image, sandal.open("rb") as file:
        forms = [sandal, str(sandal), sandal.read_bytes(), file, image, np.asarray(image)]
        found = [client.predict(form) for form in forms]  # type: ignore[arg-type]
    assert [its.label for its in found] == ["Sandal"] * len(forms)
    assert len({its.confidence for its in found}) == 1


def test_hundreds_of_pictures_come_back_each_with_its_own_answer(url: str) -> None:
    """The same as one by one, in order, and a bad one among them."""
    pictures: list[object] = [*SLICE["images"][:200]]
    pictures[77] = b"rubbish"
    told: list[int] = []
    with Client(url) as client:
        together = client.predict_many(pictures, progress=lambda done, _: told.append(done))  # type: ignore[arg-type]
        alone = [client.predict(picture) for picture in SLICE["images"][:20]]
    assert isinstance(together[77], Refused)
    right = [its.label for its in together[:20] if isinstance(its, Prediction)]
    assert right == [its.label for its in alone]
    assert sum(isinstance(its, Prediction) for its in together) == 199
    assert told[-1] == 200


def test_the_client_for_asyncio_asks_the_same(url: str) -> None:
    async def ask() -> list[str]:
        async with AsyncClient(url) as client:
            found = await client.predict_many(SAMPLES)
            assert [model.default for model in await client.models()] == [True, False]
            return [its.label for its in found if isinstance(its, Prediction)]

    assert asyncio.run(ask()) == [label_of(sample) for sample in SAMPLES]


# predict, watch.


def test_no_gateway_is_one_line(url: str) -> None:
    said = mlaas("predict", *map(str, SAMPLES), MLAAS_URL=f"http://127.0.0.1:{free_port()}")
    assert (said.returncode, said.stdout) == (1, "")
    assert len(said.stderr.splitlines()) == 1
    assert "is it running? `mlaas up` starts it" in said.stderr


def test_a_missing_file_is_one_line_and_the_others_are_answered(url: str) -> None:
    said = mlaas("predict", "nothing.png", "samples/bag.png", MLAAS_URL=url)
    assert said.returncode == 1
    assert said.stderr == "nothing.png: the picture cannot be read: No such file or directory\n"
    assert [json.loads(line).get("label") for line in said.stdout.splitlines()] == [None, "Bag"]


@pytest.mark.parametrize(
    "arguments", [["predict"], ["predict", "--mode", "sketch", "x.png"], ["watch", "nowhere"]]
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert mlaas(*arguments).returncode == 2


def test_watch_says_what_appears_outlives_the_gateway_and_ends_quietly(tmp_path: Path) -> None:
    """A picture that comes while no gateway answers waits for the next one."""
    port, folder = str(free_port()), tmp_path / "in"
    folder.mkdir()
    shutil.copy(ROOT / "samples" / "coat.png", folder / "before.png")
    address = {"MLAAS_URL": f"http://127.0.0.1:{port}"}
    with service("watch", str(folder), "--interval", "0.05", **address) as watching:
        watching.wait_for("watching")
        with service("up", "--port", port) as first:
            first.wait_for("Ready")
            shutil.copy(ROOT / "samples" / "sandal.png", folder / "a.png")
            assert '"label": "Sandal"' in watching.wait_for(r".*a\.png.*")[0]
        shutil.copy(ROOT / "samples" / "bag.png", folder / "b.png")
        watching.wait_for("waiting: .* does not answer")
        with service("up", "--port", port) as second:
            second.wait_for("Ready")
            assert '"label": "Bag"' in watching.wait_for(r".*b\.png.*label.*")[0]
        (folder / "c.png").write_bytes(b"rubbish")
        assert watching.stop(signal.SIGINT) == 0
    assert "before.png" not in watching.output
    assert "Traceback" not in watching.output


# doctor.


def checks(said: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    return {its["check"]: its["status"] for its in json.loads(said.stdout)}


def test_doctor_finds_all_sound_with_the_broker_inside(url: str) -> None:
    said = mlaas("doctor", "--url", url)
    assert said.returncode == 0, said.stdout
    assert len(said.stdout.splitlines()) == 9
    assert "inside `mlaas up`" in said.stdout


def test_doctor_asks_the_broker_itself_where_it_is_named(running: tuple[Service, str]) -> None:
    broker = running[0].wait_for(r"embedded broker at (kafka://\S+)")[1]
    said = mlaas("doctor", "--broker", broker, "--url", f"http://127.0.0.1:{free_port()}", "--json")
    its = checks(said)
    assert said.returncode == 1
    assert (its["broker"], its["topics"], its["worker"]) == ("ok", "ok", "ok")
    assert (its["port"], its["round trip"]) == ("failed", "unknown")


def test_doctor_names_what_is_not_mlaas() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        said = mlaas(
            "doctor", "--url", f"http://127.0.0.1:{other.server_port}", "--broker", "kafka://127.0.0.1:1"
        )
        other.shutdown()
    assert "is not mlaas; start mlaas on another --port" in said.stdout
    assert "FAILED  broker" in said.stdout


def test_doctor_names_weights_that_are_damaged_and_settings_that_cannot_be(url: str, tmp_path: Path) -> None:
    for file in (ROOT / "weights").iterdir():
        shutil.copy(file, tmp_path / file.name)
    with (tmp_path / "fashion-mnist.onnx").open("ab") as file:
        file.write(b"!")
    said = mlaas("--set", f"model.weights_dir={tmp_path}", "doctor", "--url", url, "--json")
    assert said.returncode == 1
    assert [check for check, status in checks(said).items() if status == "failed"] == ["model"]
    said = mlaas("--set", "gateway.prot=1", "doctor")
    assert said.returncode == 1
    assert said.stdout.startswith("FAILED  settings")
    assert "did you mean gateway.port?" in said.stdout


def test_doctor_names_a_worker_that_hangs() -> None:
    """Stopped, it keeps its connections and answers nothing."""
    with up() as (service_, url):
        below = descendants(service_.process.pid).items()
        (worker,) = [pid for pid, line in below if " worker " in line]
        os.kill(worker, signal.SIGSTOP)
        try:
            until(lambda: not is_ready(url), "the gateway noticing")
            said = mlaas("doctor", "--url", url, "--json")
        finally:
            os.kill(worker, signal.SIGCONT)
    failed = [check for check, status in checks(said).items() if status == "failed"]
    assert failed == ["worker", "ready"]


# bench, completion.


def test_bench_without_a_gateway_or_at_a_wrong_path_says_so(url: str) -> None:
    nobody = mlaas("bench", f"http://127.0.0.1:{free_port()}/predict", "--seconds", "0.2", "--clients", "2")
    assert nobody.returncode == 1
    assert "is it running?" in nobody.stderr
    wrong = mlaas("bench", f"{url}/nothing", "--seconds", "0.2", "--clients", "2")
    assert wrong.returncode == 1
    assert "the path is /predict" in wrong.stderr


def test_bench_at_a_rate_sends_as_many_as_are_due(url: str) -> None:
    said = mlaas("bench", f"{url}/predict", "--seconds", "1", "--rate", "30", "--clients", "8", "--json")
    found = json.loads(said.stdout)
    assert (found["answers"] + sum(found["errors"].values()), found["errors"]) == (30, {})


def test_the_shell_completes_commands_and_options() -> None:
    """As bash asks."""
    asked = {"_MLAAS_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    assert mlaas(COMP_WORDS="mlaas do", **asked).stdout == "plain,doctor\n"
    asked["COMP_CWORD"] = "2"
    assert "plain,--clients" in mlaas(COMP_WORDS="mlaas bench --cl", **asked).stdout
