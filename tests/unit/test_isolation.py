"""Processes that die of some pictures, and what becomes of the pictures."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from messaging.contract import ErrorCode
from messaging.picture_header import Size
from worker.model_process import Decoders, IsolatedModel, ModelDied, ModelUnavailable
from worker.pipe import Decoded, Outcome, Picture, Pictures, Predicted, PreparedPicture

DECODER_KILLER, MODEL_KILLER, SLOW, UNREADABLE = b"decoder", b"model", b"slow", b"unreadable"


class Mortal:
    """A process. Its answers name the picture that they are for."""

    def __init__(self) -> None:
        self.closed = False

    def predict(self, pictures: Pictures, meanwhile: Callable[[], None] = lambda: None) -> Predicted:
        assert not self.closed
        meanwhile()
        killers = (DECODER_KILLER, MODEL_KILLER)
        if any(isinstance(each, Picture) and each.content in killers for each in pictures):
            raise ModelDied("dead of a batch")
        if any(isinstance(each, PreparedPicture) and each.pixels == MODEL_KILLER for each in pictures):
            raise ModelDied("dead of its pixels")
        return Predicted([Outcome(mode=each.model[0]) for each in pictures])

    def decode(self, picture: Picture, meanwhile: Callable[[], None]) -> Decoded:
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

    def decode(self, picture: Picture, meanwhile: Callable[[], None]) -> Decoded:
        if not Once.killed:
            Once.killed = True
            raise ModelDied("killed")
        return super().decode(picture, meanwhile)


class Started:
    """Starts processes of a kind, and counts them."""

    def __init__(self, kind: Callable[[], Any] = Mortal) -> None:
        self.count = 0
        self._kind = kind

    def __call__(self) -> Any:
        self.count += 1
        return self._kind()


def isolated(decoder: Callable[[], Any] = Mortal) -> tuple[IsolatedModel, Started, Decoders]:
    """With what counts its starts."""
    start, decoders = Started(), Decoders(decoder)
    return IsolatedModel(start, decoders), start, decoders


def alone(model: IsolatedModel, one: Picture, size: Size) -> Outcome:
    """What becomes of a picture that joins no batch."""
    found = model.prepare(one, size)
    return found if isinstance(found, Outcome) else model.predict_alone(found)


def picture(content: bytes, name: str = "a") -> Picture:
    return Picture(content, (name, "1"), "auto", False)


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
    model, started, decoders = isolated()
    model.predict([picture(b"sound")])
    outcome = alone(model, picture(content), size)
    assert (outcome.error, outcome.detail) == (ErrorCode.INTERNAL, detail)
    outcome = alone(model, picture(b"sound"), size)
    assert outcome.error is None
    assert (started.count, decoders.starts) == (model_starts, decoder_starts)


def test_one_over_which_a_process_was_killed_from_outside_is_not() -> None:
    Once.killed = False
    model, _, decoders = isolated(Once)
    outcome = alone(model, picture(b"sound"), Size.LARGE)
    assert outcome.error is None
    assert decoders.starts == 2


def test_one_that_cannot_be_read_costs_no_process() -> None:
    model, started, decoders = isolated()
    outcome = alone(model, picture(UNREADABLE), Size.MEDIUM)
    assert (outcome.error, outcome.detail) == (ErrorCode.INVALID_PICTURE, "unreadable")
    assert (started.count, decoders.starts) == (0, 1)


def test_a_batch_that_ends_the_process_is_not_tried_again() -> None:
    model, started, _ = isolated()
    with pytest.raises(ModelDied):
        model.predict([picture(b"sound"), picture(MODEL_KILLER)])
    assert model.predict([picture(b"sound")]).outcomes == [Outcome(mode="a")]
    assert started.count == 2


def test_a_decoder_that_is_killed_while_it_starts_is_started_again_once() -> None:
    deaths = iter([True, False, False, True, True])

    def start() -> Any:
        if next(deaths):
            raise ModelUnavailable("the decoder process did not start")
        return Mortal()

    model, _, _ = isolated(start)
    for size in (Size.LARGE, Size.MEDIUM):
        assert alone(model, picture(b"sound"), size).mode == "a"
    model, _, _ = isolated(start)
    with pytest.raises(ModelUnavailable):
        alone(model, picture(b"sound"), Size.LARGE)


def test_a_process_that_there_is_already_is_used_first() -> None:
    started = Started()
    there: Any = Mortal()
    model = IsolatedModel(started, Decoders(Mortal), there)  # type: ignore[arg-type]
    model.predict([picture(b"sound")])
    assert started.count == 0
    with pytest.raises(ModelDied):
        model.predict([picture(MODEL_KILLER)])
    assert there.closed
    model.predict([picture(b"sound")])
    assert started.count == 1


@pytest.mark.parametrize("_time", range(5))
def test_each_gets_its_own_outcome_however_all_sizes_die_at_once(_time: int) -> None:
    model, _, _ = isolated()
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
            outcome = alone(model, picture(contents.get(number, b"sound"), name), size)
            assert (outcome.error is ErrorCode.INTERNAL) == (number in killers)
            assert outcome.mode == ("" if number in killers else name)

    with ThreadPoolExecutor(3) as threads:
        working = [
            threads.submit(small),
            *(threads.submit(larger, each) for each in (Size.MEDIUM, Size.LARGE)),
        ]
    for each in working:
        each.result()


def test_what_is_to_be_done_meanwhile_waits_neither_for_others_nor_for_a_process_to_start() -> None:
    begun, go_on, done = Event(), Event(), Event()

    class Busy(Mortal):
        def predict(self, pictures: Pictures, meanwhile: Callable[[], None] = lambda: None) -> Predicted:
            begun.set()
            assert go_on.wait(60)
            return super().predict(pictures)

    def start() -> Any:
        assert done.is_set()
        return Busy()

    model = IsolatedModel(start, Decoders(Mortal))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(model.predict, [picture(b"sound")], done.set)
        assert begun.wait(60)
        done.clear()
        second = threads.submit(model.predict, [picture(b"sound")], done.set)
        assert done.wait(60)
        go_on.set()
        assert first.result(60) == second.result(60)
