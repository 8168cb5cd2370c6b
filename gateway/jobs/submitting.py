"""Submitting a job: store its record, publish its pictures, then mark it as accepted."""

import asyncio
import hashlib
import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from gateway import JobSettings
from gateway.asked import Deadline, Query, Upload, check
from gateway.errors import GatewayError, KeyReused, ReplyTimeout, TooLarge, TooManyJobs, Unavailable
from gateway.jobs.rendering import encode_refusal
from gateway.jobs.store import (
    Creation,
    Job,
    JobRequest,
    Limits,
    Result,
    Store,
    StoreThreads,
    correlation_id,
    now_ms,
)
from gateway.middleware import traceparent
from gateway.request_reply import Requester, as_gateway_error
from messaging import TopicSettings, codec
from messaging.broker import Broker, BrokerError, Message
from messaging.contract import MOST_LABELS, Request

_CONFLICT_POLL_S = 0.05
_GRACE_MS = 2_000


class Picture(NamedTuple):
    """A picture or a row of numbers, or the reason why it is not sent to a worker."""

    filename: str
    content: bytes
    media_type: str
    refusal: GatewayError | None = None


class Submission(NamedTuple):
    """What a job is created from. fingerprint is empty without a key; see Job."""

    pictures: Sequence[Picture]
    request: JobRequest
    query: Query
    owner: str
    key: str
    fingerprint: str


class Submitted(NamedTuple):
    """A job and its first results. is_replay: an earlier request with the same key created it."""

    job: Job
    results: Sequence[Result]
    is_replay: bool


class Submitter:
    def __init__(
        self,
        broker: Broker,
        topics: TopicSettings,
        settings: JobSettings,
        store: Store,
        in_thread: StoreThreads,
        requester: Requester,
    ) -> None:
        self._broker = broker
        self._topics = topics
        self._settings = settings
        self._store = store
        self._in_thread = in_thread
        self._requester = requester
        self._limits = Limits(settings.max_unfinished_pictures, settings.max_unfinished_bytes)

    async def submit(self, submission: Submission, deadline: Deadline) -> Submitted:
        """Return once the broker has every picture. Raises GatewayError if the job was not created.

        A job that the store accepted counts as created even if the store's answer was lost.
        """
        job = self._new_job(submission, deadline)
        refused = [
            Result(job.id, index, encode_refusal(picture.refusal, job.request.request_id))
            for index, picture in enumerate(submission.pictures)
            if picture.refusal
        ]
        try:
            earlier = await self._create(job, refused, deadline)
            if earlier is not None:
                return Submitted(earlier, [], is_replay=True)
            topic = self._topics.queue_of(submission.query.model).jobs
            await self._publish(topic, self._messages(job, submission), deadline)
            if not await self._in_thread(self._store.accept, job.id, now_ms()):
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
        return Submitted(msgspec.structs.replace(job, completed=len(refused)), refused, is_replay=False)

    def _new_job(self, submission: Submission, deadline: Deadline) -> Job:
        created_ms = now_ms()
        return Job(
            id=uuid.uuid4().hex,
            owner=submission.owner,
            key=submission.key,
            fingerprint=submission.fingerprint,
            created_ms=created_ms,
            deadline_ms=created_ms + self._settings.deadline_ms,
            expires_ms=created_ms + self._settings.keep_ms,
            publish_until_ms=created_ms + int(deadline.left_s() * 1000) + _GRACE_MS,
            total=len(submission.pictures),
            size_bytes=sum(len(picture.content) for picture in submission.pictures if not picture.refusal),
            request=submission.request,
        )

    async def _create(self, job: Job, results: Sequence[Result], deadline: Deadline) -> Job | None:
        """None if the job was created; else the job with the same key, once it is accepted.

        Raises TooManyJobs, KeyReused, ReplyTimeout, Unavailable.
        """
        while True:
            creation, earlier = await self._in_thread(
                self._store.create, job, results, self._limits, now_ms()
            )
            if creation is Creation.CREATED:
                return None
            if creation is Creation.FULL:
                raise TooManyJobs("unfinished jobs have reached the limit of pictures or bytes")
            if earlier is not None and earlier.fingerprint != job.fingerprint:
                raise KeyReused("this Idempotency-Key was used for another job; use a new one")
            if earlier is not None and not earlier.publish_until_ms:
                return earlier
            await asyncio.sleep(min(_CONFLICT_POLL_S, deadline.left_s()))

    def _messages(self, job: Job, submission: Submission) -> list[Message]:
        query = submission.query
        return [
            codec.encode_request(
                Request(
                    body=picture.content,
                    correlation_id=correlation_id(job.id, index),
                    reply_to=self._topics.job_replies,
                    deadline_ms=job.deadline_ms,
                    content_type=picture.media_type,
                    model=query.model,
                    version=query.version,
                    mode=query.mode,
                    explain=query.explain,
                    top_k=query.top_k or MOST_LABELS,
                    traceparent=traceparent(),
                )
            )
            for index, picture in enumerate(submission.pictures)
            if not picture.refusal
        ]

    async def _publish(self, topic: str, messages: Sequence[Message], deadline: Deadline) -> None:
        """Return once the broker has all messages. Raises GatewayError.

        They are not gathered: the topic's lag, by which workers are scaled, is to count pictures, and workers
        of the release before, which read no frames, may come before those that wait are processed.
        """
        published: list[asyncio.Future[None]] = []
        try:
            for message in messages:
                published.append(asyncio.wrap_future(self._broker.publish(topic, message)))
            async with asyncio.timeout(deadline.left_s()):
                for failure in await asyncio.gather(*published, return_exceptions=True):
                    if failure is not None:
                        raise as_gateway_error(failure)
        except BrokerError as error:
            raise as_gateway_error(error) from error
        except (TimeoutError, ReplyTimeout) as error:
            raise Unavailable(f"the broker did not accept the job within {deadline.timeout_s:g} s") from error
        finally:
            for pending in published:
                pending.cancel()

    async def _abandon(self, job: Job) -> bool:
        """Delete the job. False if it is accepted already: it goes on, as another client may know its id.

        If the store does not answer, the job is abandoned at publish_until_ms.
        """
        try:
            if not await self._in_thread(self._store.remove, job.id):
                return False
        except GatewayError:
            return True
        self._requester.cancel(correlation_id(job.id, index) for index in range(job.total))
        return True


def judge(uploads: Iterable[Upload], *, max_bytes: int, max_pixels: int) -> list[Picture]:
    """Determine the media type of each picture, or why it is refused, without decoding it.

    Raises the first refusal if all pictures are refused: such a job would need no worker, so that only disk
    space would limit how many are stored.
    """
    pictures = [_judge(upload, max_bytes, max_pixels) for upload in uploads]
    refusals = [picture.refusal for picture in pictures if picture.refusal]
    if len(refusals) == len(pictures):
        refusals[0].index = 0 if len(pictures) > 1 else None
        raise refusals[0]
    return pictures


def check_total(pictures: Iterable[Picture], most_bytes: int) -> None:
    """Raises TooLarge."""
    total = sum(len(picture.content) for picture in pictures)
    if total > most_bytes:
        raise TooLarge.over("the job", total, "bytes of pictures", most_bytes, "jobs.max_bytes")


def _judge(upload: Upload, max_bytes: int, max_pixels: int) -> Picture:
    filename = upload.filename[:255]
    try:
        header = check(upload.content, upload.declared, max_bytes=max_bytes, max_pixels=max_pixels)
    except GatewayError as error:
        return Picture(filename, b"", "", error)
    return Picture(filename, upload.content, header.media_type)


def digest_each(uploads: Iterable[Upload]) -> list[bytes]:
    """The SHA-256 digest of each picture."""
    return [hashlib.sha256(upload.content).digest() for upload in uploads]


def fingerprint(uploads: Sequence[Upload], digests: Sequence[bytes], query: Query) -> str:
    """Equal for equal requests. digests are those of the uploads, in order."""
    # Release 0.2.0 did not know versions, and a key may be repeated across an upgrade.
    asked = {name: value for name, value in query._asdict().items() if value or name != "version"}
    whole = hashlib.sha256(
        f"Query({', '.join(f'{name}={value!r}' for name, value in asked.items())})".encode()
    )
    for upload, digest in zip(uploads, digests, strict=True):
        whole.update(repr((digest.hex(), upload.declared, upload.filename)).encode())
    return whole.hexdigest()
