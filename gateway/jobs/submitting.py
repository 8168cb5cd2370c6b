"""Taking a job: first its record, then its pictures to the broker, then the mark that it is accepted."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from gateway.asked import Deadline, Query, Upload, check
from gateway.errors import GatewayError, KeyReused, ReplyTimeout, TooLarge, TooManyJobs, Unavailable
from gateway.jobs import rendering
from gateway.jobs.job import Asked, Job, Result, correlation_id
from gateway.jobs.store import Calls, Creation, Limits, Store
from gateway.middleware import traceparent
from gateway.request_reply import Requester, as_gateway_error
from gateway.settings import JobSettings
from messaging import codec
from messaging.broker import Broker, BrokerError, Message
from messaging.contract import Request
from messaging.settings import TopicSettings

_OTHERS_TURN_S = 0.05
_GRACE_MS = 2_000


class Picture(NamedTuple):
    """A picture of the job. refusal: why it is not sent to a worker."""

    filename: str
    content: bytes
    media_type: str
    refusal: GatewayError | None = None


class Submission(NamedTuple):
    """What was sent. digests: see Asked. fingerprint stands for all of it if there is an Idempotency-Key."""

    pictures: Sequence[Picture]
    digests: bytes
    asked: Query
    owner: str
    key: str
    fingerprint: str
    request_id: str


class Taken(NamedTuple):
    """A job, and the results that it began with. again: an earlier request with its key made it."""

    job: Job
    results: Sequence[Result]
    again: bool


class Submitting:
    def __init__(
        self,
        broker: Broker,
        topics: TopicSettings,
        settings: JobSettings,
        store: Store,
        calls: Calls,
        requester: Requester,
    ) -> None:
        self._broker = broker
        self._topics = topics
        self._settings = settings
        self._store = store
        self._calls = calls
        self._requester = requester
        self._limits = Limits(settings.max_unfinished_pictures, settings.max_unfinished_bytes)

    async def submit(self, submission: Submission, deadline: Deadline) -> Taken:
        """Return once the broker has every picture. Raises GatewayError if there is no job.

        If the store accepted the job and could not say so in time, the job is taken all the same.
        """
        job = self._new_job(submission, deadline)
        refused = [
            Result(job.id, index, rendering.refused(picture.refusal, submission.request_id))
            for index, picture in enumerate(submission.pictures)
            if picture.refusal
        ]
        try:
            first = await self._create(job, refused, deadline)
            if first is not None:
                return Taken(first, [], again=True)
            await self._publish(self._messages(job, submission), deadline)
            if not await self._calls(self._store.accept, job.id, _now_ms()):
                raise Unavailable("accepting the job took too long")
        except (KeyReused, TooManyJobs):
            raise
        except GatewayError:
            if await self._abandon(job):
                raise
        except BaseException:
            await self._abandon(job)
            raise
        self._requester.metrics.jobs_accepted.inc()
        return Taken(msgspec.structs.replace(job, completed=len(refused)), refused, again=False)

    def _new_job(self, submission: Submission, deadline: Deadline) -> Job:
        now_ms = _now_ms()
        names = [picture.filename for picture in submission.pictures]
        return Job(
            id=uuid.uuid4().hex,
            owner=submission.owner,
            key=submission.key,
            fingerprint=submission.fingerprint,
            created_ms=now_ms,
            deadline_ms=now_ms + self._settings.deadline_ms,
            expires_ms=now_ms + self._settings.keep_ms,
            publish_until_ms=now_ms + int(deadline.left_s() * 1000) + _GRACE_MS,
            total=len(names),
            size_bytes=sum(len(picture.content) for picture in submission.pictures if not picture.refusal),
            asked=Asked(
                filenames=names,
                top_k=submission.asked.top_k,
                request_id=submission.request_id,
                digests=submission.digests,
            ),
        )

    async def _create(self, job: Job, results: Sequence[Result], deadline: Deadline) -> Job | None:
        """None if the record was kept; else the job with the same key, once that is acknowledged."""
        while True:
            creation, first = await self._calls(self._store.create, job, results, self._limits, _now_ms())
            if creation is Creation.CREATED:
                return None
            if creation is Creation.FULL:
                raise TooManyJobs("unfinished jobs have reached the limit of pictures or bytes")
            if first is not None and first.fingerprint != job.fingerprint:
                raise KeyReused("this Idempotency-Key was used for another job; use a new one")
            if first is not None and not first.publish_until_ms:
                return first
            await asyncio.sleep(min(_OTHERS_TURN_S, deadline.left_s()))

    def _messages(self, job: Job, submission: Submission) -> list[Message]:
        asked = submission.asked
        return [
            codec.encode_request(
                Request(
                    body=picture.content,
                    correlation_id=correlation_id(job.id, index),
                    reply_to=self._topics.job_replies,
                    deadline_ms=job.deadline_ms,
                    content_type=picture.media_type,
                    model=asked.model,
                    mode=asked.mode,
                    explain=asked.explain,
                    traceparent=traceparent(),
                )
            )
            for index, picture in enumerate(submission.pictures)
            if not picture.refusal
        ]

    async def _publish(self, messages: Sequence[Message], deadline: Deadline) -> None:
        """Return once the broker has them all. Raises GatewayError."""
        published: list[asyncio.Future[None]] = []
        try:
            for message in messages:
                published.append(self._send(message, gather=len(messages) > 1))
            async with asyncio.timeout(deadline.left_s()):
                for failure in await asyncio.gather(*published, return_exceptions=True):
                    if failure is not None:
                        raise as_gateway_error(failure)
        except BrokerError as error:
            raise as_gateway_error(error) from error
        except (TimeoutError, ReplyTimeout) as error:
            raise Unavailable(f"the broker did not accept the job within {deadline.timeout_s:g} s") from error
        finally:
            for future in published:
                future.cancel()

    def _send(self, message: Message, *, gather: bool) -> "asyncio.Future[None]":
        return asyncio.wrap_future(self._broker.publish(self._topics.jobs, message, gather=gather))

    async def _abandon(self, job: Job) -> bool:
        """False if the job is accepted: another request with its key may have been told of it, so it goes on.

        If the store does not answer, publish_until_ms ends a job that is not accepted.
        """
        try:
            if not await self._calls(self._store.remove, job.id):
                return False
        except GatewayError:
            return True
        self._requester.cancel(correlation_id(job.id, index) for index in range(job.total))
        return True


def judge(uploads: Iterable[Upload], *, max_bytes: int, max_pixels: int, most_together: int) -> list[Picture]:
    """Find each picture's media type, or why it is refused, without decoding it.

    Raises TooLarge, and the first refusal if every picture is refused: such a job costs no worker's time, so
    nothing but the disk would bound how many are stored.
    """
    pictures = [_judge(upload, max_bytes, max_pixels) for upload in uploads]
    refusals = [picture.refusal for picture in pictures if picture.refusal]
    if len(refusals) == len(pictures):
        refusals[0].index = 0 if len(pictures) > 1 else None
        raise refusals[0]
    together = sum(len(picture.content) for picture in pictures)
    if together > most_together:
        raise TooLarge(f"the pictures have {together} bytes; a job may have at most {most_together}")
    return pictures


def digests(uploads: Iterable[Upload]) -> list[bytes]:
    """The SHA-256 digest of each picture."""
    return [hashlib.sha256(upload.content).digest() for upload in uploads]


def fingerprint(uploads: Sequence[Upload], their_digests: Sequence[bytes], asked: Query) -> str:
    """Equal for equal requests."""
    whole = hashlib.sha256(repr(asked).encode())
    for upload, digest in zip(uploads, their_digests, strict=True):
        parts = (digest.hex(), upload.declared, upload.filename)
        whole.update(repr(parts).encode())
    return whole.hexdigest()


def _judge(upload: Upload, max_bytes: int, max_pixels: int) -> Picture:
    filename = upload.filename[:255]
    try:
        header = check(upload.content, upload.declared, max_bytes=max_bytes, max_pixels=max_pixels)
    except GatewayError as error:
        return Picture(filename, b"", "", error)
    return Picture(filename, upload.content, header.media_type)


def _now_ms() -> int:
    return int(time.time() * 1000)
