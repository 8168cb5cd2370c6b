"""A whole worker, its model process included, over a broker in memory."""

import hashlib
import os
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from messaging import codec
from messaging.broker import Message, feed
from messaging.contract import MAX_CORRELATION_ID, MAX_HEADERS, ErrorCode, Failure, Request
from messaging.memory import MemoryBroker
from tests import fragile_model, second_model
from tests.unit.workers import LARGE_SANDAL, SANDAL, SETTINGS, Running, label, worker
from worker.consumer import Consumer
from worker.isolation import IsolatedModel
from worker.model_process import ModelProcess, ModelUnavailable
from worker.pipe import Lane, Picture


def test_a_picture_is_answered_with_its_label_and_its_digest() -> None:
    with worker() as running:
        running.send("1", SANDAL)
        reply = running.replies(1)["1"]
    assert label(reply) == "Sandal"
    assert sum(reply.probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert reply.sha256 == hashlib.sha256(SANDAL).hexdigest()
    assert reply.model == "fashion-mnist"
    assert reply.timings is not None
    assert reply.timings.batch_size == 1


def test_a_jobs_picture_is_answered_to_the_jobs_replies() -> None:
    topics = SETTINGS.topics
    with worker() as running:
        replies = running.broker.subscribe(topics.job_replies, "test")
        request = Request(body=SANDAL, correlation_id="job.0", reply_to=topics.job_replies)
        running.broker.publish(topics.jobs, codec.encode_request(request)).result()
        running.send("beside it", SANDAL)
        assert label(running.replies(1)["beside it"]) == "Sandal"
        (delivery,) = replies.receive(2, 60)
    assert codec.correlation_id(delivery.message) == "job.0"
    assert label(codec.decode_reply(delivery.message)) == "Sandal"


def test_one_bad_picture_fails_alone() -> None:
    def send(running: Running) -> None:
        for number in range(8):
            running.send(str(number), SANDAL[:60] if number == 3 else SANDAL)

    with worker(before=send) as running:
        replies = running.replies(8)
    errors = {name for name, reply in replies.items() if reply.error}
    assert errors == {"3"}
    assert replies["3"].error is not None
    assert replies["3"].error.code is ErrorCode.INVALID_PICTURE
    assert all(
        reply.timings and reply.timings.batch_size == 8 for name, reply in replies.items() if name != "3"
    )


def test_the_expired_are_dropped_and_the_others_answered() -> None:
    def send(running: Running) -> None:
        running.send("expired", SANDAL, deadline_ms=1)
        running.send("in time", SANDAL, deadline_ms=int(time.time() * 1000) + 60_000)

    with worker(before=send) as running:
        assert set(running.replies(1)) == {"in time"}


@pytest.mark.parametrize("poison", [fragile_model.KILL, fragile_model.HANG, fragile_model.RAISE])
def test_a_picture_that_ends_the_model_process_costs_nobody_else_the_answer(poison: bytes) -> None:
    def send(running: Running) -> None:
        for number in range(6):
            running.send(str(number), SANDAL + (poison if number == 2 else b""))

    with worker("tests.fragile_model", before=send) as running:
        replies = running.replies(6)
        (letter,) = running.dead_letters()
        running.send("after", SANDAL)
        assert running.replies(1)["after"].error is None
    failed = {name: reply.error.code for name, reply in replies.items() if reply.error}
    assert failed == {"2": ErrorCode.INTERNAL}
    assert running.starts == 3
    assert letter.body.endswith(poison)
    assert letter.headers["kafka_dlt-original-topic"] == SETTINGS.topics.requests
    assert letter.headers["kafka_dlt-exception-message"]


def test_probabilities_that_are_no_numbers_are_an_error_at_once() -> None:
    def send(running: Running) -> None:
        for name, mark in (("sound", b""), ("odd", fragile_model.NAN)):
            running.send(name, SANDAL + mark)

    with worker("tests.fragile_model", before=send) as running:
        replies = running.replies(2)
        (letter,) = running.dead_letters()
    assert label(replies["sound"]) == "Sandal"
    assert replies["odd"].error == Failure(ErrorCode.INTERNAL, "")
    assert "nan" in letter.headers["kafka_dlt-exception-message"]


@pytest.mark.parametrize("poison", [fragile_model.KILL, fragile_model.HANG, fragile_model.RAISE])
@pytest.mark.parametrize("culprit", ["small 1", "large 1"])
def test_nor_does_it_blame_those_in_the_other_lane(culprit: str, poison: bytes) -> None:
    def send(running: Running) -> None:
        for number in range(3):
            for name, picture in ((f"large {number}", LARGE_SANDAL), (f"small {number}", SANDAL)):
                running.send(name, picture + (poison if name == culprit else b""))

    with worker("tests.fragile_model", before=send) as running:
        replies = running.replies(6)
        (letter,) = running.dead_letters()
    failed = {name: reply.error.code for name, reply in replies.items() if reply.error}
    assert failed == {culprit: ErrorCode.INTERNAL}
    assert letter.body.endswith(poison)
    assert all(label(reply) == "Sandal" for reply in replies.values() if not reply.error)


def test_a_small_picture_does_not_wait_for_a_large_one() -> None:
    def send(running: Running) -> None:
        running.send("large", LARGE_SANDAL + fragile_model.HOLD_UP)
        running.send("small", SANDAL)

    with worker("tests.fragile_model", before=send) as running:
        replies = running.replies(2)
    assert {name: label(reply) for name, reply in replies.items()} == {"large": "Sandal", "small": "Sandal"}
    assert running.starts == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_where_processors_are_short_small_pictures_go_first() -> None:
    process = ModelProcess(SETTINGS.model, timeout_s=10, start_timeout_s=60)
    try:
        process.predict([Picture(LARGE_SANDAL, "fashion-mnist", "auto", False)], Lane.LARGE)
        threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        usual = os.getpriority(os.PRIO_PROCESS, process.pid)
        later = [one for one in threads if os.getpriority(os.PRIO_PROCESS, one) > usual]
        assert len(later) == 1
        assert process.pid not in later
    finally:
        process.close()


@pytest.mark.parametrize("size", [100, 200_000])
def test_a_jobs_pictures_leave_room_for_requests(size: int) -> None:
    settings, topics = SETTINGS.worker, SETTINGS.topics
    broker = MemoryBroker()
    for _ in range(100):
        broker.publish(topics.jobs, Message(bytes(size)))
    consumer = Consumer(broker, topics, settings, IsolatedModel(lambda: pytest.fail("no model is needed")))
    intake = consumer._subscribe()
    assert intake is not None
    for _ in range(3):
        consumer._receive(intake)
    assert consumer._lanes.wait_for_room(0) == settings.max_batch_size - settings.max_jobs_in_batch


def test_large_pictures_go_one_at_a_time() -> None:
    def send(running: Running) -> None:
        for number in range(4):
            running.send(str(number), LARGE_SANDAL)

    with worker(before=send) as running:
        replies = running.replies(4).values()
    assert [reply.timings and reply.timings.batch_size for reply in replies] == [1] * 4


def test_a_request_that_is_delivered_again_gets_the_same_reply_without_the_model() -> None:
    with worker() as running:
        running.send("1", SANDAL)
        first = running.replies(1)["1"]
        running.send("1", SANDAL)
        again = running.replies(1)["1"]
        running.send("1", SANDAL + b"another picture")
        other = running.replies(1)["1"]
    assert again == first
    assert other.sha256 != first.sha256
    assert running.ended() == {"answered": 2, "duplicate": 1}


def test_what_is_cancelled_before_it_is_begun_is_skipped() -> None:
    with worker() as running:
        running.send("warm", SANDAL)
        running.replies(1)
        running.cancel("gone")
        running.send("gone", SANDAL)
        running.send("there", SANDAL)
        assert set(running.replies(1)) == {"there"}
    assert running.ended() == {"answered": 2, "cancelled": 1}


def test_garbage_among_the_cancellations_harms_nobody() -> None:
    with worker() as running:
        running.send("warm", SANDAL)
        running.replies(1)
        running.broker.publish(feed(SETTINGS.topics.cancellations), Message(b"garbage"))
        running.cancel("gone")
        running.send("gone", SANDAL)
        running.send("there", SANDAL)
        assert set(running.replies(1)) == {"there"}


def test_a_message_nobody_can_answer_becomes_a_dead_letter() -> None:
    with worker() as running:
        running.broker.publish(SETTINGS.topics.requests, Message(b"garbage", {})).result()
        (letter,) = running.dead_letters()
    assert letter.body == b"garbage"


def test_headers_over_their_bounds_are_dead_letters_and_those_at_them_are_answered() -> None:
    with worker() as running:
        running.send("a" * (MAX_CORRELATION_ID + 1), SANDAL)
        running.send("huge", SANDAL, traceparent="a" * MAX_HEADERS)
        running.send("a" * MAX_CORRELATION_ID, SANDAL)
        assert set(running.replies(1)) == {"a" * MAX_CORRELATION_ID}
        letters = running.dead_letters()
    assert len(letters) == 2
    assert all(len(letter.headers["kafka_dlt-exception-message"]) < 100 for letter in letters)


def test_stopping_finishes_what_was_taken() -> None:
    with worker() as running:
        for number in range(200):
            running.send(str(number), SANDAL)
        first = set(running.replies(1))
    waiting = running.broker.subscribe(SETTINGS.topics.requests, SETTINGS.worker.group).receive(1000, 0)
    answered = first | {codec.correlation_id(message) for message in running.inbox.receive(1000, 0)}
    untouched = {delivery.message.headers["correlation_id"] for delivery in waiting}
    assert not answered & untouched
    assert len(answered) + len(untouched) == 200


def test_whatever_ends_the_loop_ends_the_process(tmp_path: Path) -> None:
    """Else its threads would keep it, and its place in the group, without anybody who receives."""
    without = msgspec.structs.replace(SETTINGS.worker, heartbeat_file=str(tmp_path / "none" / "beat"))
    model = IsolatedModel(lambda: ModelProcess(SETTINGS.model, timeout_s=2, start_timeout_s=60))
    broker = MemoryBroker()
    before = set(threading.enumerate())
    with pytest.raises(FileNotFoundError):
        Consumer(broker, SETTINGS.topics, without, model).run()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("missing", ["fashion-mnist", "second"])
def test_without_sound_weights_of_every_model_it_never_joins_the_group(tmp_path: Path, missing: str) -> None:
    if missing != "fashion-mnist":
        second_model.copy_shipped(tmp_path)
    names = ("fashion-mnist", "second")
    broken = msgspec.structs.replace(SETTINGS.model, names=names, weights_dir=str(tmp_path))
    broker = MemoryBroker()
    model = IsolatedModel(lambda: ModelProcess(broken, timeout_s=2, start_timeout_s=60))
    with pytest.raises(ModelUnavailable, match=rf"{missing}\.json"):
        Consumer(broker, SETTINGS.topics, SETTINGS.worker, model).run()
    waiting = MemoryBroker.subscribe(broker, SETTINGS.topics.requests, SETTINGS.worker.group)
    assert waiting.receive(1, 0) == []
