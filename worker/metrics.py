"""A worker's Prometheus metrics."""

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from worker.pipe import Outcome

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10)
_PICTURES = (1, 2, 4, 8, 16, 32, 64, 128)


class Ending(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    UNREADABLE = "unreadable"
    POISON = "poison"
    POISON_AGAIN = "poison_again"
    DUPLICATE = "duplicate"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"
    OVERLOADED = "overloaded"
    UNUSABLE = "unusable"


class WorkerMetrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "mlaas_worker_requests_total",
            "Requests, by how they ended.",
            ("outcome",),
            registry=self._registry,
        )
        self.batch_size = Histogram(
            "mlaas_worker_batch_size",
            "Pictures predicted together.",
            buckets=_PICTURES,
            registry=self._registry,
        )
        self._seconds = Histogram(
            "mlaas_worker_seconds",
            "Decoding one picture; inferring a batch.",
            ("step",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._starts = Gauge(
            "mlaas_worker_model_starts", "How often a model process was started.", registry=self._registry
        )
        self._decoder_starts = Gauge(
            "mlaas_worker_decoder_starts", "How often a decoder was started.", registry=self._registry
        )

    def ended(self, how: Ending, count: int = 1) -> None:
        if count:
            self.requests.labels(how.value).inc(count)

    def predicted(self, outcomes: list[Outcome]) -> None:
        """Record a batch that the model has answered."""
        self.batch_size.observe(len(outcomes))
        for outcome in outcomes:
            self._seconds.labels("decode").observe(outcome.decode_ms / 1000)
        self._seconds.labels("infer").observe(max(outcome.infer_ms for outcome in outcomes) / 1000)

    def watch_starts(self, of_models: Callable[[], int], of_decoders: Callable[[], int]) -> None:
        self._starts.set_function(of_models)
        self._decoder_starts.set_function(of_decoders)

    def serve(self, host: str, port: int) -> None:
        """Serve GET /metrics from a thread of its own. Raises OSError with the address as its filename."""
        try:
            start_http_server(port, host, self._registry)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
