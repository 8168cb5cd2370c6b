"""A whole worker, its model process included, over a broker in memory."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from messaging import codec
from messaging.broker import Message, feed
from messaging.contract import MAX_CORRELATION_ID, MAX_HEADERS, ErrorCode, Failure, Request, sha256_of
from messaging.memory import MemoryBroker
from messaging.picture_header import Size
from model import ModelSettings
from model import manifest as manifests
from tests import fragile_model, second_model
from tests.faults.corpus.expensive import jpeg, webp
from tests.unit.workers import (
    LARGE_SANDAL,
    MEDIUM_SANDAL,
    MODEL,
    POLL_S,
    SANDAL,
    SETTINGS,
    SHARED,
    WORKER,
    Running,
    label,
    worker,
)
from worker import triage
from worker.batching import PreparedLane
from worker.consumer import Cancelled, Consumer
from worker.model_process import ModelProcess, ModelUnavailable
from worker.pipe import ModelVersion, Picture, PictureMemory, Role
from worker.rollout import Rollout


def rollout(settings: ModelSettings) -> Rollout:
    def start(role: Role, versions: Sequence[ModelVersion]) -> ModelProcess:
        return ModelProcess(settings, versions, timeout_s=2, start_timeout_s=60, role=role)

    return Rollout(settings, start, POLL_S)


def until_begun(held_up: Path) -> None:
    end = time.monotonic() + 60
    while not fragile_model.begun(held_up).exists():
        assert time.monotonic() < end
        time.sleep(0.01)


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
    assert running.model.starts == 2
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


@pytest.mark.parametrize(
    ("culprit", "poison"),
    [("small 1", fragile_model.KILL), ("medium 1", fragile_model.HANG), ("large 1", fragile_model.RAISE)],
)
def test_nor_does_it_blame_those_in_another_lane(culprit: str, poison: bytes) -> None:
    def send(running: Running) -> None:
        for number in range(3):
            for size, picture in (("large", LARGE_SANDAL), ("medium", MEDIUM_SANDAL), ("small", SANDAL)):
                name = f"{size} {number}"
                running.send(name, picture + (poison if name == culprit else b""))

    with worker("tests.fragile_model", before=send) as running:
        replies = running.replies(9)
        (letter,) = running.dead_letters()
    failed = {name: reply.error.code for name, reply in replies.items() if reply.error}
    assert failed == {culprit: ErrorCode.INTERNAL}
    assert letter.body.endswith(poison)
    assert all(label(reply) == "Sandal" for reply in replies.values() if not reply.error)


@pytest.mark.parametrize("picture", [SANDAL, LARGE_SANDAL], ids=["small", "large"])
def test_a_copy_of_what_ended_the_process_is_answered_without_it(picture: bytes) -> None:
    with worker("tests.fragile_model") as running:
        running.send("first", picture + fragile_model.KILL)
        first = running.replies(1)["first"]
        starts = running.model.starts, running.model.decoder_starts
        for number in range(3):
            running.send(f"copy {number}", picture + fragile_model.KILL)
        copies = running.replies(3)
        assert (running.model.starts, running.model.decoder_starts) == starts
        running.send("sound", picture)
        assert label(running.replies(1)["sound"]) == "Sandal"
        assert len(running.dead_letters()) == 1
    assert first.error and first.error.code is ErrorCode.INTERNAL
    assert [reply.error and reply.error.code for reply in copies.values()] == [ErrorCode.INTERNAL] * 3
    assert running.ended() == {"answered": 1, "poison": 1, "poison_again": 3}


@pytest.mark.parametrize("size", [SANDAL, LARGE_SANDAL], ids=["small", "large"])
def test_a_picture_that_uses_up_its_processor_time_fails_alone(size: bytes) -> None:
    """Long before it would count as hanging: that takes a minute here."""
    patient = msgspec.structs.replace(WORKER, model_timeout_ms=60_000)
    with worker("tests.fragile_model", settings=patient) as running:
        running.send("endless", size + fragile_model.SPIN)
        running.send("sound", size)
        replies = running.replies(2)
    assert label(replies["sound"]) == "Sandal"
    assert replies["endless"].error and replies["endless"].error.code is ErrorCode.INTERNAL


@pytest.mark.parametrize("held_up", [MEDIUM_SANDAL, LARGE_SANDAL], ids=["medium", "large"])
def test_a_small_picture_does_not_wait_for_a_larger_one(tmp_path: Path, held_up: bytes) -> None:
    until = tmp_path / "go on"
    with worker("tests.fragile_model") as running:
        running.send("held up", held_up + fragile_model.HOLD_UP + bytes(until))
        running.send("small", SANDAL)
        assert label(running.replies(1)["small"]) == "Sandal"
        until.touch()
        assert label(running.replies(1)["held up"]) == "Sandal"
    assert running.model.starts == 1


def test_what_the_model_has_said_is_sent_while_it_works_on_the_next(tmp_path: Path) -> None:
    """If it was kept until then, the process would be killed for taking too long."""
    until = tmp_path / "go on"

    def two(running: Running) -> None:
        running.send("first", SANDAL)
        running.send("second", SANDAL + fragile_model.HOLD_UP + bytes(until))

    with worker("tests.fragile_model", two, settings=replace(WORKER, max_batch_size=1)) as running:
        assert label(running.replies(1)["first"]) == "Sandal"
        until.touch()
        assert label(running.replies(1)["second"]) == "Sandal"
    assert running.model.starts == 1


def test_nor_does_a_medium_one_wait_for_a_large_one(tmp_path: Path) -> None:
    until = tmp_path / "go on"
    with worker("tests.fragile_model") as running:
        running.send("large", LARGE_SANDAL + fragile_model.HOLD_UP + bytes(until))
        running.send("medium", MEDIUM_SANDAL)
        assert label(running.replies(1)["medium"]) == "Sandal"
        until.touch()
        assert label(running.replies(1)["large"]) == "Sandal"


def test_the_digest_of_a_large_picture_is_made_once_and_while_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until, is_made = tmp_path / "go on", threading.Event()
    of: list[bytes] = []

    def make(body: bytes) -> str:
        of.append(body)
        is_made.set()
        return sha256_of(body)

    monkeypatch.setattr(triage, "sha256_of", make)
    body = LARGE_SANDAL + fragile_model.HOLD_UP + bytes(until)
    with worker("tests.fragile_model") as running:
        running.send("large", body)
        assert is_made.wait(60)
        assert running.ended() == {}
        until.touch()
        assert running.replies(1)["large"].sha256 == sha256_of(body)
    assert of == [body]


@pytest.mark.parametrize("topic", [SETTINGS.topics.requests, SETTINGS.topics.jobs])
def test_pictures_of_few_bytes_and_many_pixels_stop_nobody(topic: str) -> None:
    """Each takes half a second or more. Small ones that come later are answered before most of them."""
    expensive = {f"expensive {number}" for number in range(5)}

    def send(running: Running) -> None:
        for name in sorted(expensive):
            running.send(name, webp(), topic)

    with worker(before=send) as running:
        first = running.replies(1)
        for number in range(5):
            running.send(f"small {number}", SANDAL)
        order = [*first, *running.replies(9)]
    assert set(order[-2:]) <= expensive
    assert running.model.starts == 1


def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded() -> None:
    with worker() as running:
        for scans in (100, 101, 10_000):
            running.send(str(scans), jpeg(scans, side=100))
        replies = running.replies(3)
    assert replies["100"].error is None
    for scans in ("101", "10000"):
        error = replies[scans].error
        assert error is not None
        assert (error.code, error.detail) == (
            ErrorCode.INVALID_PICTURE,
            "The JPEG picture has over 100 scans.",
        )


def test_so_is_a_picture_of_too_many_pixels() -> None:
    with worker() as running:
        running.send("1", webp(5_001))
        error = running.replies(1)["1"].error
    assert error is not None
    assert error.detail == "The picture has 5001 x 5001 pixels; at most 25000000 are allowed."


def test_requests_that_a_lane_has_no_room_for_are_refused_at_once_and_jobs_are_not(tmp_path: Path) -> None:
    until, few = tmp_path / "go on", msgspec.structs.replace(WORKER, max_waiting_cost_ms=150)
    with worker("tests.fragile_model", settings=few) as running:
        running.send("held up", LARGE_SANDAL + fragile_model.HOLD_UP + bytes(until))
        until_begun(until)
        running.send("waits", LARGE_SANDAL)
        running.send("too many", LARGE_SANDAL)
        running.send("medium", MEDIUM_SANDAL)
        replies = running.replies(2)
        running.send("of a job", LARGE_SANDAL, SETTINGS.topics.jobs)
        until.touch()
        later = running.replies(3)
    assert label(replies["medium"]) == "Sandal"
    error = replies["too many"].error
    assert error is not None
    assert error.code is ErrorCode.OVERLOADED
    assert "too many pictures that take long to decode are waiting" in error.detail
    assert "worker.max_waiting_bytes" in error.detail
    assert {name: label(reply) for name, reply in later.items()} == dict.fromkeys(
        ("held up", "waits", "of a job"), "Sandal"
    )
    assert running.ended() == {"answered": 4, "overloaded": 1}


def test_a_decoder_has_a_lower_priority_so_that_small_pictures_go_first() -> None:
    process = ModelProcess(SETTINGS.model, timeout_s=10, start_timeout_s=60, role=Role.DECODER)
    try:
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, usual + 10)
    finally:
        process.close()


def test_a_decoder_has_no_runtime_of_models() -> None:
    process = ModelProcess(SETTINGS.model, timeout_s=10, start_timeout_s=60, role=Role.DECODER)
    try:
        preparation = manifests.read(second_model.SHIPPED).preparation
        decoded = process.decode(Picture(SANDAL, ("", ""), "auto", False, 5.0, preparation))
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        process.close()
    assert decoded.prepared is not None
    assert "numpy" in mapped
    assert "onnxruntime" not in mapped


def test_a_decoder_gets_each_picture_as_it_is_whatever_came_before() -> None:
    preparation = manifests.read(second_model.SHIPPED).preparation
    bag = (Path(__file__).parents[2] / "samples" / "bag.png").read_bytes()
    files = [SANDAL, bag + bytes(9_000_000), b"", MEDIUM_SANDAL, bag, LARGE_SANDAL]
    before = len(os.listdir("/proc/self/fd"))
    process = ModelProcess(SETTINGS.model, timeout_s=10, start_timeout_s=60, role=Role.DECODER)
    try:
        decoded = [process.decode(Picture(file, ("", ""), "auto", False, 5.0, preparation)) for file in files]
    finally:
        process.close()
    made = [each.prepared and each.prepared.pixels for each in decoded]
    of_sandal, of_bag = made[:2]
    assert of_sandal != of_bag
    assert made == [of_sandal, of_bag, None, of_sandal, of_bag, of_sandal]
    assert "not a picture" in decoded[2].detail
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_decoder_cannot_take_the_memory_away() -> None:
    memory = PictureMemory()
    try:
        handed = memory.put(Picture(LARGE_SANDAL, ("", ""), "auto", False))
        assert handed.content == b""
        with pytest.raises(PermissionError):
            os.ftruncate(memory.descriptor, 0)
        of_decoder = PictureMemory(os.dup(memory.descriptor))
        assert of_decoder.take(handed).content == LARGE_SANDAL
        of_decoder.close()
    finally:
        memory.close()


def test_a_picture_that_the_shared_memory_has_no_room_for_is_not_handed_over_in_part() -> None:
    put = """
import resource, signal
from worker.pipe import Picture, PictureMemory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
memory = PictureMemory()
picture = Picture(bytes(2_000_000), ("", ""), "auto", False)
try:
    memory.put(picture)
except OSError:
    print("refused")
"""
    ended = subprocess.run([sys.executable, "-c", put], capture_output=True, text=True, check=True)
    assert ended.stdout == "refused\n"


def test_a_decoder_is_bounded_in_memory() -> None:
    allocate = """
from worker.model_main import limit_memory
limit_memory(max_pixels=1_000_000)
bytearray(64 << 20)
try:
    bytearray(1 << 30)
except MemoryError:
    print("bounded")
"""
    ended = subprocess.run([sys.executable, "-c", allocate], capture_output=True, text=True, check=True)
    assert ended.stdout == "bounded\n"


@pytest.mark.parametrize("picture", [SANDAL, MEDIUM_SANDAL, LARGE_SANDAL], ids=["small", "medium", "large"])
def test_a_jobs_pictures_leave_room_for_requests(picture: bytes) -> None:
    settings, topics = SETTINGS.worker, SETTINGS.topics
    broker = MemoryBroker(max_message_bytes=SETTINGS.broker.max_message_bytes)
    for _ in range(20):
        broker.publish(topics.jobs, Message(picture))
    unused = Rollout(MODEL, lambda *_: pytest.fail("no process is needed"), POLL_S)
    consumer = Consumer(broker, topics, SHARED, settings, unused, SETTINGS.model.max_pixels)
    intake = consumer._subscribe()
    assert intake is not None
    receiver = consumer._answerer(Size.SMALL, intake, Cancelled())
    for _ in range(3):
        consumer._receive(intake, receiver)
    lanes = consumer._lanes
    of_jobs = [lane.count_of(topics.jobs) for lane in (lanes.small, lanes.medium, lanes.large)]
    assert sum(of_jobs) == settings.max_jobs_in_batch
    assert lanes.small.wait_for_room(0) == settings.max_batch_size - of_jobs[0]


def _while_the_model_is_busy(running: Running, until: Path, bodies: Sequence[bytes]) -> PreparedLane:
    """Send these as 0, 1, 2 …; returns once all are prepared. The model is busy until the file is there.

    One is already in the hands of a predictor, which waits for the model.
    """
    running.send("the decoder is there", MEDIUM_SANDAL)
    running.replies(1)
    running.send("busy", SANDAL + fragile_model.HOLD_UP + bytes(until))
    until_begun(until)
    lane, end = running.consumer._lanes.prepared, time.monotonic() + 60
    for number, body in enumerate(bodies):
        running.send(str(number), body)
        while lane.count_of(SETTINGS.topics.requests) < number:
            assert time.monotonic() < end
            time.sleep(0.01)
    return lane


def test_larger_pictures_are_prepared_while_the_model_is_busy_and_predicted_one_at_a_time(
    tmp_path: Path,
) -> None:
    until = tmp_path / "go on"
    with worker("tests.fragile_model") as running:
        _while_the_model_is_busy(running, until, [MEDIUM_SANDAL, LARGE_SANDAL, MEDIUM_SANDAL])
        until.touch()
        replies = running.replies(4)
    assert [label(replies[name]) for name in "012"] == ["Sandal"] * 3
    assert [timings.batch_size for name in "012" if (timings := replies[name].timings)] == [1, 1, 1]


def test_what_was_prepared_for_a_version_that_is_gone_is_prepared_again(tmp_path: Path) -> None:
    until = tmp_path / "go on"
    with worker("tests.fragile_model") as running:
        lane = _while_the_model_is_busy(running, until, [MEDIUM_SANDAL, MEDIUM_SANDAL])
        (waiting,) = lane._queued
        assert waiting.prepared is not None
        of_another = replace(waiting.prepared, model=("fashion-mnist", "0.9"))
        lane._queued = [waiting.made_into(of_another, "")]
        until.touch()
        reply = running.replies(3)["1"]
    assert label(reply) == "Sandal"
    assert running.model.starts == 1


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
    model = rollout(MODEL)
    broker = MemoryBroker()
    before = set(threading.enumerate())
    with pytest.raises(FileNotFoundError):
        Consumer(broker, SETTINGS.topics, SHARED, without, model, SETTINGS.model.max_pixels).run()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("missing", ["fashion-mnist", "second"])
def test_without_sound_weights_of_every_model_it_never_joins_the_group(tmp_path: Path, missing: str) -> None:
    if missing != "fashion-mnist":
        second_model.copy_shipped(tmp_path)
    names = ("fashion-mnist", "second")
    broken = msgspec.structs.replace(SETTINGS.model, names=names, weights_dir=str(tmp_path))
    broker = MemoryBroker()
    model = rollout(broken)
    with pytest.raises(ModelUnavailable, match=rf"/{missing} has no .*model\.yaml"):
        Consumer(broker, SETTINGS.topics, SHARED, SETTINGS.worker, model, broken.max_pixels).run()
    waiting = MemoryBroker.subscribe(broker, SETTINGS.topics.requests, SETTINGS.worker.group)
    assert waiting.receive(1, 0) == []


def test_a_heartbeat_of_before_is_forgotten_until_the_models_are_loaded(tmp_path: Path) -> None:
    """Else a probe would count a container that starts again as running, and then as stuck."""
    heartbeat = tmp_path / "heartbeat"
    heartbeat.touch()
    beating = msgspec.structs.replace(SETTINGS.worker, heartbeat_file=str(heartbeat))
    broken = msgspec.structs.replace(SETTINGS.model, weights_dir=str(tmp_path))
    with pytest.raises(ModelUnavailable):
        Consumer(MemoryBroker(), SETTINGS.topics, SHARED, beating, rollout(broken), broken.max_pixels).run()
    assert not heartbeat.exists()
