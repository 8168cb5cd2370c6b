"""What the gateway counts, for Prometheus."""

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
    """One per process. What names API keys is told at the port for metrics alone: GET /metrics is open."""

    def __init__(self) -> None:
        self._registry, self._all = CollectorRegistry(), CollectorRegistry()
        self._all.register(self._registry)
        self.requests = Counter(
            "mlaas_requests_total",
            "Requests answered, by route and status; 499: the client had gone.",
            ("route", "code"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "mlaas_request_duration_seconds",
            "From the request's head to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "mlaas_in_flight_requests", "Requests that wait for a reply.", registry=self._registry
        )
        self.replies_dropped = Counter(
            "mlaas_replies_dropped_total",
            "Replies that reached nobody. late: nobody waits; unusable: not the reply to its request.",
            ("reason",),
            registry=self._registry,
        )
        self.cancelled = Counter(
            "mlaas_cancelled_requests_total", "Requests whose client hung up.", registry=self._registry
        )
        self._rate_limited = Counter(
            "mlaas_rate_limited_requests_total",
            "Requests refused since their API key came too often.",
            registry=self._registry,
        )
        self._rate_limited_of_key = Counter(
            "mlaas_rate_limited_requests_of_key_total",
            "Requests refused since their API key came too often, by the key's name.",
            ("api_key",),
            registry=self._all,
        )
        self.jobs_accepted = Counter(
            "mlaas_jobs_accepted_total", "Jobs acknowledged with 202.", registry=self._registry
        )
        self.job_results = Counter(
            "mlaas_job_results_total", "Results of jobs that were stored.", registry=self._registry
        )
        self.job_results_dropped = Counter(
            "mlaas_job_results_dropped_total",
            "Replies to jobs that were not stored. duplicate: there is one; unknown: no job waits for it; "
            "unusable: not the reply to its picture.",
            ("reason",),
            registry=self._registry,
        )
        self.ready = Gauge(
            "mlaas_ready", "1 while a picture sent now would be answered.", registry=self._registry
        )

    def rate_limited(self, key_name: str) -> None:
        """A request was refused, since its API key came too often."""
        self._rate_limited.inc()
        self._rate_limited_of_key.labels(key_name).inc()

    def answered(self, route: str, code: int, seconds: float) -> None:
        self.requests.labels(route, code).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)

    def serve(self, host: str, port: int) -> None:
        """Answer GET /metrics from a thread of its own. Raises OSError with the address as its filename."""
        try:
            start_http_server(port, host, self._all)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
