"""Versions are taken over while a whole worker, its model processes included, answers."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from messaging.contract import PING, ErrorCode, Reply, ServedModel, ServedVersion
from model import manifest as manifests
from model import serving
from model.serving import Pointer, Share
from tests import second_model
from tests.image_models import write_colours
from tests.unit.workers import (
    LARGE_SANDAL,
    MEDIUM_SANDAL,
    MODEL,
    POLL_S,
    SANDAL,
    SHARED,
    WORKER,
    Running,
    label,
    worker,
)
from worker.model_process import ModelUnavailable

NAME = second_model.NAME
OLD, NEW = second_model.SHIPPED.name, "2.0.0"
LABELS = {OLD: "Sandal", NEW: "Coat"}
"""What each version takes a sandal for."""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Two versions of the shipped model, of which the older one answers."""
    weights_dir = tmp_path / "weights"
    second_model.copy_shipped(weights_dir)
    serving.write(weights_dir, NAME, Pointer(version=OLD))
    second_model.add_mirrored(weights_dir, NAME)
    return weights_dir


@contextmanager
def serving_worker(weights_dir: Path, *names: str) -> Iterator["Asking"]:
    settings = msgspec.structs.replace(MODEL, names=names, weights_dir=str(weights_dir))
    with worker(model=settings) as running:
        yield Asking(running)


class Asking:
    """Asks a worker, and checks of each answer that its label is the one of the version that it names."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._count = 0

    def ask(self, picture: bytes = SANDAL, **fields: Any) -> Reply:
        self._count += 1
        self.running.send(str(self._count), picture, **fields)
        return self.running.replies(1)[str(self._count)]

    def version(self, picture: bytes = SANDAL, **fields: Any) -> str:
        reply = self.ask(picture, **fields)
        assert reply.error is None, reply.error
        assert label(reply) == LABELS[reply.version]
        return reply.version

    def refused(self, **fields: Any) -> str:
        """Why the model is unknown."""
        error = self.ask(**fields).error
        assert error is not None
        assert error.code is ErrorCode.UNKNOWN_MODEL
        return error.detail

    def models(self) -> dict[str, ServedModel]:
        return {model.name: model for model in self.ask(b"", content_type=PING).models}

    def unserved(self) -> dict[str, dict[str, str]]:
        """The problem of each version of each model that cannot be served."""
        pong = self.ask(b"", content_type=PING)
        return {its.name: {each.version: each.problem for each in its.versions} for its in pong.unserved}

    def versions(self, name: str = NAME) -> dict[str, ServedVersion]:
        return {version.version: version for version in self.models()[name].versions}

    def until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < end, self.models()
            time.sleep(POLL_S)


def test_a_promoted_version_takes_over_and_no_request_is_lost_or_wrong(weights: Path) -> None:
    with serving_worker(weights, NAME) as asking:
        assert asking.version() == OLD
        serving.write(weights, NAME, serving.promoted(Pointer(version=OLD), NEW))
        came = []
        for picture in (SANDAL, MEDIUM_SANDAL, LARGE_SANDAL) * 1_000:
            came.append(asking.version(picture))
            if came[-3:] == [NEW] * 3:
                break
        assert came[-1] == NEW
        assert came == sorted(came)
        serving.write(weights, NAME, serving.rolled_back(Pointer(version=NEW, previous=OLD)))
        asking.until(lambda: asking.version() == OLD)
        assert asking.running.model.starts == 3


def test_a_canary_answers_its_share_and_who_names_a_version_gets_it(weights: Path) -> None:
    serving.write(weights, NAME, Pointer(version=OLD, share=Share(NEW, 30)))
    with serving_worker(weights) as asking:
        assert {name: its.share_percent for name, its in asking.versions().items()} == {OLD: 70, NEW: 30}
        versions = [asking.version() for _ in range(200)]
        assert 30 < versions.count(NEW) < 90
        for picture in (SANDAL, MEDIUM_SANDAL, LARGE_SANDAL):
            for version in (OLD, NEW):
                assert asking.version(picture, version=version) == version
        error = asking.ask(version="9").error
        assert error is not None
        assert (error.code, error.detail) == (
            ErrorCode.UNKNOWN_MODEL,
            f"no model '{NAME}' of version '9'; served: {NAME} {OLD}, {NAME} {NEW}",
        )
        starts = asking.running.model.starts
        serving.write(weights, NAME, Pointer(version=OLD, share=Share(NEW, 99)))
        asking.until(lambda: asking.versions()[NEW].share_percent == 99)
        assert asking.running.model.starts == starts


def damage(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not what the manifest names")


def contradict(folder: Path) -> None:
    """With a golden picture of the other version."""
    shutil.copytree(second_model.SHIPPED / "golden", folder / "golden")
    second_model.change(folder, golden=manifests.read(second_model.SHIPPED).golden)


@pytest.mark.parametrize(
    ("harm", "says"), [(damage, "is not the file that its manifest names"), (contradict, "and should be as")]
)
def test_a_broken_version_changes_nothing_is_reported_and_keeps_no_other_from_being_served(
    weights: Path, harm: Callable[[Path], None], says: str
) -> None:
    harm(weights / NAME / NEW)
    with serving_worker(weights) as asking:
        serving.write(weights, NAME, Pointer(version=NEW, previous=OLD))
        write_colours(weights)
        asking.until(lambda: "colours" in asking.models() and NEW in asking.versions())
        its = asking.versions()
        assert (its[OLD].share_percent, its[NEW].share_percent) == (100, 0)
        assert says in its[NEW].problem
        assert str(weights) not in its[NEW].problem
        assert asking.version() == OLD
        os.kill(model_process(asking.running), signal.SIGKILL)
        assert asking.version(LARGE_SANDAL) == OLD
        shutil.rmtree(weights / NAME / NEW)
        second_model.add_mirrored(weights, NAME)
        asking.until(lambda: asking.version() == NEW)
        assert asking.versions()[NEW].problem == ""


def test_what_waits_for_files_changed_while_they_are_served_is_reported(weights: Path) -> None:
    manifest = write_colours(weights) / manifests.FILE
    sound = manifest.read_text()
    with serving_worker(weights) as asking:
        assert asking.ask(model="colours").error is None
        manifest.write_text("{")
        asking.until(lambda: asking.versions("colours")["1.0.0"].problem != "")
        serving.write(weights, NAME, Pointer(version=NEW, previous=OLD))
        asking.until(lambda: NEW in asking.versions())
        assert "waits until the files of colours 1.0.0" in asking.versions()[NEW].problem
        assert asking.version() == OLD
        assert asking.ask(model="colours").error is None
        manifest.write_text(sound)
        asking.until(lambda: asking.version() == NEW)
        assert asking.versions()[NEW].problem == ""


def model_process(running: Running) -> int:
    with running.model.serving() as its:
        process = its.models._model._process
        assert process is not None
        return process.pid


def test_a_model_is_served_when_its_folder_is_complete_and_no_longer_when_it_is_gone(weights: Path) -> None:
    place = weights.parent / "elsewhere"
    folder = write_colours(place)
    with serving_worker(weights) as asking:
        there = weights / "colours" / "1.0.0"
        there.mkdir(parents=True)
        shutil.copy(folder / "model.yaml", there)
        (there / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:100])
        asking.until(lambda: "its SHA-256 is not" in asking.refused(model="colours"))
        assert "its SHA-256 is not" in asking.unserved()["colours"]["1.0.0"]
        assert str(weights) not in asking.unserved()["colours"]["1.0.0"]
        shutil.copy(folder / "model.onnx", there)
        asking.until(lambda: "colours" in asking.models())
        assert asking.unserved() == {}
        assert asking.ask(model="colours").error is None
        assert asking.ask(LARGE_SANDAL, model="colours").error is None
        shutil.rmtree(weights / "colours")
        asking.until(lambda: "colours" not in asking.models())
        assert asking.version() == OLD


def test_a_model_whose_manifest_says_so_is_served_only_by_name(weights: Path) -> None:
    second_model.change(write_colours(weights), served=False)
    with serving_worker(weights) as asking:
        assert [*asking.models()] == [NAME]
    with serving_worker(weights, NAME, "colours") as asking:
        assert [*asking.models()] == [NAME, "colours"]


def test_a_shadow_is_compared_and_its_death_costs_nothing(weights: Path) -> None:
    serving.write(weights, NAME, Pointer(version=OLD, shadow=NEW))
    with serving_worker(weights) as asking:

        def agreement() -> tuple[int, int, int, int]:
            its = asking.versions()[NEW].shadow
            assert its is not None
            return its.same, its.other, its.failed, its.skipped

        for picture in (SANDAL, MEDIUM_SANDAL, LARGE_SANDAL):
            assert asking.version(picture) == OLD
        asking.until(lambda: agreement() == (0, 2, 0, 1))
        with asking.running.model.serving() as its:
            assert its.shadow is not None
            process = its.shadow._models._process
        assert process is not None
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
        os.kill(process.pid, signal.SIGKILL)
        assert asking.version() == OLD
        asking.until(lambda: agreement() == (0, 2, 1, 1))
        asking.until(lambda: asking.version() == OLD and agreement()[1] > 2)
        serving.write(weights, NAME, Pointer(version=OLD, shadow=OLD.replace("4", "5")))
        asking.until(
            lambda: "has no model.yaml" in "".join(its.problem for its in asking.versions().values())
        )


def test_a_worker_that_starts_with_a_broken_version_serves_the_previous_one(weights: Path) -> None:
    damage(weights / NAME / NEW)
    serving.write(weights, NAME, Pointer(version=NEW, previous=OLD))
    with serving_worker(weights, NAME) as asking:
        assert asking.version() == OLD
        assert "is not the file that its manifest names" in asking.versions()[NEW].problem


@pytest.mark.parametrize("names", [(), (NAME,), ("colours", NAME)])
def test_without_a_sound_version_of_a_model_that_must_be_served_there_is_no_worker(
    weights: Path, names: tuple[str, ...]
) -> None:
    write_colours(weights)
    damage(weights / NAME / NEW)
    serving.write(weights, NAME, Pointer(version=NEW))
    settings = msgspec.structs.replace(MODEL, names=names, weights_dir=str(weights))
    running = Running("worker.model_main", settings, WORKER, SHARED)
    with pytest.raises(ModelUnavailable, match="is not the file that its manifest names"):
        running.model.load()
    running.model.close()


def test_a_version_that_ends_the_process_while_it_is_loaded_is_to_blame(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_colours(weights)
    monkeypatch.setenv("DEADLY_MODEL", "colours")
    settings = msgspec.structs.replace(MODEL, names=(), weights_dir=str(weights))
    with worker("tests.fragile_model", model=settings) as running:
        asking = Asking(running)
        assert [*asking.models()] == [NAME]
        error = asking.ask(model="colours").error
    assert error is not None
    assert (
        "colours 1.0.0 cannot be served: the model process did not start, loading colours 1.0.0"
        in error.detail
    )


def test_what_serves_goes_on_until_nobody_uses_it(weights: Path) -> None:
    with serving_worker(weights) as asking:
        assert asking.version() == OLD
        with asking.running.model.serving() as before:
            serving.write(weights, NAME, Pointer(version=NEW))
            asking.until(lambda: asking.version() == NEW)
            process = before.models._model._process
            assert process is not None
            assert process._process.poll() is None
        asking.until(lambda: process._process.poll() is not None)


def served(running: Running) -> str:
    with running.model.serving() as its:
        return its.roster.default.version


def test_requests_of_many_threads_are_all_answered_through_many_swaps(weights: Path) -> None:
    with serving_worker(weights) as asking:
        assert asking.version() == OLD

        def swap() -> None:
            pointers = (Pointer(version=NEW, previous=OLD), Pointer(version=OLD, previous=NEW))
            for pointer in pointers * 3:
                serving.write(weights, NAME, pointer)
                while served(asking.running) != pointer.version:
                    time.sleep(POLL_S)

        swapping = threading.Thread(target=swap, daemon=True)
        swapping.start()
        count = 0
        while swapping.is_alive():
            asking.running.send(f"s{count}", SANDAL)
            count += 1
            swapping.join(0.01)
        replies = asking.running.replies(count)
    assert {reply.error for reply in replies.values()} == {None}
    assert {label(reply) == LABELS[reply.version] for reply in replies.values()} == {True}
