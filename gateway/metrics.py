"""The gateway's metrics, and its access log."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from messaging.metrics import SECONDS, Metrics

# Of a text that strangers choose.
_SHOWN = 100

_access = logging.getLogger("mlaas.access")


class GatewayMetrics(Metrics):
    """One per process. Those that name API keys are not open."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = self.gauge(
            "mlaas_ready", "1 while a picture sent now would be answered, by one model at least."
        )
        self.requests = self.counter(
            "mlaas_requests_total",
            "Answers, by the route's pattern (`other`: unknown) and status; 499: the client hung up.",
            {"route": (), "code": ()},
        )
        self.seconds = self.histogram(
            "mlaas_request_duration_seconds",
            "From the request's head to its answer.",
            SECONDS,
            {"route": ()},
        )
        # By route and code, because labels() takes longer than counting.
        self._answers: dict[tuple[str, int], Callable[[float], None]] = {}
        self.in_flight = self.gauge(
            "mlaas_in_flight_requests", "Requests to the workers that wait for a reply."
        )
        self._queue_ready = self.gauge(
            "mlaas_queue_ready", "1 while a picture sent now to this queue would be answered.", {"queue": ()}
        )
        self.queue_requests = self.counter(
            "mlaas_queue_requests_total",
            "Pictures sent to the workers of a queue, without those of jobs.",
            {"queue": ()},
        )
        self._queue_in_flight = self.gauge(
            "mlaas_queue_in_flight_requests",
            "Requests to the workers of a queue that wait for a reply.",
            {"queue": ()},
        )
        self.count_frames("mlaas_frames_total", "requests")
        self.cancelled = self.counter(
            "mlaas_cancelled_requests_total", "Pictures whose client hung up while they waited."
        )
        self.replies_dropped = self.counter(
            "mlaas_replies_dropped_total",
            "Replies dropped. `late`: nobody waits any more, second replies included; "
            "`unusable`: not a valid reply to its request.",
            {"reason": ("late", "unusable")},
        )
        self._rate_limited = self.counter(
            "mlaas_rate_limited_requests_total", "Requests refused because their API key exceeded its rate."
        )
        self._rate_limited_of_key = self.counter(
            "mlaas_rate_limited_requests_of_key_total",
            "The same, by the name that the file of API keys gives the key.",
            {"api_key": ()},
            is_open=False,
        )
        self.jobs_accepted = self.counter("mlaas_jobs_accepted_total", "Jobs acknowledged with 202.")
        self.job_results = self.counter("mlaas_job_results_total", "Results of jobs stored.")
        self.job_results_dropped = self.counter(
            "mlaas_job_results_dropped_total",
            "Replies to jobs that were not stored. `duplicate`: stored before; `unknown`: the job is "
            "cancelled, expired or in another store; `unusable`: not a valid reply to its picture.",
            {"reason": ("duplicate", "unknown", "unusable")},
        )

    def watch_queue(self, name: str, in_flight: Callable[[], int], ready: Callable[[], bool]) -> None:
        self._queue_in_flight.labels(name).set_function(in_flight)
        self._queue_ready.labels(name).set_function(ready)

    def rate_limited(self, key_name: str) -> None:
        """Count a request whose API key exceeded its rate."""
        self._rate_limited.inc()
        self._rate_limited_of_key.labels(key_name).inc()

    def answered(self, route: str, code: int, seconds: float) -> None:
        count = self._answers.get((route, code))
        if count is None:
            count = self._answers[route, code] = self._counting(route, code)
        count(seconds)

    def _counting(self, route: str, code: int) -> Callable[[float], None]:
        number, duration = self.requests.labels(route, code), self.seconds.labels(route)

        def count(seconds: float) -> None:
            number.inc()
            duration.observe(seconds)

        return count


class AccessLog:
    """A line for each answer, at most lines_per_s in a second, then one that says how many are missing.

    Answers from status 500 on have as many lines of their own. For one event loop.
    """

    def __init__(self, lines_per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines_per_s = lines_per_s
        self._clock = clock
        self._ends_at = 0.0
        self._room = {False: 0, True: 0}
        self._left_out = 0

    def has_room(self, status: int) -> bool:
        """Whether to write a line for an answer with this status, which then counts."""
        if self._clock() >= self._ends_at:
            self.say_left_out()
            self._ends_at = self._clock() + 1.0
            self._room = dict.fromkeys(self._room, self._lines_per_s)
        failed = status >= 500
        if self._room[failed]:
            self._room[failed] -= 1
            return True
        if not self._left_out:  # perhaps there is no later answer to say it
            asyncio.get_running_loop().call_later(1.0, self.say_left_out)
        self._left_out += 1
        return False

    def write(self, fields: Mapping[str, object]) -> None:
        """Write a line for an answer. Texts that strangers choose are cut off."""
        shown = {name: _shortened(its) if isinstance(its, str) else its for name, its in fields.items()}
        _access.info("answered", extra={"fields": shown})

    def refused(self, status: int) -> None:
        """Write a line for an answer to what is no request."""
        if self.has_room(status):
            _access.info("refused what is not a valid request", extra={"fields": {"status": status}})

    def say_left_out(self) -> None:
        left_out, self._left_out = self._left_out, 0
        if left_out:
            said = "answers without a line: more came in a second than log.access_lines_per_s"
            _access.info(said, extra={"fields": {"left_out": left_out}})


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
