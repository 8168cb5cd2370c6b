"""The user's commands and the client, over everything that `mlaas up` starts."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.kafka.local_kafka import free_port
from mlaas_client import AsyncClient, Client, Prediction, Refused
from tests.e2e.services import ROOT, SAMPLES, label_of, mlaas, service, up

SLICE = np.load(ROOT / "tests" / "data" / "fashion-mnist-test-500.npz")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with up() as (_, its_url):
        yield its_url


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
            assert [model.default for model in await client.models()] == [True]
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


def test_what_the_model_saw_is_written_to_a_folder(url: str, tmp_path: Path) -> None:
    both = "samples/bag.png", str(tmp_path / "bag.png")
    shutil.copy(ROOT / "samples" / "coat.png", both[1])
    said = mlaas("predict", "--explain", str(tmp_path / "seen"), *both, MLAAS_URL=url)
    assert said.returncode == 0
    seen = [json.loads(line)["input"] for line in said.stdout.splitlines()]
    assert seen == [str(tmp_path / "seen" / name) for name in ("bag.png", "bag-2.png")]
    for file, picture in zip(seen, both, strict=True):
        assert np.array_equal(
            np.asarray(Image.open(file)), np.asarray(Image.open(ROOT / picture).convert("L"))
        )


def test_a_job_that_is_over_cannot_be_canceled(url: str) -> None:
    job = mlaas("jobs", "submit", "samples/bag.png", MLAAS_URL=url).stdout.strip()
    assert mlaas("jobs", "get", "--wait", job, MLAAS_URL=url).returncode == 0
    said = mlaas("jobs", "cancel", job, MLAAS_URL=url)
    assert said.stderr.startswith("nothing was canceled: the job was over\n")


def test_without_keys_jobs_are_not_listed(url: str) -> None:
    said = mlaas("jobs", "list", MLAAS_URL=url)
    assert (said.returncode, said.stdout) == (1, "")
    assert "keep what submitting returns" in said.stderr


def test_up_says_how_to_ask_it_from_here_and_that_it_stops(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "keys.txt").write_text(f"alice {digest}\n")
    with up("--set", f"gateway.api_keys_file={tmp_path / 'keys.txt'}", MLAAS_API_KEY="secret") as (
        running,
        url,
    ):
        asking = running.wait_for(r"curl -F file=@samples/sandal\.png .*")[0]
        said = subprocess.run(
            ["bash", "-c", f"{asking}"], cwd=ROOT, env={**os.environ, "MLAAS_API_KEY": "secret"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert json.loads(said.stdout)["label"] == "Sandal", url
        alice = {"MLAAS_URL": url, "MLAAS_API_KEY": "secret"}
        job = mlaas("jobs", "submit", "samples/bag.png", **alice).stdout.strip()
        assert mlaas("jobs", "list", **alice).stdout.startswith(f"{job}  20")
        assert [its["id"] for its in json.loads(mlaas("jobs", "list", "--json", **alice).stdout)] == [job]
        running.stop(signal.SIGINT)
    assert running.output.splitlines()[-1] == "Stopped."
    assert "stopping; requests that are open get their answers first" in running.output


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
