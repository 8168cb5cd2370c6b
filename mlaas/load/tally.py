"""Counting what came back."""

import math
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

QUANTILES = 100


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies are those of the answers; errors are counted by kind, and are no answers.

    quantiles_ms are evenly spaced from the least to the most. generator_cpu_s: of the process that asked.
    """

    answers: int
    requests_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    errors: dict[str, int]
    quantiles_ms: list[float] = []
    generator: str = "mlaas.load"
    generator_cpu_s: float = 0.0


class Tally:
    """An answer has status 200 and contains what was expected of it. All else is an error."""

    def __init__(self) -> None:
        self._latencies_ms: list[float] = []
        self._errors = Counter[str]()

    def came(self, status: int, body: bytes, expected: bytes, latency_ms: float) -> None:
        if status != 200:
            self.failed(str(status))
        elif expected not in body:
            self.failed("not the answer to this request")
        else:
            self._latencies_ms.append(latency_ms)

    def failed(self, kind: str) -> None:
        self._errors[kind] += 1

    def result(self, seconds: float) -> Result:
        """NaN for the latencies where nothing was answered."""
        ordered = sorted(self._latencies_ms)
        return Result(
            answers=len(ordered),
            requests_per_s=len(ordered) / seconds,
            p50_ms=percentile(ordered, 0.50),
            p90_ms=percentile(ordered, 0.90),
            p99_ms=percentile(ordered, 0.99),
            max_ms=percentile(ordered, 1.0),
            errors=dict(self._errors),
            quantiles_ms=[percentile(ordered, step / QUANTILES) for step in range(QUANTILES + 1)],
            generator_cpu_s=time.process_time(),
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least value that at least this share of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
