"""Processes that die of some pictures, and what becomes of the pictures."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from messaging.contract import ErrorCode
from messaging.picture_header import Size
from worker.model_process import IsolatedModel, ModelDied
from worker.pipe import Decoded, Loaded, Outcome, Picture, Pictures, Predicted, PreparedPicture

DECODER_KILLER, MODEL_KILLER, SLOW, UNREADABLE = b"decoder", b"model", b"slow", b"unreadable"


class Mortal:
    """A process. Its answers name the picture that they are for."""

    loaded = Loaded([])

    def __init__(self) -> None:
        self.closed = False

    def predict(self, pictures: Pictures) -> Predicted:
        assert not self.closed
        killers = (DECODER_KILLER, MODEL_KILLER)
        if any(isinstance(each, Picture) and each.content in killers for each in pictures):
            raise ModelDied("dead of a batch")
        if any(isinstance(each, PreparedPicture) and each.pixels == MODEL_KILLER for each in pictures):
            raise ModelDied("dead of its pixels")
        return Predicted([Outcome(mode=each.model) for each in pictures])

    def decode(self, picture: Picture) -> Decoded:
        assert not self.closed
        if picture.content == DECODER_KILLER:
            raise ModelDied("dead of its bytes")
        if picture.content == SLOW:
            raise ModelDied("too slow", out_of_time=True)
        if picture.content == UNREADABLE:
            return Decoded(detail="unreadable")
        return Decoded(PreparedPicture(picture.content, "raw28", (), 1.0, picture.model, False))

    def close(self) -> None:
        self.closed = True


class Once(Mortal):
    """Killed by somebody else over its first picture."""

    killed = False

    def decode(self, picture: Picture) -> Decoded:
        if not Once.killed:
            Once.killed = True
            raise ModelDied("killed")
        return super().decode(picture)


def isolated(decoder: Callable[[], Any] = Mortal) -> IsolatedModel:
    start: Any = Mortal
    return IsolatedModel(start, decoder)


def picture(content: bytes, name: str = "a") -> Picture:
    return Picture(content, name, "auto", False)


@pytest.mark.parametrize("size", [Size.MEDIUM, Size.LARGE])
@pytest.mark.parametrize(
    ("content", "detail", "model_starts", "decoder_starts"),
    [
        (DECODER_KILLER, "dead of its bytes", 1, 3),
        (MODEL_KILLER, "dead of its pixels", 3, 1),
        (SLOW, "too slow", 1, 2),
    ],
)
def test_a_picture_that_ends_two_processes_or_takes_too_long_is_blamed(
    size: Size, content: bytes, detail: str, model_starts: int, decoder_starts: int
) -> None:
    model = isolated()
    model.load()
    (outcome,) = model.predict_alone(picture(content), size).outcomes
    assert (outcome.error, outcome.detail) == (ErrorCode.INTERNAL, detail)
    (outcome,) = model.predict_alone(picture(b"sound"), size).outcomes
    assert outcome.error is None
    assert (model.starts, model.decoder_starts) == (model_starts, decoder_starts)


def test_one_over_which_a_process_was_killed_from_outside_is_not() -> None:
    Once.killed = False
    model = isolated(Once)
    (outcome,) = model.predict_alone(picture(b"sound"), Size.LARGE).outcomes
    assert outcome.error is None
    assert model.decoder_starts == 2


def test_one_that_cannot_be_read_costs_no_process() -> None:
    model = isolated()
    (outcome,) = model.predict_alone(picture(UNREADABLE), Size.MEDIUM).outcomes
    assert (outcome.error, outcome.detail) == (ErrorCode.INVALID_PICTURE, "unreadable")
    assert (model.starts, model.decoder_starts) == (0, 1)


def test_a_batch_that_ends_the_process_is_not_tried_again() -> None:
    model = isolated()
    with pytest.raises(ModelDied):
        model.predict([picture(b"sound"), picture(MODEL_KILLER)])
    assert model.predict([picture(b"sound")]).outcomes == [Outcome(mode="a")]
    assert model.starts == 2


def test_what_is_loaded_is_known_while_a_picture_is_under_way() -> None:
    class Asking(Mortal):
        def predict(self, pictures: Pictures) -> Predicted:
            with ThreadPoolExecutor(1) as other:
                assert other.submit(model.load).result(60) == self.loaded
            return super().predict(pictures)

    start: Any = Asking
    model = IsolatedModel(start, start)
    assert model.predict([picture(b"sound")]).outcomes


@pytest.mark.parametrize("_time", range(5))
def test_each_gets_its_own_outcome_however_all_sizes_die_at_once(_time: int) -> None:
    model = isolated()
    killers = {0, 31, 32, 33, 120, 199}

    def small() -> None:
        for number in range(200):
            name = f"small {number}"
            try:
                outcomes = model.predict([picture(MODEL_KILLER if number in killers else b"sound", name)])
            except ModelDied:
                assert number in killers
            else:
                assert [outcome.mode for outcome in outcomes.outcomes] == [name]

    def larger(size: Size) -> None:
        contents = {number: (MODEL_KILLER, DECODER_KILLER)[number % 2] for number in killers}
        for number in range(200):
            name = f"{size.name} {number}"
            (outcome,) = model.predict_alone(picture(contents.get(number, b"sound"), name), size).outcomes
            assert (outcome.error is ErrorCode.INTERNAL) == (number in killers)
            assert outcome.mode == ("" if number in killers else name)

    with ThreadPoolExecutor(3) as threads:
        working = [
            threads.submit(small),
            *(threads.submit(larger, each) for each in (Size.MEDIUM, Size.LARGE)),
        ]
    for each in working:
        each.result()
