"""Lanes that share a model process, with a process that dies of some pictures."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from messaging.contract import ErrorCode
from worker.isolation import IsolatedModel
from worker.model_process import ModelDied
from worker.pipe import Lane, Loaded, Outcome, Picture, Predicted

POISON = b"poison"


class Mortal:
    """Dies with everything that is under way, whatever lane it came by."""

    loaded = Loaded([])

    def __init__(self) -> None:
        self._dead = threading.Event()

    def predict(self, pictures: list[Picture], lane: Lane) -> Predicted:
        if any(picture.content == POISON for picture in pictures):
            self._dead.set()
        if self._dead.wait(0.001):
            raise ModelDied("dead")
        return Predicted([Outcome(mode=picture.model) for picture in pictures])

    def close(self) -> None:
        self._dead.set()


def work(model: IsolatedModel, lane: Lane, poisoned: set[int]) -> list[Outcome]:
    """A hundred batches of two."""
    outcomes: list[Outcome] = []
    for number in range(0, 200, 2):
        contents = [POISON if each in poisoned else b"sound" for each in (number, number + 1)]
        pictures = [
            Picture(content, f"{lane} {number + i}", "auto", False) for i, content in enumerate(contents)
        ]
        model.load()
        outcomes += model.predict(pictures, lane).outcomes
    return outcomes


@pytest.fixture
def threads_that_take_turns_at_any_point() -> Iterator[None]:
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("threads_that_take_turns_at_any_point")
@pytest.mark.parametrize("_time", range(25))
def test_only_the_poisoned_fail_though_both_lanes_die_of_them(_time: int) -> None:
    start: Any = Mortal
    model = IsolatedModel(start)
    poisoned = {Lane.SMALL: {0, 31, 32, 33, 120, 199}, Lane.LARGE: {0, 1, 30, 33, 121, 160}}
    with ThreadPoolExecutor(len(Lane)) as threads:
        working = {lane: threads.submit(work, model, lane, poisoned[lane]) for lane in Lane}
    for lane, done in working.items():
        outcomes = done.result()
        assert {row for row, outcome in enumerate(outcomes) if outcome.error} == poisoned[lane]
        assert all(outcome.error in (None, ErrorCode.INTERNAL) for outcome in outcomes)
        answered = [outcome.mode for row, outcome in enumerate(outcomes) if row not in poisoned[lane]]
        assert answered == [f"{lane} {row}" for row in range(200) if row not in poisoned[lane]]
