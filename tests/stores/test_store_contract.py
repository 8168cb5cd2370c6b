"""What gateway.jobs.store promises, held by every store."""

import os
import signal
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from gateway.jobs.service import connect
from gateway.jobs.store import (
    Added,
    Creation,
    Job,
    JobRequest,
    Limits,
    Result,
    State,
    Status,
    Store,
    StoreUnavailable,
    status_of,
)
from tests.stores.conftest import TIMEOUT_S, Bench
from tests.stores.servers import LocalPostgresql

MINUTE_MS = 60_000
NO_LIMITS = Limits(10**9, 10**15)


def now_ms() -> int:
    return int(time.time() * 1000)


def new_job(total: int = 3, **changes: object) -> Job:
    """Not acknowledged yet. It names no owner of another test."""
    created_ms = now_ms()
    job = Job(
        id=uuid.uuid4().hex,
        owner="",
        created_ms=created_ms,
        deadline_ms=created_ms + MINUTE_MS,
        expires_ms=created_ms + 2 * MINUTE_MS,
        publish_until_ms=created_ms + 30_000,
        total=total,
        size_bytes=100 * total,
        request=JobRequest(filenames=[f"ü{number}.png" for number in range(total)], top_k=2, request_id="r"),
    )
    return msgspec.structs.replace(job, **changes)


def create(store: Store, job: Job, *results: Result, limits: Limits = NO_LIMITS) -> Creation:
    return store.create(job, results, limits, job.created_ms)[0]


def accepted(store: Store, **changes: object) -> Job:
    job = new_job(**changes)  # type: ignore[arg-type]
    assert create(store, job) is Creation.CREATED
    assert store.accept(job.id, job.created_ms)
    return msgspec.structs.replace(job, publish_until_ms=0)


def result(job: Job, index: int, body: bytes = b"{}") -> Result:
    return Result(job.id, index, body)


def read(store: Store, job: Job, at_ms: int | None = None, after: int = 0) -> tuple[Job, list[Result]]:
    found = store.get(job.id, at_ms or job.created_ms, after)
    assert found is not None
    return found[0], list(found[1])


def test_a_job_comes_back_as_it_was_kept(bench: Bench) -> None:
    job = new_job(owner="anna", key="k" * 255, fingerprint="f")
    assert create(bench.connect(), job) is Creation.CREATED
    assert read(bench.connect(), job) == (job, [])


def test_who_shares_the_store_knows_it_by_the_same_identity(bench: Bench, tmp_path: Path) -> None:
    assert len({bench.connect().identity() for _ in range(3)}) == 1
    other = connect(f"sqlite:///{tmp_path}/other.sqlite3", TIMEOUT_S)
    assert other.identity() != bench.connect().identity()
    other.close()


def test_a_job_that_is_not_there_is_none(store: Store) -> None:
    unknown = uuid.uuid4().hex
    assert store.get(unknown, now_ms()) is None
    assert store.progress([unknown]) == {}
    assert store.progress([]) == {}
    assert not store.accept(unknown, now_ms())
    store.cancel(unknown, now_ms())
    assert store.remove(unknown)


def test_creating_and_accepting_twice_is_as_once(store: Store) -> None:
    job = new_job(key=uuid.uuid4().hex)
    assert [create(store, job), create(store, job)] == [Creation.CREATED, Creation.CREATED]
    assert [store.accept(job.id, job.created_ms) for _ in range(2)] == [True, True]


def test_results_come_back_in_the_order_in_which_they_came_with_any_bytes(store: Store) -> None:
    job = accepted(store)
    every_byte = bytes(range(256))
    assert store.add([result(job, 2, every_byte), result(job, 0)], now_ms()) == Added(2, 0, 0)
    assert store.add([result(job, 1, b"last")], now_ms()) == Added(1, 0, 0)
    found, results = read(store, job)
    assert found.completed == 3
    assert results == [result(job, 2, every_byte), result(job, 0), result(job, 1, b"last")]
    assert read(store, job, after=2)[1] == [result(job, 1, b"last")]
    assert read(store, job, after=3)[1] == []


def test_the_first_result_of_a_picture_counts(store: Store) -> None:
    job = accepted(store)
    assert store.add([result(job, 0, b"first"), result(job, 0, b"same time")], now_ms()) == Added(1, 1, 0)
    assert store.add([result(job, 0, b"later"), result(job, 1)], now_ms()) == Added(1, 1, 0)
    found, results = read(store, job)
    assert found.completed == 2
    assert [each.body for each in results] == [b"first", b"{}"]


def test_results_that_come_from_many_gateways_at_once_are_stored_once(bench: Bench) -> None:
    jobs = [accepted(bench.connect(), total=20) for _ in range(3)]
    results = [result(job, index) for job in jobs for index in range(20)]
    stored: list[Added] = []

    def gateway(store: Store, start: int) -> None:
        turned = results[start:] + results[:start]
        for at in range(0, len(turned), 7):
            stored.append(add_patiently(store, turned[at : at + 7]))

    threads = [threading.Thread(target=gateway, args=[bench.connect(), 13 * number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each.stored for each in stored) == 60
    assert sum(each.duplicates for each in stored) == 180
    for job in jobs:
        found, kept = read(bench.connect(), job)
        assert found.completed == 20
        assert sorted(each.index for each in kept) == list(range(20))


def add_patiently(store: Store, results: list[Result]) -> Added:
    """As the collector does: what the store could not take is tried again."""
    while True:
        try:
            return store.add(results, now_ms())
        except StoreUnavailable:
            continue


def test_results_of_unknown_jobs_and_pictures_are_dropped(store: Store) -> None:
    job = accepted(store)
    strange = [result(new_job(), 0), result(job, 3), result(job, 1)]
    assert store.add(strange, now_ms()) == Added(1, 0, 2)
    assert store.add([], now_ms()) == Added(0, 0, 0)


def test_a_result_may_come_before_the_job_is_acknowledged(store: Store) -> None:
    job = new_job(total=1)
    create(store, job)
    assert store.add([result(job, 0)], job.created_ms) == Added(1, 0, 0)
    assert store.accept(job.id, job.created_ms)
    assert status_of(read(store, job)[0]) is Status.DONE


def test_a_job_may_begin_with_results(store: Store) -> None:
    job = new_job(total=2)
    assert create(store, job, result(job, 1, b"refused")) is Creation.CREATED
    found, results = read(store, job)
    assert (found.completed, [each.body for each in results]) == (1, [b"refused"])
    assert store.add([result(job, 1), result(job, 0)], now_ms()) == Added(1, 1, 0)


def test_progress_tells_of_several_jobs(store: Store) -> None:
    one, other = accepted(store), accepted(store)
    store.add([result(one, 0)], now_ms())
    store.cancel(other.id, now_ms())
    assert store.progress([one.id, other.id, uuid.uuid4().hex]) == {
        one.id: (State.OPEN, 1),
        other.id: (State.CANCELED, 0),
    }


def test_the_same_key_of_the_same_owner_finds_the_same_job(bench: Bench) -> None:
    key = uuid.uuid4().hex
    first = accepted(bench.connect(), key=key, owner="anna")
    again = new_job(key=key, owner="anna")
    assert bench.connect().create(again, [], NO_LIMITS, now_ms()) == (Creation.KEY_TAKEN, first)
    assert create(bench.connect(), new_job(key=key, owner="ben")) is Creation.CREATED
    assert create(bench.connect(), new_job(owner="anna")) is Creation.CREATED
    assert create(bench.connect(), new_job(owner="anna")) is Creation.CREATED


def test_of_many_with_the_same_key_at_once_one_is_created(bench: Bench) -> None:
    key = uuid.uuid4().hex
    said: list[Creation] = []
    stores = [bench.connect() for _ in range(4)]
    threads = [
        threading.Thread(target=lambda store=store: said.append(create(store, new_job(key=key))))
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.value for each in said) == ["created", "key taken", "key taken", "key taken"]


def test_several_open_a_new_file_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def identity(store: Store) -> str:
        together.wait()
        return store.identity()

    for turn in range(60):
        stores = [connect(f"sqlite:///{tmp_path}/{turn}.sqlite3", TIMEOUT_S) for _ in range(4)]
        with ThreadPoolExecutor(len(stores)) as threads:
            assert len(set(threads.map(identity, stores))) == 1
        for store in stores:
            store.close()


def test_a_key_is_free_again_when_its_job_is_removed(store: Store) -> None:
    job = new_job(key=uuid.uuid4().hex)
    create(store, job)
    assert store.remove(job.id)
    assert store.get(job.id, job.created_ms) is None
    assert create(store, new_job(key=job.key)) is Creation.CREATED


def test_an_acknowledged_job_cannot_be_removed(store: Store) -> None:
    job = accepted(store, key=uuid.uuid4().hex)
    store.add([result(job, 0)], now_ms())
    assert not store.remove(job.id)
    assert read(store, job) == (msgspec.structs.replace(job, completed=1), [result(job, 0)])
    assert create(store, new_job(key=job.key)) is Creation.KEY_TAKEN


def test_a_job_that_was_never_acknowledged_gives_its_key_away_and_cannot_be_any_more(store: Store) -> None:
    job = new_job(key=uuid.uuid4().hex)
    create(store, job)
    late_ms = job.publish_until_ms + 1
    assert store.create(new_job(key=job.key), [], NO_LIMITS, late_ms)[0] is Creation.CREATED
    assert not store.accept(job.id, late_ms)


def test_jobs_over_the_limits_are_refused_until_others_end(store: Store) -> None:
    start = now_ms() + 10 * MINUTE_MS  # what other tests left unfinished is over by then
    times = {"created_ms": start, "deadline_ms": start + MINUTE_MS, "expires_ms": start + 2 * MINUTE_MS}
    times["publish_until_ms"] = start + 1_000
    limits = Limits(max_pictures=5, max_bytes=10_000)

    def attempt(**changes: object) -> tuple[Job, Creation]:
        job = new_job(**times | changes)  # type: ignore[arg-type]
        return job, create(store, job, limits=limits)

    first, created = attempt(total=4, size_bytes=4_000)
    assert created is Creation.CREATED
    assert store.accept(first.id, start)
    assert attempt(total=2)[1] is Creation.FULL
    assert attempt(total=1, size_bytes=6_001)[1] is Creation.FULL
    second, created = attempt(total=1, size_bytes=6_000)
    assert created is Creation.CREATED
    assert store.accept(second.id, start)
    store.cancel(second.id, start)
    third, created = attempt(total=1)
    assert created is Creation.CREATED
    store.remove(third.id)
    fourth, created = attempt(total=1)
    assert created is Creation.CREATED
    assert store.accept(fourth.id, start)
    assert attempt(total=1)[1] is Creation.FULL
    store.add([result(first, index) for index in range(4)], start)
    fifth, created = attempt(total=4)
    assert created is Creation.CREATED
    late_ms = start + 1_001  # the fifth was never acknowledged
    assert store.create(new_job(**times | {"total": 4}), [], limits, late_ms)[0] is Creation.CREATED  # type: ignore[arg-type]
    assert not store.accept(fifth.id, late_ms)


def test_a_canceled_job_takes_no_more_results_and_keeps_those_it_has(store: Store) -> None:
    job = accepted(store)
    store.add([result(job, 1)], now_ms())
    store.cancel(job.id, now_ms())
    assert store.add([result(job, 0), result(job, 1)], now_ms()) == Added(0, 1, 1)
    found, results = read(store, job)
    assert (found.state, found.completed, results) == (State.CANCELED, 1, [result(job, 1)])


def test_a_done_job_stays_done(store: Store) -> None:
    job = accepted(store, total=1)
    store.add([result(job, 0)], now_ms())
    store.cancel(job.id, now_ms())
    assert status_of(read(store, job)[0]) is Status.DONE
    assert status_of(read(store, job, at_ms=job.deadline_ms + 1)[0]) is Status.DONE


def test_a_job_past_its_deadline_is_expired_and_stays_what_it_is(store: Store) -> None:
    job = accepted(store)
    store.add([result(job, 0)], now_ms())
    assert store.add([result(job, 1)], job.deadline_ms) == Added(0, 0, 1)
    assert read(store, job, at_ms=job.deadline_ms)[0].state is State.EXPIRED
    store.cancel(job.id, now_ms())
    assert store.add([result(job, 1)], now_ms()) == Added(0, 0, 1)
    found, results = read(store, job)
    assert (found.state, found.completed, results) == (State.EXPIRED, 1, [result(job, 0)])


def test_the_sweep_expires_what_nobody_asks_for(store: Store) -> None:
    job = accepted(store)
    sweep(store, job.deadline_ms + 1)
    assert store.progress([job.id]) == {job.id: (State.EXPIRED, 0)}


def test_the_sweep_forgets_what_was_never_acknowledged(store: Store) -> None:
    job = new_job()
    create(store, job)
    sweep(store, job.publish_until_ms + 1)
    assert store.get(job.id, now_ms()) is None


def test_the_sweep_is_bounded(store: Store) -> None:
    jobs = [accepted(store) for _ in range(5)]
    assert store.sweep(jobs[-1].deadline_ms + 1, 2) == 2


def test_an_owners_jobs_are_listed_newest_first_while_their_results_are_kept(store: Store) -> None:
    start_ms, owner = now_ms(), uuid.uuid4().hex
    times = [start_ms, start_ms, start_ms + 2, start_ms + 3]
    kept = [accepted(store, owner=owner, created_ms=at_ms, expires_ms=at_ms + MINUTE_MS) for at_ms in times]
    newest_first = sorted(kept, key=lambda job: (job.created_ms, job.id), reverse=True)
    create(store, new_job(owner=owner))
    accepted(store, owner=f"not {owner}")

    def listed(at_ms: int, most: int = 9, before: str = "", of: str = owner) -> list[Job]:
        return [*store.of_owner(of, at_ms, most, before)]

    assert listed(start_ms) == newest_first
    assert listed(start_ms, most=2) == newest_first[:2]
    assert listed(start_ms, before=newest_first[1].id) == newest_first[2:]
    assert listed(start_ms, before=newest_first[-1].id) == []
    assert listed(start_ms, before=uuid.uuid4().hex) == []
    assert listed(start_ms, before=newest_first[0].id, of=f"not {owner}") == []
    assert listed(start_ms + MINUTE_MS) == newest_first[:2]


def test_a_listed_job_past_its_deadline_is_expired(store: Store) -> None:
    job = accepted(store, owner=uuid.uuid4().hex)
    (listed,) = store.of_owner(job.owner, job.deadline_ms, 9)
    assert (listed.state, listed.answered) == (State.EXPIRED, job.total)


def test_results_past_their_time_are_deleted_then_the_job_and_its_key_is_free(bench: Bench) -> None:
    """Over the true clock, hence a job that was made some time ago."""
    store = bench.connect()
    ago = now_ms() - 1_000
    job = new_job(
        created_ms=ago,
        deadline_ms=ago + 500,
        expires_ms=ago + 1_800,
        publish_until_ms=0,
        key=uuid.uuid4().hex,
    )
    assert create(store, job, result(job, 0)) is Creation.CREATED

    def left() -> tuple[Job, int] | None:
        sweep(store, now_ms())
        found = store.get(job.id, now_ms())
        return None if found is None else (found[0], len(found[1]))

    until(lambda: (found := left()) is not None and found[1] == 0)
    emptied = left()
    assert emptied is not None
    assert emptied[0].expires_ms <= now_ms()
    assert create(store, new_job(key=job.key)) is Creation.CREATED
    until(lambda: left() is None)
    assert now_ms() >= 2 * job.expires_ms - job.created_ms


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def sweep(store: Store, at_ms: int) -> None:
    while store.sweep(at_ms, 1_000):
        pass


def test_what_is_acknowledged_is_there_for_a_store_that_connects_later(bench: Bench) -> None:
    first = bench.connect()
    job = accepted(first)
    first.add([result(job, 0)], now_ms())
    first.close()
    assert read(bench.connect(), job)[0].completed == 1


def test_a_server_that_goes_away_is_unavailable_and_one_that_comes_back_is_used_again(
    server: LocalPostgresql,
) -> None:
    store = connect(server.url, TIMEOUT_S)
    try:
        job = accepted(store)
        server.kill()
        with pytest.raises(StoreUnavailable):
            store.get(job.id, now_ms())
        server.start()
        assert read(store, job)[0].id == job.id
        server.kill()
        server.start()
        assert read(store, job)[0].id == job.id, "a connection that broke while idle"
    finally:
        store.close()


def test_a_server_that_is_not_there_is_unavailable_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        store = connect(f"postgresql://postgres:secret@127.0.0.1:{taken.getsockname()[1]}/d", timeout_s=3_600)
        with pytest.raises(StoreUnavailable, match="refused") as unavailable:
            store.identity()
        store.close()
    assert "secret" not in str(unavailable.value)


def test_a_server_that_stands_still_is_unavailable_in_bounded_time(server: LocalPostgresql) -> None:
    store = connect(server.url, 0.5)
    try:
        job = accepted(store)
        server.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            store.get(job.id, now_ms())
        server.signal(signal.SIGCONT)
        assert read(store, job)[0].id == job.id
    finally:
        store.close()


def test_jobs_that_are_refused_or_removed_leave_the_file_as_large_as_it_was(tmp_path: Path) -> None:
    store = connect(f"sqlite:///{tmp_path}/jobs.sqlite3", TIMEOUT_S)

    def refuse(turns: int) -> int:
        for _ in range(turns):
            job = new_job(total=100)
            assert create(store, job, limits=Limits(99, 1)) is Creation.FULL
            assert (
                create(store, job, *(result(job, index, 300 * b"x") for index in range(99)))
                is Creation.CREATED
            )
            assert store.remove(job.id)
        return sum(file.stat().st_size for file in tmp_path.iterdir())

    filled = refuse(100)  # the log is emptied when it has a thousand pages
    assert refuse(400) <= filled + 100_000
    store.close()


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_is_its_owners_alone(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "jobs.sqlite3"
    before = os.umask(0)
    try:
        if exists:
            with sqlite3.connect(path) as other:
                other.execute("PRAGMA journal_mode = WAL")
                other.execute("CREATE TABLE t (x)")
                assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o644}
                accepted(store := connect(f"sqlite:///{path}", TIMEOUT_S))
            other.close()
        else:
            accepted(store := connect(f"sqlite:///{path}", TIMEOUT_S))
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes == {f"jobs.sqlite3{suffix}": "0o600" for suffix in ("", "-wal", "-shm")}


def test_a_file_that_is_locked_is_unavailable_in_bounded_time(tmp_path: Path) -> None:
    path = f"{tmp_path}/jobs.sqlite3"
    store = connect(f"sqlite:///{path}", 0.2)
    job = accepted(store)
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable):
            store.get(job.id, now_ms())
        other.execute("ROLLBACK")
        assert read(store, job)[0].id == job.id
    finally:
        other.close()
        store.close()
