"""Replies that wait for a store which is away, and for a broker."""

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from gateway.jobs.collector import Collector, RequestCache
from gateway.jobs.service import connect
from gateway.jobs.store import Added, Job, JobRequest, Limits, Store, StoreUnavailable, correlation_id
from messaging import codec
from messaging.broker import BrokerUnavailable, ClientBroken, Delivery, Message
from messaging.contract import Reply, ReturnAddress, sha256_of
from messaging.memory import MemoryBroker, MemorySubscription
from mlaas.settings import load

TOPIC = "job-replies"
PICTURE = b"the same each time"
REPLY = Reply(sha256=sha256_of(PICTURE), model="m", probabilities={"Bag": 1.0})
SETTINGS = msgspec.structs.replace(load(None, {}).jobs, sweep_interval_ms=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = connect(f"sqlite:///{tmp_path}/jobs.sqlite3", 0.1)
    yield made
    made.close()


def job_in(store: Store, total: int = 3) -> Job:
    now_ms = int(time.time() * 1000)
    job = Job(
        id=uuid.uuid4().hex,
        owner="",
        created_ms=now_ms,
        deadline_ms=now_ms + 60_000,
        expires_ms=now_ms + 60_000,
        total=total,
        size_bytes=0,
        request=JobRequest(filenames=total * [""], digests=total * bytes.fromhex(sha256_of(PICTURE))),
    )
    store.create(job, [], Limits(100, 100), now_ms)
    return job


def publish(broker: MemoryBroker, job: Job, index: int) -> None:
    address = ReturnAddress("", {"correlation_id": correlation_id(job.id, index)})
    broker.publish(TOPIC, codec.encode_reply(REPLY, address))


OnStored = Callable[[Sequence[str], Added, int], None]


@contextmanager
def collecting(broker: MemoryBroker, store: Store, on_stored: OnStored | None = None) -> Iterator[Collector]:
    collector = Collector(broker, TOPIC, store, SETTINGS, on_stored or (lambda *_: None), "g")
    collector.start()
    try:
        yield collector
    finally:
        collector.stop()


def until_completed(store: Store, job: Job, count: int) -> None:
    end = time.monotonic() + 20
    while store.progress([job.id])[job.id].completed < count:
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The store is away for everybody else."""
    other = sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def unacknowledged(broker: MemoryBroker, store: Store) -> int:
    """What the next member of the group gets."""
    return len(broker.subscribe(TOPIC, f"{SETTINGS.group}.{store.identity()}").receive(100, 0))


def test_what_the_store_has_is_acknowledged_and_told(store: Store) -> None:
    broker, job, told = MemoryBroker(), job_in(store), []
    with collecting(broker, store, lambda ids, added, _: told.append((ids, added))):
        for index in (0, 1, 1, 7):
            publish(broker, job, index)
        until_completed(store, job, 2)
    assert {job_id for ids, _ in told for job_id in ids} == {job.id}
    assert [sum(column) for column in zip(*(added for _, added in told), strict=True)] == [2, 1, 1]
    assert unacknowledged(broker, store) == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"sha256":"\xff"}',
        b"",
        b"[]",
        b"{}",
        100_000 * b"[",
        b'{"sha256":"","model":"x"}',
        msgspec.json.encode(msgspec.structs.replace(REPLY, sha256=sha256_of(b"another picture"))),
    ],
)
def test_a_reply_that_cannot_be_the_pictures_is_dropped_and_the_true_one_is_stored(
    store: Store, body: bytes
) -> None:
    broker, job, told = MemoryBroker(), job_in(store, 2), []
    broker.publish(TOPIC, Message(body, {"correlation_id": correlation_id(job.id, 1)}))
    publish(broker, job, 0)
    publish(broker, job, 1)
    with collecting(broker, store, lambda ids, added, unusable: told.append((*added, unusable))):
        until_completed(store, job, 2)
    assert [sum(column) for column in zip(*told, strict=True)] == [2, 0, 0, 1]
    assert unacknowledged(broker, store) == 0


def test_a_jobs_request_is_read_once_and_the_cache_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job_in(store, 10) for _ in range(3)]
    read: list[str] = []
    get = store.get

    def count(job_id: str, now_ms: int, after: int = 0) -> object:
        read.append(job_id)
        return get(job_id, now_ms, after)

    monkeypatch.setattr(store, "get", count)
    cache = RequestCache(store, most_bytes=2_000)  # room for two
    for job in (jobs[0], jobs[1], jobs[0], jobs[2], jobs[0], jobs[1]):
        request = cache.get(job.id, job.created_ms)
        assert request is not None
        assert request.sha256_of(9) == sha256_of(PICTURE)
    assert cache.get(32 * "0", 0) is None
    assert read == [jobs[0].id, jobs[1].id, jobs[2].id, jobs[1].id, 32 * "0"]


def test_a_reply_that_decoding_breaks_on_is_dropped_and_those_beside_it_are_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker, job = MemoryBroker(), job_in(store)
    decode = codec.decode_reply
    bad = Message(b"bad", {"correlation_id": correlation_id(job.id, 1)})

    def break_on_one(message: Message) -> Reply:
        return decode(message) if message.body != bad.body else Reply(sha256=str([][0]))

    monkeypatch.setattr(codec, "decode_reply", break_on_one)
    broker.publish(TOPIC, bad)
    publish(broker, job, 0)
    with collecting(broker, store):
        until_completed(store, job, 1)
    assert unacknowledged(broker, store) == 0
    assert "IndexError" in caplog.text


def test_while_the_store_is_away_nothing_is_acknowledged_and_afterwards_all_is_there(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker, job = MemoryBroker(), job_in(store)
    with collecting(broker, store):
        with locked(tmp_path):
            for index in range(3):
                publish(broker, job, index)
            end = time.monotonic() + 20
            while "cannot collect job results" not in caplog.text:
                assert time.monotonic() < end
                time.sleep(0.01)
        until_completed(store, job, 3)
    assert unacknowledged(broker, store) == 0


def test_what_was_not_stored_when_a_gateway_ended_comes_to_the_next(store: Store, tmp_path: Path) -> None:
    broker, job = MemoryBroker(), job_in(store)
    with collecting(broker, store) as collector:
        until(lambda: collector._subscription is not None)
        with locked(tmp_path):
            publish(broker, job, 0)
            until(lambda: bool(collector._in_hand))
            collector.stop()
    assert unacknowledged(broker, store) == 1
    assert store.progress([job.id])[job.id].completed == 0


def test_results_are_collected_while_no_sweep_succeeds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(now_ms: int, most: int) -> int:
        raise StoreUnavailable("timeout")

    monkeypatch.setattr(store, "sweep", too_slow)
    broker, job = MemoryBroker(), job_in(store)
    with collecting(broker, store):
        publish(broker, job, 0)
        until_completed(store, job, 1)


@pytest.mark.parametrize("error", [BrokerUnavailable, ClientBroken, ValueError])
def test_it_outlives_what_goes_wrong_while_reading(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    broker, job = MemoryBroker(), job_in(store)
    failing = threading.Event()
    subscribe = broker.subscribe
    instance_ids = []

    def subscribe_to_trouble(topic: str, group: str, instance_id: str) -> object:
        instance_ids.append(instance_id)
        subscription = subscribe(topic, group, instance_id)
        receive = subscription.receive

        def fail_once(most: int, timeout: float) -> object:
            if not failing.is_set():
                failing.set()
                raise error("away")
            return receive(most, timeout)

        monkeypatch.setattr(subscription, "receive", fail_once)
        return subscription

    monkeypatch.setattr(broker, "subscribe", subscribe_to_trouble)
    with collecting(broker, store):
        assert failing.wait(20)
        publish(broker, job, 0)
        until_completed(store, job, 1)
    expected = {BrokerUnavailable: ["g"], ValueError: ["g", "g"], ClientBroken: ["g", "g"]}
    assert instance_ids == expected[error]


@pytest.mark.parametrize("closes", [True, False])
def test_what_was_read_when_reading_failed_is_not_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    broker, job = MemoryBroker(), job_in(store)
    subscribe = broker.subscribe
    failing = threading.Event()

    def subscribe_to_trouble(topic: str, group: str, instance_id: str) -> MemorySubscription:
        subscription = subscribe(topic, group, instance_id)
        receive, close = subscription.receive, subscription.close

        def read_and_fail_once(most: int, timeout: float) -> Sequence[Delivery]:
            if failing.is_set():
                return receive(most, timeout)
            if not receive(1, timeout):
                return ()
            failing.set()
            raise ValueError("strange")

        def close_and_fail() -> None:
            close()
            if not closes:
                raise BrokerUnavailable("away")

        monkeypatch.setattr(subscription, "receive", read_and_fail_once)
        monkeypatch.setattr(subscription, "close", close_and_fail)
        return subscription

    monkeypatch.setattr(broker, "subscribe", subscribe_to_trouble)
    with collecting(broker, store):
        for index in range(3):
            publish(broker, job, index)
        until_completed(store, job, 3)
    monkeypatch.undo()
    assert unacknowledged(broker, store) == 0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
