"""Which results are new, and the place that each gets among those of its job. Pure."""

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from gateway.jobs.job import Result, State
from gateway.jobs.store import Added


class Standing(NamedTuple):
    """How far a job is."""

    total: int
    completed: int
    state: State
    deadline_ms: int

    def takes(self, index: int, now_ms: int) -> bool:
        return self.state is State.OPEN and now_ms < self.deadline_ms and index < self.total


class Assigned(NamedTuple):
    """place counts the results of a job from 1 on, in the order in which they came."""

    placed: list[tuple[Result, int]]
    completed: dict[str, int]
    added: Added


def assign(
    results: Iterable[Result],
    jobs: Mapping[str, Standing],
    stored: Set[tuple[str, int]],
    now_ms: int,
) -> Assigned:
    """stored: which of the pictures have a result. completed: the new counts, of jobs that get more."""
    placed: list[tuple[Result, int]] = []
    completed: dict[str, int] = {}
    seen = set(stored)
    duplicates = unknown = 0
    for result in results:
        job, picture = jobs.get(result.job_id), (result.job_id, result.index)
        if picture in seen:
            duplicates += 1
        elif job is None or not job.takes(result.index, now_ms):
            unknown += 1
        else:
            seen.add(picture)
            place = completed.get(result.job_id, job.completed) + 1
            completed[result.job_id] = place
            placed.append((result, place))
    return Assigned(placed, completed, Added(len(placed), duplicates, unknown))
