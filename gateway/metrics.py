"""The gateway's metrics."""

from collections.abc import Callable

from messaging.metrics import SECONDS, Metrics


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
        self.queue_requests.labels(name)
        self._queue_in_flight.labels(name).set_function(in_flight)
        self._queue_ready.labels(name).set_function(ready)

    def rate_limited(self, key_name: str) -> None:
        """Count a request whose API key exceeded its rate."""
        self._rate_limited.inc()
        self._rate_limited_of_key.labels(key_name).inc()

    def answered(self, route: str, code: int, seconds: float) -> None:
        self.requests.labels(route, code).inc()
        self.seconds.labels(route).observe(seconds)
