"""Every call, once for both clients: a generator that yields what to do, and is sent what came of it.

It yields the arguments of httpx's request(), and is sent the response or httpx's error; or it yields seconds
to wait. The clients differ in how they do that.

Every answer about a picture carries the SHA-256 of the picture, and is compared with what was sent.
"""

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
from mlaas_client.pictures import Picture, Upload, read
from mlaas_client.results import Document, Job, Model, Outcome, Prediction

T = TypeVar("T")
Call: TypeAlias = Generator[dict[str, Any] | float, Any, T]

BYTES = "application/octet-stream"

_FIRST_PAUSE_S = 0.1
_GRACE_S = 1.0  # on top of the deadline that the gateway keeps, so that its 504 is what ends the call
_AGAIN = (errors.Unreachable, errors.Overloaded, errors.Unavailable)


class Asked(TypedDict, total=False):
    """Options of a call. explain: "input" shows what the model saw."""

    model: str | None
    top_k: int | None
    mode: str | None
    explain: str | None
    timeout_s: float | None


class Calls:
    """Times are in seconds. A call makes at most so many retries, and ends with its timeout_s."""

    def __init__(
        self,
        timeout_s: float,
        retries: int,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._timeout_s, self._retries = timeout_s, retries
        self._clock, self._chance = clock, chance

    def predict(self, picture: Picture, **asked: Unpack[Asked]) -> Call[Prediction]:
        """Classify the picture. Raises MlaasError."""
        upload, headers = read(picture), {"Content-Type": BYTES}
        answer = yield from self._ask("POST", "/predict", asked, content=upload.content, headers=headers)
        outcome = results.matched(_understood(partial(results.read, Prediction), answer), upload.sha256)
        if isinstance(outcome, errors.MlaasError):
            raise outcome
        return outcome

    def models(self) -> Call[list[Model]]:
        """The models that are served. Raises MlaasError."""
        answer = yield from self._ask("GET", "/models", {})
        return _understood(lambda its: [results.read(Model, model) for model in its["models"]], answer)

    def submit(self, pictures: Iterable[Picture], **asked: Unpack[Asked]) -> Call[Job]:
        """Submit pictures, to fetch what is on them with result(). Raises MlaasError; then none was taken."""
        uploads = [read(picture) for picture in pictures]
        sha256s = [upload.sha256 for upload in uploads]
        return (yield from self._job("POST", "/jobs", asked, sha256s, files=_form(uploads)))

    def result(self, job: Job | str, wait_s: float = 30.0) -> Call[Job]:
        """The job once it is over, or as it is after wait_s seconds. Raises MlaasError.

        Given the job that submit() returned, each answer is compared with the picture that was sent.
        """
        end = self._clock() + wait_s
        while True:
            left_s = max(0.0, end - self._clock())
            asked: Asked = {"timeout_s": left_s + self._timeout_s}
            found = yield from self._known(job, "GET", asked, params={"wait": f"{int(left_s * 1000)}ms"})
            if found.is_over or self._clock() >= end:
                return found
            yield _FIRST_PAUSE_S  # a gateway may wait for less long than it is asked to

    def cancel(self, job: Job | str) -> Call[Job]:
        """Give the job up; results that are there are kept. Raises MlaasError."""
        return (yield from self._known(job, "DELETE", {}))

    def chunk(self, uploads: Mapping[int, Upload], asked: Asked) -> Call[dict[int, Outcome]]:
        """Many in one request. Those refused for lack of room are sent again; a request too large is cut."""
        end = self._end(asked)
        outcomes: dict[int, Outcome] = dict.fromkeys(uploads, errors.ServerFailed("not in the answer"))
        waiting = list(uploads)
        for number in count():
            limited: Asked = {**asked, "timeout_s": end - self._clock()}
            files = _form(uploads[index] for index in waiting)
            try:
                answer = yield from self._ask("POST", "/predict/batch", limited, files=files)
                entries = _understood(partial(_by_index, waiting), answer)
                outcomes |= {
                    index: results.matched(its, uploads[index].sha256) for index, its in entries.items()
                }
            except errors.MlaasError as error:
                if error.problem.get("status") not in (400, 413) or len(waiting) == 1:
                    return outcomes | dict.fromkeys(waiting, error)
                for half in (waiting[::2], waiting[1::2]):
                    outcomes |= yield from self.chunk({index: uploads[index] for index in half}, limited)
                return outcomes
            again = {index: its for index in waiting if isinstance(its := outcomes[index], _AGAIN)}
            waiting = list(again)
            pause_s = self._pause_s(again[waiting[0]], number, end) if waiting else None
            if pause_s is None:
                return outcomes
            yield pause_s
        raise AssertionError

    def _known(self, job: Job | str, method: str, asked: Asked, **request: Any) -> Call[Job]:
        job_id, sha256s = (job, ()) if isinstance(job, str) else (job.id, job.sha256s)
        found = yield from self._job(method, f"/jobs/{quote(job_id, safe='')}", asked, sha256s, **request)
        if found.id != job_id:
            raise errors.AnswerMismatch(f"the answer is about job {found.id}, not {job_id}")
        return found

    def _job(self, method: str, path: str, asked: Asked, sha256s: Sequence[str], **request: Any) -> Call[Job]:
        answer = yield from self._ask(method, path, asked, **request)
        request_id = answer.headers.get("X-Request-ID", "")
        return _understood(partial(results.job, request_id=request_id, sha256s=sha256s), answer)

    def _ask(self, method: str, path: str, asked: Asked, **request: Any) -> Call[httpx.Response]:
        """All attempts carry the same Idempotency-Key, and say how much time is left."""
        if unknown := asked.keys() - Asked.__annotations__.keys():
            raise TypeError(
                f"unknown option {', '.join(unknown)}; there are {', '.join(Asked.__annotations__)}"
            )
        params = {name: value for name, value in asked.items() if name != "timeout_s" and value is not None}
        request = {"method": method, "url": path, "params": params, "headers": {}, **request}
        request["headers"]["Idempotency-Key"] = uuid4().hex
        end = self._end(asked)
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

    def _end(self, asked: Asked) -> float:
        timeout_s = asked.get("timeout_s")
        return self._clock() + (self._timeout_s if timeout_s is None else timeout_s)

    def _pause_s(self, error: errors.MlaasError, number: int, end: float) -> float | None:
        """Until the next attempt; None if there is to be none. number: of this attempt, from 0."""
        backoff_s = _FIRST_PAUSE_S * 2**number
        pause_s = max(backoff_s, error.retry_after_s or 0.0) * (1 + self._chance() / 2)
        may_again = isinstance(error, _AGAIN) and number < self._retries
        return pause_s if may_again and self._clock() + pause_s < end else None


def _form(uploads: Iterable[Upload]) -> list[tuple[str, tuple[str, bytes, str]]]:
    """The gateway looks at the bytes; a type guessed from the file name could be refused."""
    return [("file", (upload.filename, upload.content, BYTES)) for upload in uploads]


def _by_index(indexes: Sequence[int], document: Document) -> dict[int, Outcome]:
    """The outcomes of a batch, by the indexes of its pictures."""
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
    said = ", ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
    if isinstance(error, (httpx.ReadTimeout, httpx.WriteTimeout)):
        return errors.DeadlineExceeded(f"{where} gave no answer in time")
    if not isinstance(error, httpx.TransportError):
        return errors.ServerFailed(f"the answer of {where} cannot be decoded ({said})")
    if "CERTIFICATE_VERIFY_FAILED" in said:
        trust = "set SSL_CERT_FILE to the file of the authority that issued it"
        return errors.Misconfigured(f"the certificate of {where} is not trusted ({said}); {trust}")
    return errors.Unreachable(f"{where} does not answer ({said})")


def _seconds(retry_after: str, now: float) -> float | None:
    """RFC 9110: a number of seconds, or a date."""
    try:
        if retry_after.isdigit():
            return float(retry_after)
        return parsedate_to_datetime(retry_after).timestamp() - now
    except ValueError:
        return None


def _understood(reading: Callable[[Document], T], answer: httpx.Response) -> T:
    try:
        return reading(answer.json())
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise errors.ServerFailed(f"the answer is not one of mlaas: {error}") from error
