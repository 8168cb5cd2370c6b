"""The calls as generators, shared by both clients, which do the I/O.

A call yields the arguments of httpx's request(), and is sent the response or error; or it yields a float, the
seconds to sleep. Predictions are checked against the SHA-256 digest of the picture that was sent.
"""

import json
import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import count
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack
from urllib.parse import quote
from uuid import uuid4

import httpx

from mlaas_client import errors, results
from mlaas_client.pictures import Picture, Row, Upload, read
from mlaas_client.results import Document, Job, Model, Outcome, Prediction

T = TypeVar("T")
Call: TypeAlias = Generator[dict[str, Any] | float, Any, T]

BYTES = "application/octet-stream"

_FIRST_PAUSE_S = 0.1
_GRACE_S = 1.0  # lets the gateway's 504 arrive before the client's own timeout
_RETRIABLE = (errors.Unreachable, errors.Overloaded, errors.Unavailable)


class Options(TypedDict, total=False):
    """Options of a call. explain="input" requests what the model saw; timeout_s is in seconds."""

    model: str | None
    version: str | None
    top_k: int | None
    mode: str | None
    explain: str | None
    timeout_s: float | None


class Calls:
    """A call ends after timeout_s seconds, and is retried up to `retries` times."""

    def __init__(
        self,
        timeout_s: float,
        retries: int,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._timeout_s, self._retries = timeout_s, retries
        self._clock, self._chance = clock, chance

    def predict(self, picture: Picture, **options: Unpack[Options]) -> Call[Prediction]:
        """Classify a picture. Raises MlaasError."""
        upload, headers = read(picture), {"Content-Type": BYTES}
        answer = yield from self._ask("POST", "/predict", options, content=upload.content, headers=headers)
        outcome = results.checked(_parsed(partial(results.read, Prediction), answer), upload.sha256)
        if isinstance(outcome, errors.MlaasError):
            raise outcome
        return outcome

    def predict_row(self, row: Row, **options: Unpack[Options]) -> Call[Prediction]:
        """Ask a model of numbers about one row, as nested lists or an array. Raises MlaasError."""
        body = json.dumps({"inputs": [row.tolist() if hasattr(row, "tolist") else row]})
        headers = {"Content-Type": "application/json"}
        answer = yield from self._ask("POST", "/predict", options, content=body.encode(), headers=headers)
        return _parsed(partial(results.read, Prediction), answer)

    def models(self) -> Call[list[Model]]:
        """List the models that are served, then those that cannot be. Raises MlaasError."""
        answer = yield from self._ask("GET", "/models", {})
        return _parsed(lambda found: [results.model(each) for each in found["models"]], answer)

    def submit(self, pictures: Iterable[Picture], **options: Unpack[Options]) -> Call[Job]:
        """Create a job for the pictures; result() fetches the predictions. Raises MlaasError."""
        uploads = [read(picture) for picture in pictures]
        sha256s = [upload.sha256 for upload in uploads]
        return (yield from self._job("POST", "/jobs", options, sha256s, files=_form(uploads)))

    def result(self, job: Job | str, wait_s: float = 30.0) -> Call[Job]:
        """Return the job once it is over, or as it is after wait_s seconds. Raises MlaasError.

        Given the Job that submit() returned, checks that each prediction is for the picture that was sent.
        """
        end = self._clock() + wait_s
        while True:
            left_s = max(0.0, end - self._clock())
            options: Options = {"timeout_s": left_s + self._timeout_s}
            found = yield from self._known(job, "GET", options, params={"wait": f"{int(left_s * 1000)}ms"})
            if found.is_over or self._clock() >= end:
                return found
            yield _FIRST_PAUSE_S  # a gateway may cap the wait

    def jobs(self, limit: int = 50, before: Job | str = "") -> Call[list[Job]]:
        """List the jobs of this API key, newest first, without their results. Raises MlaasError.

        before: only those that were submitted before this one.
        """
        page = {"limit": str(limit)}
        if before:
            page["before"] = before if isinstance(before, str) else before.id
        answer = yield from self._ask("GET", "/jobs", {}, params=page)
        return _parsed(lambda found: [results.job(each, "") for each in found["jobs"]], answer)

    def cancel(self, job: Job | str) -> Call[Job]:
        """Cancel a job; it keeps its results. Raises MlaasError."""
        return (yield from self._known(job, "DELETE", {}))

    def chunk(self, uploads: Mapping[int, Upload], options: Options) -> Call[dict[int, Outcome]]:
        """Classify pictures in one batch. Repeats overloaded ones, and halves a batch that is too large."""
        end = self._end(options)
        outcomes: dict[int, Outcome] = dict.fromkeys(uploads, errors.ServerFailed("missing in the response"))
        waiting = list(uploads)
        for number in count():
            limited: Options = {**options, "timeout_s": end - self._clock()}
            files = _form(uploads[index] for index in waiting)
            try:
                answer = yield from self._ask("POST", "/predict/batch", limited, files=files)
                entries = _parsed(partial(_by_index, waiting), answer)
                outcomes |= {
                    index: results.checked(entry, uploads[index].sha256) for index, entry in entries.items()
                }
            except errors.MlaasError as error:
                if error.problem.get("status") not in (400, 413) or len(waiting) == 1:
                    return outcomes | dict.fromkeys(waiting, error)
                for half in (waiting[::2], waiting[1::2]):
                    outcomes |= yield from self.chunk({index: uploads[index] for index in half}, limited)
                return outcomes
            failed = {index: its for index in waiting if isinstance(its := outcomes[index], _RETRIABLE)}
            waiting = list(failed)
            pause_s = self._pause_s(failed[waiting[0]], number, end) if waiting else None
            if pause_s is None:
                return outcomes
            yield pause_s
        raise AssertionError

    def _known(self, job: Job | str, method: str, options: Options, **request: Any) -> Call[Job]:
        job_id, sha256s = (job, ()) if isinstance(job, str) else (job.id, job.sha256s)
        found = yield from self._job(method, f"/jobs/{quote(job_id, safe='')}", options, sha256s, **request)
        if found.id != job_id:
            raise errors.AnswerMismatch(f"the answer is about job {found.id}, not {job_id}")
        return found

    def _job(
        self, method: str, path: str, options: Options, sha256s: Sequence[str], **request: Any
    ) -> Call[Job]:
        answer = yield from self._ask(method, path, options, **request)
        request_id = answer.headers.get("X-Request-ID", "")
        return _parsed(partial(results.job, request_id=request_id, sha256s=sha256s), answer)

    def _ask(self, method: str, path: str, options: Options, **request: Any) -> Call[httpx.Response]:
        """All attempts carry the same Idempotency-Key and the time that is left."""
        if unknown := options.keys() - Options.__annotations__.keys():
            raise TypeError(
                f"unknown option {', '.join(unknown)}; there are {', '.join(Options.__annotations__)}"
            )
        params = {name: value for name, value in options.items() if name != "timeout_s" and value is not None}
        request = {"method": method, "url": path, "params": params, "headers": {}, **request}
        request["headers"]["Idempotency-Key"] = uuid4().hex
        end = self._end(options)
        for number in count():
            left_s = max(0.001, end - self._clock())
            request["headers"]["X-Request-Timeout-Ms"] = str(int(left_s * 1000))
            outcome = yield {**request, "timeout": left_s + _GRACE_S}
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return outcome
            error = _error(outcome)
            pause_s = self._pause_s(error, number, end)
            if pause_s is None:
                raise error from (outcome if isinstance(outcome, Exception) else None)
            yield pause_s
        raise AssertionError

    def _end(self, options: Options) -> float:
        timeout_s = options.get("timeout_s")
        return self._clock() + (self._timeout_s if timeout_s is None else timeout_s)

    def _pause_s(self, error: errors.MlaasError, number: int, end: float) -> float | None:
        """Seconds until the next attempt, or None for no more. number counts attempts from 0."""
        backoff_s = _FIRST_PAUSE_S * 2**number
        pause_s = max(backoff_s, error.retry_after_s or 0.0) * (1 + self._chance() / 2)
        may_retry = isinstance(error, _RETRIABLE) and number < self._retries
        return pause_s if may_retry and self._clock() + pause_s < end else None


def _form(uploads: Iterable[Upload]) -> list[tuple[str, tuple[str, bytes, str]]]:
    """The gateway detects the media type; one guessed from the file name could be refused."""
    return [("file", (upload.filename, upload.content, BYTES)) for upload in uploads]


def _by_index(indexes: Sequence[int], document: Document) -> dict[int, Outcome]:
    """The outcomes of a batch, by the caller's indexes."""
    entries = map(results.item, document["results"])
    return {indexes[entry.index]: entry.outcome for entry in entries}


def _error(outcome: httpx.Response | httpx.RequestError) -> errors.MlaasError:
    url = outcome.request.url
    where = f"{url.scheme}://{url.netloc.decode()}"
    if isinstance(outcome, httpx.RequestError):
        return _transport_error(outcome, where)
    try:
        problem: Document = dict(outcome.json())
    except (ValueError, TypeError):
        problem = {}
    after_s = _seconds(outcome.headers.get("Retry-After", ""), time.time())
    return errors.of_problem(problem, outcome.status_code, outcome.headers.get("X-Request-ID", ""), after_s)


def _transport_error(error: httpx.RequestError, where: str) -> errors.MlaasError:
    reason = ", ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
    if isinstance(error, (httpx.ReadTimeout, httpx.WriteTimeout)):
        return errors.DeadlineExceeded(f"{where} did not answer in time")
    if not isinstance(error, httpx.TransportError):
        return errors.ServerFailed(f"the answer of {where} cannot be decoded ({reason})")
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        fix = "set SSL_CERT_FILE to the certificate of the authority that issued it"
        return errors.Misconfigured(f"the certificate of {where} is not trusted ({reason}); {fix}")
    return errors.Unreachable(f"{where} does not answer ({reason})")


def _seconds(retry_after: str, now: float) -> float | None:
    """RFC 9110: seconds or a date."""
    try:
        if retry_after.isdigit():
            return float(retry_after)
        return parsedate_to_datetime(retry_after).timestamp() - now
    except ValueError:
        return None


def _parsed(parse: Callable[[Document], T], answer: httpx.Response) -> T:
    try:
        return parse(answer.json())
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise errors.ServerFailed(f"the answer is not one of mlaas; check the URL ({error})") from error
