"""Batches for several models, with models that answer what each test says."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from messaging.contract import ErrorCode
from model.classifier import UNLIKE_CLOTHING, Predictions
from model.decoding import ACCEPTED
from model.preprocessing import PictureError, prepare
from tests.unit.measured_model import manifest
from worker import model_main
from worker.model_main import decode, predict
from worker.pipe import ModelVersion, Outcome, Picture

SAMPLES = [path.read_bytes() for path in sorted(Path("samples").glob("*.png"))]


class Echo:
    """Its only probability is the mean of the picture's pixels, plus what it is given."""

    def __init__(self, plus: float = 0.0, ood_score: float = 0.0) -> None:
        self.manifest = manifest()
        self.batches: list[int] = []
        self._plus = plus
        self._ood_score = ood_score

    def predict(self, pictures: np.ndarray) -> Predictions:
        self.batches.append(len(pictures))
        rows = pictures.mean(axis=(1, 2), dtype=np.float32)[:, None] + np.float32(self._plus)
        return Predictions(rows, np.full(len(pictures), self._ood_score, np.float32))


def outcomes(models: dict[str, Any], *pictures: Picture) -> list[Outcome]:
    return predict(in_version_1(models), pictures, 1000).outcomes


def in_version_1(models: dict[str, Any]) -> dict[ModelVersion, Any]:
    return {(name, "1"): model for name, model in models.items()}


def picture(content: bytes, model: str = "a", *, with_input: bool = False) -> Picture:
    return Picture(content, (model, "1"), "raw28", with_input, preparation=manifest().preparation)


def mean(content: bytes) -> float:
    return float(prepare(content, mode="raw28", max_pixels=1000).pixels.mean())


def test_outcome_i_is_picture_i_however_models_and_broken_pictures_are_mixed() -> None:
    models = {"a": Echo(), "b": Echo(plus=1000)}
    names = ["a", "b", "b", "a", "b", "a", "a", "b", "a", "b"]
    broken = {0, 4, 9}
    contents = [b"broken" if i in broken else sample for i, sample in enumerate(SAMPLES)]
    found = outcomes(models, *map(picture, contents, names))
    assert {i for i, outcome in enumerate(found) if outcome.error is ErrorCode.INVALID_PICTURE} == broken
    for i, outcome in enumerate(found):
        if i not in broken:
            expected = mean(SAMPLES[i]) + (1000 if names[i] == "b" else 0)
            assert outcome.probabilities == [pytest.approx(expected, rel=1e-5)]


def test_each_model_runs_once_over_what_is_its_own_and_not_at_all_over_nothing() -> None:
    models = {"a": Echo(), "b": Echo(), "c": Echo()}
    pictures = [picture(sample, "a" if i % 3 else "b") for i, sample in enumerate(SAMPLES)]
    outcomes(models, *pictures, picture(b"broken", "c"))
    assert (models["a"].batches, models["b"].batches, models["c"].batches) == ([6], [4], [])


def test_above_a_score_of_1_a_picture_is_taken_for_something_else() -> None:
    for score, expected in ((0.5, True), (1.0, True), (1.5, False)):
        (outcome,) = outcomes({"a": Echo(ood_score=score)}, picture(SAMPLES[0]))
        assert (outcome.in_distribution, outcome.ood_score) == (expected, score)
        assert outcome.warnings == ([] if expected else [UNLIKE_CLOTHING])


def test_what_the_model_saw_comes_back_to_those_who_want_it() -> None:
    with_it, without = outcomes({"a": Echo()}, picture(SAMPLES[0], with_input=True), picture(SAMPLES[0]))
    assert with_it.input == prepare(SAMPLES[0], mode="raw28", max_pixels=1000).pixels.tobytes()
    assert without.input is None


def test_what_a_decoder_prepares_is_predicted_as_if_it_had_been_prepared_here() -> None:
    models = {"a": Echo(), "b": Echo(plus=1000)}
    pictures = [picture(sample, "b" if i % 2 else "a", with_input=True) for i, sample in enumerate(SAMPLES)]
    prepared = [decode(each, 1000).prepared for each in pictures]
    assert all(prepared)
    here = predict(in_version_1(models), [*pictures], 1000).outcomes
    there = predict(in_version_1(models), [each for each in prepared if each], 1000).outcomes
    assert [without_times(each) for each in there] == [without_times(each) for each in here]


def without_times(outcome: Outcome) -> Outcome:
    return msgspec.structs.replace(outcome, decode_ms=0.0, infer_ms=0.0)


def test_a_decoder_says_why_a_picture_cannot_be_used() -> None:
    decoded = decode(picture(b"broken"), 1000)
    assert decoded.prepared is None
    assert decoded.detail == f"This is not a picture in {ACCEPTED}."


def test_a_picture_for_which_the_memory_is_not_enough_is_said_to_be_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def prepare(*_: object, **__: object) -> None:
        raise PictureError("damaged") from MemoryError()

    monkeypatch.setattr(model_main, "prepare_for", prepare)
    assert "more memory" in decode(picture(SAMPLES[0]), 1000).detail
