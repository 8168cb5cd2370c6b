"""What a worker remembers of ids and replies, which strangers choose, is bounded by bytes."""

import hashlib

import pytest

from messaging.broker import Delivery, LogPosition, Message
from messaging.contract import Mode, Reply, Request, ReturnAddress, ServedModel
from worker.answering import PoisonPictures, RecentReplies
from worker.batching import Queued
from worker.consumer import Cancelled
from worker.triage import Task

MODEL = ServedModel(name="m", version="1")


def test_the_oldest_are_forgotten_first() -> None:
    cancelled = Cancelled(max_bytes=3 * 250)
    cancelled.add(["a", "b", "c", "a", "d"])
    assert [name in cancelled for name in "abcd"] == [False, True, True, True]


@pytest.mark.parametrize("length", [1, 256])
def test_however_long_the_ids_are_they_take_no_more_than_the_bound(length: int) -> None:
    cancelled = Cancelled(max_bytes=100_000)
    ids = [f"{number:0{length}}" for number in range(1_000, 2_000)]
    cancelled.add(ids)
    kept = [each for each in ids if each in cancelled]
    assert kept == ids[-len(kept) :]
    assert 0.8 * 100_000 < sum(250 + length for _ in kept) < 1.3 * 100_000


def task(name: str, picture: bytes = b"", mode: Mode = "auto", model: ServedModel = MODEL) -> Task:
    message = Message(picture, {"correlation_id": name, "reply_to": "r"})
    request = Request(body=picture, correlation_id=name, reply_to="r", mode=mode)
    address = ReturnAddress("r", {"correlation_id": name})
    return Task(Queued(Delivery(message, "t", LogPosition(0, 0), 0), 0.0, 0.0), address, request, model)


def reply(labels: int = 1, picture: bytes = b"") -> Reply:
    sha256 = hashlib.sha256(picture).hexdigest()
    return Reply(sha256=sha256, probabilities={str(number): 0.5 for number in range(labels)})


def test_replies_are_remembered_until_newer_ones_take_their_room() -> None:
    recent = RecentReplies(max_bytes=100_000)
    for number in range(1_000):
        recent.keep(task(str(number)), reply())
        recent.keep(task(str(number)), reply())
    kept = [number for number in range(1_000) if recent.get(task(str(number)))]
    assert kept == list(range(1_000 - len(kept), 1_000))
    assert 60 < len(kept) < 110


def test_a_reply_with_many_labels_takes_as_much_room_as_many_replies() -> None:
    recent = RecentReplies(max_bytes=100_000)
    for number in range(10):
        recent.keep(task(str(number)), reply(labels=500))
    assert [number for number in range(10) if recent.get(task(str(number)))] == [8, 9]
    recent.keep(task("too large"), reply(labels=5_000))
    assert recent.get(task("too large")) is None


def test_the_same_id_with_another_picture_is_another_request() -> None:
    recent = RecentReplies()
    recent.keep(task("1", b"a"), reply(picture=b"a"))
    assert recent.get(task("1", b"a")) is not None
    assert recent.get(task("1", b"b")) is None
    recent.keep(task("1", b"b"), reply(picture=b"b"))
    assert recent.get(task("1", b"a")) is None
    assert recent.get(task("1", b"b")) is not None


def test_a_copy_of_a_culprit_is_known_whoever_sends_it_but_not_for_another_model_or_mode() -> None:
    poison = PoisonPictures()
    poison.add(task("1", b"a"))
    assert poison.has(task("2", b"a"))
    assert not poison.has(task("1", b"b"))
    assert not poison.has(task("1", b"a", mode="photo"))
    assert not poison.has(task("1", b"a", model=ServedModel(name="other", version="1")))
    assert not poison.has(task("1", b"a", model=ServedModel(name="m", version="2")))


def test_a_culprit_is_forgotten_after_ten_minutes_and_when_others_take_its_place() -> None:
    now = 0.0
    poison = PoisonPictures(max_kept=2, clock=lambda: now)
    for picture in (b"a", b"b", b"c"):
        poison.add(task("1", picture))
    assert [poison.has(task("1", picture)) for picture in (b"a", b"b", b"c")] == [False, True, True]
    now = 599.0
    poison.add(task("1", b"c"))
    now = 601.0
    assert [poison.has(task("1", picture)) for picture in (b"b", b"c")] == [False, True]
