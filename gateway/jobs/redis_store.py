"""Jobs in Redis: for gateways on several machines. As durable as that Redis is: set appendonly there."""

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.jobs import redis_scripts
from gateway.jobs.job import Asked, Job, Result, State
from gateway.jobs.store import Added, Creation, Limits, Progress, StoreError, StoreUnavailable

_NUMBERS = ("created_ms", "deadline_ms", "expires_ms", "publish_until_ms", "total", "size_bytes")


class RedisStore:
    """Each step is one script, alone and all or nothing; results of several jobs are one for each."""

    def __init__(self, url: str, timeout_s: float) -> None:
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                # A connection that broke while it lay idle is replaced once.
                retry=Retry(NoBackoff(), 1),
                max_connections=16,
            )
        except (redis.RedisError, ValueError) as error:
            raise StoreError(f"Redis: {error}") from error
        register = self._redis.register_script
        self._identity = register(redis_scripts.IDENTITY)
        self._create = register(redis_scripts.CREATE)
        self._accept = register(redis_scripts.ACCEPT)
        self._remove = register(redis_scripts.REMOVE)
        self._get = register(redis_scripts.GET)
        self._add = register(redis_scripts.ADD)
        self._cancel = register(redis_scripts.CANCEL)
        self._sweep = register(redis_scripts.SWEEP)

    def identity(self) -> str:
        with _translated():
            found = self._identity(args=[uuid.uuid4().hex])
        return bytes(found).decode()

    def create(
        self, job: Job, results: Sequence[Result], limits: Limits, now_ms: int
    ) -> tuple[Creation, Job | None]:
        key_name = f"mlaas:key:{len(job.owner)}:{job.owner}:{job.key}" if job.key else ""
        fields = {**_fields(job), "key_name": key_name}
        with _translated():
            said, *first = self._create(
                args=[
                    *(now_ms, job.id, job.expires_ms, 2 * job.expires_ms - job.created_ms, key_name),
                    *(job.total, job.size_bytes, limits.max_pictures, limits.max_bytes),
                    *(job.publish_until_ms or job.deadline_ms, len(fields)),
                    *(value for pair in fields.items() for value in pair),
                    *(value for result in results for value in (result.index, result.body)),
                ]
            )
        creation = Creation(said.decode())
        if creation is not Creation.KEY_TAKEN:
            return creation, job if creation is Creation.CREATED else None
        found = self.get(first[0].decode(), now_ms)
        return creation, found[0] if found is not None else None

    def accept(self, job_id: str, now_ms: int) -> bool:
        with _translated():
            return bool(self._accept(args=[now_ms, job_id]))

    def remove(self, job_id: str) -> bool:
        with _translated():
            return bool(self._remove(args=[job_id]))

    def get(self, job_id: str, now_ms: int, after: int = 0) -> tuple[Job, Sequence[Result]] | None:
        with _translated():
            flat, completed, found = self._get(args=[now_ms, job_id, after])
        if not flat:
            return None
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return _job(job_id, fields, completed), [_result(job_id, line) for line in found]

    def progress(self, job_ids: Sequence[str]) -> Mapping[str, Progress]:
        with _translated(), self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hget(f"mlaas:job:{job_id}", "state")
                pipeline.llen(f"mlaas:results:{job_id}")
            said = pipeline.execute()
        found = zip(job_ids, said[::2], said[1::2], strict=True)
        return {
            job_id: Progress(State(state.decode()), completed)
            for job_id, state, completed in found
            if state is not None
        }

    def add(self, results: Sequence[Result], now_ms: int) -> Added:
        by_job: dict[str, list[int | bytes]] = defaultdict(list)
        for result in results:
            by_job[result.job_id] += (result.index, result.body)
        with _translated(), self._redis.pipeline(transaction=False) as pipeline:
            for job_id, pairs in by_job.items():
                self._add(args=[now_ms, job_id, *pairs], client=pipeline)
            counts = pipeline.execute()
        return Added(*(sum(column) for column in zip(*counts, strict=True))) if counts else Added(0, 0, 0)

    def cancel(self, job_id: str, now_ms: int) -> None:
        with _translated():
            self._cancel(args=[now_ms, job_id])

    def sweep(self, now_ms: int, most: int) -> int:
        """What is to be deleted, Redis deletes by itself."""
        with _translated():
            return int(self._sweep(args=[now_ms, most]))

    def close(self) -> None:
        self._redis.close()


def _fields(job: Job) -> dict[str, Any]:
    return {
        **{name: getattr(job, name) for name in ("owner", "key", "fingerprint", *_NUMBERS)},
        "asked": msgspec.json.encode(job.asked),
        "state": job.state.value,
    }


def _job(job_id: str, fields: Mapping[bytes, bytes], completed: int) -> Job:
    return Job(
        id=job_id,
        owner=fields[b"owner"].decode(),
        key=fields[b"key"].decode(),
        fingerprint=fields[b"fingerprint"].decode(),
        asked=msgspec.json.decode(fields[b"asked"], type=Asked),
        state=State(fields[b"state"].decode()),
        completed=completed,
        **{name: int(fields[name.encode()]) for name in _NUMBERS},
    )


def _result(job_id: str, line: bytes) -> Result:
    index, _, body = line.partition(b" ")
    return Result(job_id, int(index), body)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailable(f"Redis: {error}") from error
    except redis.RedisError as error:
        raise StoreError(f"Redis: {error}") from error
