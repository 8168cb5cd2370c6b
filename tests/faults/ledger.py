"""What was asked and what was answered, and what follows from it. Pure."""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

NO_CONNECTION = 0
NO_ANSWER = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One request. Times are monotonic seconds; due is when it was to be sent.

    status is HTTP's; NO_CONNECTION where the connection failed, NO_ANSWER where nothing came.
    right: a 200 carries the digest of its picture, and the label. answers: how many came.
    """

    due: float
    ended: float
    timeout_s: float
    status: int
    right: bool
    answers: int = 1

    @property
    def seconds(self) -> float:
        return self.ended - self.due


@dataclass(frozen=True, slots=True)
class Verdict:
    """lost: no final status. wrong: another's answer. double: two of them. latest_s: after its deadline."""

    requests: int
    lost: int
    wrong: int
    double: int
    latest_s: float
    statuses: dict[int, int]
    p50_s: float
    p99_s: float
    longest_s: float

    def share(self, status: int) -> float:
        return self.statuses.get(status, 0) / max(1, self.requests)

    def errors(self) -> int:
        """5xx, and connections that failed."""
        return sum(count for status, count in self.statuses.items() if status >= 500 or status <= 0)

    def numbers(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "lost": self.lost,
            "wrong": self.wrong,
            "double": self.double,
            "answers": {str(status): count for status, count in sorted(self.statuses.items())},
            "p50_ms": round(self.p50_s * 1000, 1),
            "p99_ms": round(self.p99_s * 1000, 1),
            "longest_ms": round(self.longest_s * 1000, 1),
        }


def judge(entries: Iterable[Entry]) -> Verdict:
    entries = list(entries)
    good = sorted(entry.seconds for entry in entries if entry.status == 200)
    return Verdict(
        requests=len(entries),
        lost=sum(entry.status == NO_ANSWER for entry in entries),
        wrong=sum(entry.status == 200 and not entry.right for entry in entries),
        double=sum(entry.answers > 1 for entry in entries),
        latest_s=max((entry.seconds - entry.timeout_s for entry in entries), default=0.0),
        statuses=dict(Counter(entry.status for entry in entries)),
        p50_s=percentile(good, 0.5),
        p99_s=percentile(good, 0.99),
        longest_s=good[-1] if good else 0.0,
    )


def percentile(ordered: list[float], share: float) -> float:
    """0 of nothing."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def longest_gap(times: Iterable[float]) -> float:
    """Between neighbours, in seconds."""
    ordered = sorted(times)
    return max((after - before for before, after in itertools.pairwise(ordered)), default=0.0)
