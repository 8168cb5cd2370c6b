"""Starting what is measured, ending it, and going on when one of them fails."""

import hashlib
import sys
from io import BytesIO

import msgspec
import pytest
from PIL import Image

from bench import material, systems
from bench.aims import is_about
from bench.load import AskingFailed, printed
from bench.peers.answering import Answering
from bench.report import KAFKA, MOBILENET, REQUIREMENTS, Case, Cell, Report, version_of
from bench.run import Measured, attempt, shorter
from bench.systems import CACHE, PEERS, PeerFailed, python_of, serving
from mlaas.commands.bench import Result
from tests.e2e.services import ROOT, is_alive, until
from tests.image_models import write_colours
from tests.unit.workers import SETTINGS
from worker.model_process import ModelProcess
from worker.pipe import Picture

SERVER_WITH_A_CHILD = """
import subprocess
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
import sys
from bench.limits import serve_bare
serve_bare(int(sys.argv[-1]))
"""


@pytest.fixture
def measured(tmp_path):
    return Measured(3, 2.0, tmp_path / "partial.json")


def test_a_server_is_there_when_it_answers_and_leaves_nothing_behind():
    with serving("test", [sys.executable, "-c", SERVER_WITH_A_CHILD, "--port"], {"raw": "/"}) as system:
        child = int((CACHE / "logs" / "test.log").read_text().splitlines()[0])
        assert system.ready_s > 0
        assert child in system.roles["server"]
        assert system.memory_mb()["server"] > 5
        assert system.cpu_s()["server"] > 0
    until(lambda: not any(map(is_alive, [child, *system.roles["server"]])), "server and child gone")


def test_a_server_that_does_not_start_is_refused_with_its_last_words():
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    with (
        pytest.raises(PeerFailed, match="ended with code 3: no such model"),
        serving("test", command, {"raw": "/"}),
    ):
        pass


def test_an_environment_that_cannot_be_made_is_refused_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(systems, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(systems, "CACHE", tmp_path)
    (tmp_path / "nothing.txt").write_text("nothing @ file:///no/such/folder\n")
    with pytest.raises(PeerFailed, match=r"^not installed: "):
        python_of("nothing")


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_a_server_and_pinned_versions(name):
    peer = PEERS[name]
    assert (ROOT / "bench" / "peers" / f"{peer.module}.py").exists()
    lines = (REQUIREMENTS / f"{peer.environment}.txt").read_text().splitlines()
    assert all("==" in line for line in lines)
    assert version_of(peer.environment) != "unknown"


def test_peers_can_read_model_folders():
    for peer in PEERS.values():
        lines = (REQUIREMENTS / f"{peer.environment}.txt").read_text().splitlines()
        assert {"msgspec", "numpy", "onnxruntime", "pillow", "pyyaml"} <= {
            line.partition("==")[0] for line in lines
        }


def test_peers_answer_as_mlaas_does():
    picture = (ROOT / "samples" / "coat.png").read_bytes()
    (answer,) = Answering()([picture])
    assert msgspec.json.decode(msgspec.json.encode(answer)) == answer
    assert answer["label"] == "Coat"
    assert len(answer["probabilities"]) == 10
    assert answer["sha256"] == hashlib.sha256(picture).hexdigest()


def test_peers_answer_with_another_model(monkeypatch, tmp_path):
    write_colours(tmp_path)
    monkeypatch.setenv("BENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("BENCH_MODEL", "colours")
    into = BytesIO()
    Image.new("RGB", (120, 100), "red").save(into, "JPEG")
    (answer,) = Answering()([into.getvalue()])
    assert (answer["label"], answer["ood_score"]) == ("red", None)


def test_the_usual_photo_is_always_the_same(monkeypatch, tmp_path):
    made = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        monkeypatch.setattr(material, "CACHE", folder)
        made.append(material.usual_photo().read_bytes())
    assert made[0] == made[1]
    assert 50_000 < len(made[0]) <= material.USUAL_BYTES
    assert Image.open(BytesIO(made[0])).size == material.USUAL_SIZE


def test_loads_that_an_aim_is_about_last_longer():
    assert is_about(Case(system=KAFKA, clients=64))
    assert is_about(Case(system="Mosec", clients=64, model=MOBILENET))
    assert not is_about(Case(system="Mosec", clients=16))
    assert not is_about(Case(system="Mosec", clients=64, workers=2))
    assert (shorter(5), shorter(1)) == (3, 1)


def test_what_fails_is_noted_and_the_rest_goes_on(measured):
    for error in (AskingFailed("no answers"), PeerFailed("not installed"), ValueError("first\nlast")):
        attempt("Mosec", lambda error=error: (_ for _ in ()).throw(error), measured)
    assert [each.reason for each in measured.report().failed] == [
        "no answers",
        "not installed",
        "ValueError: last",
    ]


def test_what_was_measured_so_far_is_on_disk(measured, tmp_path):
    result = Result(answers=1, requests_per_s=9, p50_ms=1, p90_ms=2, p99_ms=3, max_ms=4, errors={})
    measured.round = 1
    measured.cell(Case(system="Mosec", clients=64), Cell(result, {"server": 0.5}, 2.0))
    measured.value("something, ms", 7.0)
    measured.keep()
    found = msgspec.json.decode((tmp_path / "partial.json").read_bytes(), type=Report)
    assert found.rows[0].requests_per_s.rounds == {1: 9.0}
    assert found.values["something, ms"].median == 7.0


def test_a_command_that_fails_is_named_by_its_last_words():
    with pytest.raises(AskingFailed, match="so it is"):
        printed([sys.executable, "-c", "import sys; sys.exit('so it is')"], Result)


def test_the_simulated_model_answers_every_picture_of_a_batch(monkeypatch):
    monkeypatch.setenv("SIMULATED_BATCH_MS", "1")
    versions, module = [("fashion-mnist", "1")], "bench.simulated_model"
    model = ModelProcess(SETTINGS.model, versions, timeout_s=20, start_timeout_s=60, module=module)
    try:
        (loaded,) = model.loaded.versions
        assert (loaded.model.name, loaded.model.version) == versions[0]
        found = model.predict([Picture(b"any", versions[0], "auto", False)] * 5)
    finally:
        model.close()
    assert [len(outcome.probabilities) for outcome in found.outcomes] == [10] * 5
