"""Versions that are compared, shared, promoted, rolled back, and found to be broken, while requests come."""

import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from model import manifest as manifests
from tests.e2e.services import mlaas, until
from tests.faults.asking import Client, Entry, in_turn, judge
from tests.faults.fleet import Fleet
from tests.faults.outcome import Check, Outcome, least, most, none, one_right_answer_each, outcome, within_s
from tests.faults.stage import TIMEOUT_S, Stage, under_load
from tests.second_model import NAME, SHIPPED, change

OLD, NEW, OTHER_DIGEST, OTHER_ANSWER = SHIPPED.name, "2.0.0", "3.0.0", "4.0.0"
SOUND = (OLD, NEW)
SHARE_PERCENT = 10
TAKEN_OVER_S = 30.0


def rollout(stage: Stage) -> Outcome:
    """Every step of a roll-out under load: no request fails, and only versions that have passed answer."""
    rate = stage.size(200, 40)
    client = Client(TIMEOUT_S)
    with tempfile.TemporaryDirectory() as temporary:
        weights = _weights(Path(temporary))
        with stage.running(2, MLAAS_MODEL__WEIGHTS_DIR=str(weights)) as (fleet, gateway):
            steps = _Steps(fleet, weights, hold_s=stage.size(15, 3))
            load = client.drive(
                in_turn([gateway]), map(stage.pictures, range(1_000_000)), rate, stop=steps.over.is_set
            )
            under_load(load, steps.play)
    judged = judge(client.entries)
    shares = {name: _share(client.entries, *times) for name, times in steps.held.items()}
    canary, tolerance = shares["share"], stage.size(2, 7)
    return outcome(
        [
            *one_right_answer_each(judged, 1.0),
            none("answered without a version", judged.statuses.get(200, 0) - _named(client.entries)),
            none("answered by a version that had not passed", _named(client.entries, besides=SOUND)),
            most(f"share of the canary, percent off {SHARE_PERCENT}", abs(canary - SHARE_PERCENT), tolerance),
            Check("share of the new version once promoted, percent", shares["promote"], "==", 100),
            *(
                Check(f"share of the new version, {name}, percent", shares[name], "==", 0)
                for name in ("shadow", "rollback", "other digest", "other answer")
            ),
            least("answers compared by the shadow", steps.compared["same"], 1),
            none("of them not the same", steps.compared["other"] + steps.compared["failed"]),
            within_s("longest until a step was taken over", max(steps.took_s.values()), TAKEN_OVER_S),
        ],
        judged.numbers()
        | {
            "requests_per_s": rate,
            "share_percent": {name: round(share, 2) for name, share in shares.items()},
            "taken_over_after_s": {name: round(took, 1) for name, took in steps.took_s.items()},
            "compared": dict(steps.compared),
        },
    )


def _weights(place: Path) -> Path:
    """The shipped model as it is and in three later versions, two of them broken."""
    weights = place / "weights"
    shutil.copytree(SHIPPED, weights / NAME / OLD)
    for version in (NEW, OTHER_DIGEST, OTHER_ANSWER):
        folder = Path(shutil.copytree(SHIPPED, weights / NAME / version))
        manifests.write(folder, msgspec.structs.replace(manifests.read(SHIPPED), version=version))
    (weights / NAME / OTHER_DIGEST / "model.onnx").write_bytes(b"not what the manifest names")
    folder = weights / NAME / OTHER_ANSWER
    first, *golden = manifests.read(folder).golden
    change(folder, golden=(msgspec.structs.replace(first, probability=0.5), *golden))
    (weights / NAME / "serving.yaml").write_text(f"version: '{OLD}'\n")
    return weights


class _Steps:
    """Gives the commands one after the other, and holds each until it has been under load for hold_s.

    held: by step, from when to when all workers had taken it over, in monotonic seconds.
    """

    def __init__(self, fleet: Fleet, weights: Path, hold_s: float) -> None:
        self.over = threading.Event()
        self.held: dict[str, tuple[float, float]] = {}
        self.took_s: dict[str, float] = {}
        self.compared: Counter[str] = Counter()
        self._fleet = fleet
        self._weights = weights
        self._hold_s = hold_s

    def play(self, over: threading.Event) -> None:
        try:
            self._hold(over)
            self._step("shadow", over, ["promote", NAME, NEW, "--shadow"], lambda: self._count("same") > 0)
            for how in ("same", "other", "failed", "skipped"):
                self.compared[how] = int(self._count(how))
            self._step(
                "share",
                over,
                ["promote", NAME, NEW, "--share", str(SHARE_PERCENT)],
                lambda: self._answers(NEW, SHARE_PERCENT),
            )
            self._step("promote", over, ["promote", NAME, NEW], lambda: self._answers(NEW, 100))
            self._step("rollback", over, ["rollback", NAME], lambda: self._answers(OLD, 100))
            for name, version in (("other digest", OTHER_DIGEST), ("other answer", OTHER_ANSWER)):
                self._step(name, over, ["promote", NAME, version], partial(self._fails, version))
        finally:
            self.over.set()

    def _step(
        self, name: str, over: threading.Event, command: list[str], is_taken_over: Callable[[], bool]
    ) -> None:
        began = time.monotonic()
        done = mlaas("models", *command, MLAAS_MODEL__WEIGHTS_DIR=str(self._weights))
        assert done.returncode == 0, done.stderr
        until(is_taken_over, f"{' '.join(command)} taken over")
        start = time.monotonic()
        self.took_s[name] = start - began
        self._hold(over)
        self.held[name] = start, time.monotonic()

    def _hold(self, over: threading.Event) -> None:
        over.wait(self._hold_s)

    def _answers(self, version: str, percent: int) -> bool:
        return all(its == percent for its in self._of_workers("mlaas_worker_share_percent", version))

    def _fails(self, version: str) -> bool:
        return all(its == 1 for its in self._of_workers("mlaas_worker_version_problem", version))

    def _count(self, how: str) -> float:
        return min(self._of_workers("mlaas_worker_shadow_answers_total", NEW, f'answer="{how}",'))

    def _of_workers(self, metric: str, version: str, first: str = "") -> list[float]:
        pattern = rf'{metric}\{{{first}model="{NAME}",version="{version}"'
        return [self._fleet.metric(worker, pattern) for worker in ("worker-1", "worker-2")]


def _named(entries: list[Entry], besides: tuple[str, ...] = ()) -> int:
    """How many answers name a version besides these."""
    return sum(bool(entry.version) and entry.version not in besides for entry in entries)


def _share(entries: list[Entry], start: float, end: float) -> float:
    """Percent of the requests within this time that the new version answered."""
    versions = [entry.version for entry in entries if entry.due >= start and entry.ended <= end]
    return 100 * versions.count(NEW) / max(1, len(versions))
