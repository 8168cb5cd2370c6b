"""Every call, once for both clients: a generator that yields what to do, and is sent what came of it.

It yields the arguments of httpx's request(), and is sent the response or httpx's error; or it yields seconds
to wait. The clients differ in how they do that.
"""

import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import count
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack
from urllib.parse import quote
from uuid import uuid4

import httpx

from client import errors, results
from client.pictures import Picture, Upload, read
from client.results import Document, Job, Model, Prediction

T = TypeVar("T")
Outcome: TypeAlias = Prediction | errors.MlaasError
Call: TypeAlias = Generator[dict[str, Any] | float, Any, T]

_FIRST_PAUSE_S = 0.1
_GRACE_S = 1.0  # on top of the deadline that the gateway keeps, so that its 504 is what ends the call
_AGAIN = (errors.Unreachable, errors.Overloaded, errors.Unavailable)


class Asked(TypedDict, total=False):
    """What may be asked for beside the picture. explain: "input" shows what the model saw."""

    model: str | None
    top_k: int | None
    mode: str | None
    explain: str | None
    timeout_s: float | None


class Calls:
    """Times are seconds. A call is tried again at most so often, and ends with its timeout_s."""

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
        """Say what is on the picture. Raises MlaasError."""
        content, headers = read(picture).content, {"Content-Type": "application/octet-stream"}
        answer = yield from self._ask("POST", "/predict", asked, content=content, headers=headers)
        return _understood(partial(results.read, Prediction), answer)

    def models(self) -> Call[list[Model]]:
        """Those that are served. Raises MlaasError."""
        answer = yield from self._ask("GET", "/models", {})
        return _understood(lambda its: [results.read(Model, model) for model in its["models"]], answer)

    def submit(self, pictures: Iterable[Picture], **asked: Unpack[Asked]) -> Call[Job]:
        """Hand them over, to be asked for later by result(). Raises MlaasError; then none was taken."""
        files = _form(read(picture) for picture in pictures)
        return (yield from self._job("POST", "/jobs", asked, files=files))

    def result(self, job: Job | str, wait_s: float = 30.0) -> Call[Job]:
        """The job once it is over, or as it is after so many seconds. Raises MlaasError."""
        end = self._clock() + wait_s
        while True:
            left_s = max(0.0, end - self._clock())
            asked: Asked = {"timeout_s": left_s + self._timeout_s}
            found = yield from self._job("GET", _path(job), asked, params={"wait": f"{int(left_s * 1000)}ms"})
            if found.is_over or self._clock() >= end:
                return found
            yield _FIRST_PAUSE_S  # a gateway may wait for less long than it is asked to

    def cancel(self, job: Job | str) -> Call[Job]:
        """What is finished is kept. Raises MlaasError."""
        return (yield from self._job("DELETE", _path(job), {}))

    def chunk(self, uploads: Mapping[int, Upload], asked: Asked) -> Call[dict[int, Outcome]]:
        """Many in one request. Those that there was no room for are sent again; too many are cut in two."""
        end = self._end(asked)
        outcomes: dict[int, Outcome] = dict.fromkeys(uploads, errors.ServerFailed("not in the answer"))
        waiting = list(uploads)
        for number in count():
            limited: Asked = {**asked, "timeout_s": end - self._clock()}
            files = _form(uploads[index] for index in waiting)
            try:
                answer = yield from self._ask("POST", "/predict/batch", limited, files=files)
                entries = _understood(lambda document: [*map(results.item, document["results"])], answer)
                outcomes |= {waiting[entry.index]: entry.outcome for entry in entries}
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

    def _job(self, method: str, path: str, asked: Asked, **request: Any) -> Call[Job]:
        answer = yield from self._ask(method, path, asked, **request)
        return _understood(partial(results.job, request_id=answer.headers.get("X-Request-ID", "")), answer)

    def _ask(self, method: str, path: str, asked: Asked, **request: Any) -> Call[httpx.Response]:
        """All attempts carry the same Idempotency-Key, and say how much time is left."""
        if unknown := asked.keys() - Asked.__annotations__.keys():
            raise TypeError(f"there is no {', '.join(unknown)}; there are {', '.join(Asked.__annotations__)}")
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
        """Before the attempt after this one, counted from 0; None where there is to be none."""
        backoff_s = _FIRST_PAUSE_S * 2**number
        pause_s = max(backoff_s, error.retry_after_s or 0.0) * (1 + self._chance() / 2)
        may_again = isinstance(error, _AGAIN) and number < self._retries
        return pause_s if may_again and self._clock() + pause_s < end else None


def _form(uploads: Iterable[Upload]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (upload.filename, upload.content)) for upload in uploads]


def _path(job: Job | str) -> str:
    return f"/jobs/{quote(job if isinstance(job, str) else job.id, safe='')}"


def _error(outcome: httpx.Response | httpx.TransportError) -> errors.MlaasError:
    url = outcome.request.url
    where = f"{url.scheme}://{url.netloc.decode()}"
    if isinstance(outcome, (httpx.ReadTimeout, httpx.WriteTimeout)):
        return errors.DeadlineExceeded(f"{where} gave no answer in time")
    if isinstance(outcome, httpx.TransportError):
        return errors.Unreachable(f"{where} does not answer ({outcome or type(outcome).__name__})")
    try:
        problem: Document = dict(outcome.json())
    except (ValueError, TypeError):
        problem = {}
    after_s = _seconds(outcome.headers.get("Retry-After", ""), time.time())
    return errors.of_problem(problem, outcome.status_code, outcome.headers.get("X-Request-ID", ""), after_s)


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
