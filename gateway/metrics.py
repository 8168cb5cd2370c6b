"""The gateway's Prometheus metrics."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
)

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class GatewayMetrics:
    """One per process. Only metrics_port serves the metrics that name API keys: GET /metrics is open."""

    def __init__(self) -> None:
        self._registry, self._all = CollectorRegistry(), CollectorRegistry()
        self._all.register(self._registry)
        self.requests = Counter(
            "mlaas_requests_total",
            "Requests answered, by route and status; 499: the client hung up.",
            ("route", "code"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "mlaas_request_duration_seconds",
            "Seconds from the request's head to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "mlaas_in_flight_requests", "Requests waiting for a reply.", registry=self._registry
        )
        self.replies_dropped = Counter(
            "mlaas_replies_dropped_total",
            "Replies dropped. late: nobody waits any more; unusable: not the reply to its request.",
            ("reason",),
            registry=self._registry,
        )
        self.cancelled = Counter(
            "mlaas_cancelled_requests_total", "Requests whose client hung up.", registry=self._registry
        )
        self._rate_limited = Counter(
            "mlaas_rate_limited_requests_total",
            "Requests refused because their API key exceeded its rate.",
            registry=self._registry,
        )
        self._rate_limited_of_key = Counter(
            "mlaas_rate_limited_requests_of_key_total",
            "Requests refused because their API key exceeded its rate, by the key's name.",
            ("api_key",),
            registry=self._all,
        )
        self.jobs_accepted = Counter(
            "mlaas_jobs_accepted_total", "Jobs acknowledged with 202.", registry=self._registry
        )
        self.job_results = Counter(
            "mlaas_job_results_total", "Results of jobs stored.", registry=self._registry
        )
        self.job_results_dropped = Counter(
            "mlaas_job_results_dropped_total",
            "Replies to jobs not stored. duplicate: stored before; unknown: no job waits for it; "
            "unusable: not the reply to its picture.",
            ("reason",),
            registry=self._registry,
        )
        self.ready = Gauge(
            "mlaas_ready",
            "1 while a picture sent now would be answered, by one model at least.",
            registry=self._registry,
        )
        self.queue_requests = Counter(
            "mlaas_queue_requests_total",
            "Pictures sent to the workers of a queue, without those of jobs.",
            ("queue",),
            registry=self._registry,
        )
        self._queue_in_flight = Gauge(
            "mlaas_queue_in_flight_requests",
            "Requests waiting for a reply from the workers of a queue.",
            ("queue",),
            registry=self._registry,
        )
        self._queue_ready = Gauge(
            "mlaas_queue_ready",
            "1 while a picture sent now to this queue would be answered.",
            ("queue",),
            registry=self._registry,
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

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def serve(self, host: str, port: int) -> None:
        """Serve GET /metrics from its own thread. Raises OSError with the address as its filename."""
        try:
            start_http_server(port, host, self._all)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
