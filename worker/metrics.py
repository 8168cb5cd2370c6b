"""A worker's metrics."""

import threading
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from messaging.contract import Agreement, ServedModel
from messaging.metrics import SECONDS, Metrics
from worker.pipe import ModelVersion, Outcome

_STEP_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10)
_PICTURES = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_OF_MODEL = {"model": (), "version": ()}
_MOST_LABELS = 100
_OTHER = "other"


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


class Agreed(StrEnum):
    """Whether a shadow said what was answered: the same label, or numbers within a thousandth."""

    SAME = "same"
    OTHER = "other"
    FAILED = "failed"
    SKIPPED = "skipped"


class Origin(StrEnum):
    """Where a worker receives pictures from."""

    REQUESTS = "requests"
    JOBS = "jobs"


class WorkerMetrics(Metrics):
    """One per process."""

    def __init__(self, queue: str, restarts: Callable[[], int], decoder_restarts: Callable[[], int]) -> None:
        """queue: the one that this worker serves."""
        super().__init__()
        of_queue = {"queue": (queue,), "origin": tuple(Origin)}
        self.requests = self.counter(
            "mlaas_worker_requests_total",
            "Requests, by how they ended. `poison`: the picture ended a process or the model failed on it; "
            "`unusable`: it names no allowed place for a reply; both are dead letters. `poison_again`: a "
            "copy of a picture that ended a process. `duplicate`: answered before. `expired`, `cancelled`: "
            "nobody waited any more. `overloaded`, `refused`, `unreadable`: answered with an error.",
            {"outcome": Ending},
        )
        self._lag = self.gauge(
            "mlaas_worker_lag_messages",
            "Messages in this worker's share of `requests` or `jobs` that it has not received. "
            "Pictures that were sent together count as one.",
            of_queue,
        )
        self._queue_wait = self.histogram(
            "mlaas_worker_queue_wait_seconds",
            "From the timestamp of a message of `requests` or `jobs` to when a worker received it.",
            SECONDS,
            of_queue,
        )
        self.batch_size = self.histogram("mlaas_worker_batch_size", "Pictures processed together.", _PICTURES)
        self.count_frames("mlaas_worker_frames_total", "replies")
        self._decode = self.histogram(
            "mlaas_worker_decode_seconds",
            "Decoding and preparing one picture.",
            _STEP_SECONDS,
            _OF_MODEL,
        )
        self._inference = self.histogram(
            "mlaas_worker_inference_seconds",
            "Running the model once, on its pictures of a batch.",
            _STEP_SECONDS,
            _OF_MODEL,
        )
        self._predictions = self.counter(
            "mlaas_worker_predictions_total",
            f"Predictions by most probable label; labels after a model's first {_MOST_LABELS} count as "
            f"`{_OTHER}`.",
            {**_OF_MODEL, "label": ()},
        )
        self._confidence = self.histogram(
            "mlaas_worker_confidence", "The probability of that label.", _SHARES, _OF_MODEL
        )
        self._out_of_distribution = self.counter(
            "mlaas_worker_out_of_distribution_total",
            "Predictions for pictures unlike those that the model was trained on.",
            _OF_MODEL,
        )
        self.counted(
            "mlaas_worker_restarts_total",
            "Processes that were started in place of one that died. `model` has the models; a `decoder` "
            "prepares larger pictures.",
            "role",
            {"model": restarts, "decoder": decoder_restarts},
        )
        self._share = self.gauge(
            "mlaas_worker_share_percent",
            "The share of the requests that name no version that this one answers; 0 for a shadow.",
            _OF_MODEL,
        )
        self._problem = self.gauge(
            "mlaas_worker_version_problem",
            "1 for a version that is wanted and cannot be served; `GET /models` and the log say why.",
            _OF_MODEL,
        )
        self._shadow = self.counter(
            "mlaas_worker_shadow_answers_total",
            "What a shadow made of what another version answered: the `same` label, or numbers within a "
            "thousandth; an `other` one; `failed`; or `skipped`, because it was behind or the picture large.",
            {**_OF_MODEL, "answer": Agreed},
        )
        self._agreements: defaultdict[ModelVersion, Counts[Agreed]] = defaultdict(Counts)
        self._lock = threading.Lock()
        self._models: dict[ModelVersion, _OfModel] = {}
        self._queue_waits = {origin: self._queue_wait.labels(queue, origin) for origin in Origin}
        self._lags = {origin: self._lag.labels(queue, origin) for origin in Origin}

    def compared(self, model: ModelVersion, how: Agreed) -> None:
        """Record what a shadow made of an input. In any thread."""
        with self._lock:
            self._agreements[model][how] += 1
        self._shadow.labels(*model, how.value).inc()

    def agreement(self, model: ModelVersion) -> Agreement:
        with self._lock:
            counts = self._agreements[model]
            return Agreement(**{how.value: counts[how] for how in Agreed})

    def ended(self, how: Ending, count: int = 1) -> None:
        if count:
            self.requests.labels(how.value).inc(count)

    def received(self, origin: Origin, waited_s: float) -> None:
        self._queue_waits[origin].observe(max(0.0, waited_s))

    def behind(self, lag: Mapping[Origin, int]) -> None:
        """Record how many messages are waiting."""
        for origin, count in lag.items():
            self._lags[origin].set(count)

    def serving(
        self,
        models: Iterable[ServedModel],
        shares: Mapping[ModelVersion, int] | None = None,
        problems: Iterable[ModelVersion] = (),
    ) -> None:
        """Show these, too. shares: percent of the requests that name no version. problems: see Roster."""
        for model in models:
            self._of(model)
        self._share.clear()
        self._problem.clear()
        for version, percent in (shares or {}).items():
            self._share.labels(*version).set(percent)
            for how in Agreed if percent == 0 else ():
                self._shadow.labels(*version, how.value)  # from zero, as all that are known
        for version in problems:
            self._problem.labels(*version).set(1)

    def predicted(self, batch: Sequence[tuple[ServedModel, Outcome]]) -> None:
        """Record a batch that the models have answered."""
        self.batch_size.observe(len(batch))
        inferred: set[tuple[str, str]] = set()
        for model, outcome in batch:
            its = self._of(model)
            its.decode.observe(outcome.decode_ms / 1000)
            if outcome.error is not None:
                continue
            its.answered(outcome)
            if (model.name, model.version) not in inferred:
                inferred.add((model.name, model.version))
                its.inference.observe(outcome.infer_ms / 1000)

    def _of(self, model: ServedModel) -> "_OfModel":
        key = model.name, model.version
        if key not in self._models:
            self._models[key] = _OfModel(
                self._decode.labels(*key),
                self._inference.labels(*key),
                self._confidence.labels(*key),
                self._out_of_distribution.labels(*key),
                [
                    self._predictions.labels(*key, label if number < _MOST_LABELS else _OTHER)
                    for number, label in enumerate(model.labels)
                ],
            )
        return self._models[key]


class _OfModel(NamedTuple):
    """The series of one version of a model; those of its labels in their order."""

    decode: Histogram
    inference: Histogram
    confidence: Histogram
    out_of_distribution: Counter
    labels: Sequence[Counter]

    def answered(self, outcome: Outcome) -> None:
        if outcome.in_distribution is False:
            self.out_of_distribution.inc()
        if outcome.probabilities:
            confidence = max(outcome.probabilities)
            self.confidence.observe(confidence)
            self.labels[outcome.probabilities.index(confidence)].inc()
