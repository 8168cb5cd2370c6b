"""Pictures waiting in lanes by size: small ones form batches, larger ones are prepared one at a time.

The receiving thread adds pictures to the lanes; each lane has one predictor thread that takes from it. What
the threads of larger pictures have prepared waits for the model in a lane of its own.
"""

import bisect
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from messaging import picture_header
from messaging.broker import Delivery
from messaging.contract import TENSOR
from messaging.picture_header import MAX_SCANS, HeaderError, Size, size_of
from worker.pipe import PreparedPicture

BATCH_MS = 5.0
"""The most that the pictures of a batch may cost together. A picture that arrives next waits that long."""

# A picture that costs one second goes ahead of everything that arrives over ten seconds after it.
_DELAY_PER_COST = 10.0
_JOB_DELAY_S = 2.0

_MOST_PREPARED = 2


@dataclass(frozen=True, slots=True)
class Queued:
    """A message with the estimated cost of its picture. received_at: seconds on the lanes' clock.

    refusal: why the picture must not be decoded; empty if it may be. prepared: what a decoder made of it.
    sha256: of the body; empty until it is prepared.
    """

    delivery: Delivery
    cost_ms: float
    received_at: float
    refusal: str = ""
    prepared: PreparedPicture | None = None
    sha256: str = ""

    def made_into(self, prepared: PreparedPicture, sha256: str) -> "Queued":
        return replace(self, prepared=prepared, sha256=sha256)

    @property
    def size_bytes(self) -> int:
        return len(self.delivery.message.body)


def assess(delivery: Delivery, max_pixels: int, received_at: float) -> Queued:
    """Check the picture's header again, because not every publisher is a gateway.

    A body of no known picture type costs nothing here; decoding rejects it. Nor does a tensor, which is not
    decoded.
    """
    message = delivery.message
    if message.headers.get("content_type") == TENSOR:
        return Queued(delivery, 0.0, received_at)
    try:
        header = picture_header.read(message.body)
    except HeaderError as error:
        return Queued(delivery, 0.0, received_at, str(error))
    if header is None:
        return Queued(delivery, 0.0, received_at)
    if header.pixels > max_pixels:
        refusal = (
            f"The picture has {header.width} x {header.height} pixels; at most {max_pixels} are allowed."
        )
        return Queued(delivery, 0.0, received_at, refusal)
    if header.scans > MAX_SCANS:
        return Queued(delivery, 0.0, received_at, f"The JPEG picture has over {MAX_SCANS} scans.")
    return Queued(delivery, header.cost_ms(message.headers.get("mode") or "auto"), received_at)


class Lane:
    """A queue between the receiving thread and one predictor thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queued: list[Queued] = []
        self._closed = False

    def count_of(self, topic: str) -> int:
        """How many of the queued messages came from this topic."""
        with self._changed:
            return sum(each.delivery.topic == topic for each in self._queued)

    def take(self) -> Sequence[Queued] | None:
        """Wait for the next batch. None once the lane is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._queued or self._closed)
            return self._take() if self._queued else None

    def take_ready(self) -> Sequence[Queued] | None:
        """The next batch, or None if it would have to be waited for."""
        with self._changed:
            return self._take() if self._is_ready() else None

    def _take(self) -> Sequence[Queued]:
        count = self._batch_size()
        taken, self._queued = self._queued[:count], self._queued[count:]
        self._changed.notify_all()
        return taken

    def _is_ready(self) -> bool:
        return bool(self._queued)

    def close(self) -> None:
        """Nothing will be added any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _batch_size(self) -> int:
        """How many to take from the front of the queue, which is not empty. Holds the lock."""
        return 1


class BatchLane(Lane):
    """Micro-batches of small pictures: the next one grows while the model works on the last.

    With max_wait_s 0 a lone message is taken at once, and batches form while the model is busy. Otherwise a
    batch waits up to max_wait_s from its first message to fill up.
    """

    def __init__(self, max_size: int, max_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._max_size = max_size
        self._max_wait_s = max_wait_s
        self._clock = clock

    def is_empty(self) -> bool:
        return not self._queued

    def wait_for_room(self, timeout: float) -> int:
        """Wait up to timeout seconds for room. Returns how many messages may be added."""
        with self._changed:
            self._changed.wait_for(self._has_room, timeout)
            return max(0, self._max_size - len(self._queued))

    def wait_until_taken(self, timeout: float) -> None:
        """Wait up to timeout seconds for the lane to be empty."""
        with self._changed:
            self._changed.wait_for(self.is_empty, timeout)

    def add(self, queued: Iterable[Queued]) -> None:
        with self._changed:
            self._queued += queued
            self._changed.notify_all()

    def _is_ready(self) -> bool:
        return bool(self._queued) and (self._left_s() <= 0 or not self._has_room())

    def _left_s(self) -> float:
        """How long the oldest one may still wait for more."""
        return self._queued[0].received_at + self._max_wait_s - self._clock()

    def _batch_size(self) -> int:
        self._changed.wait_for(lambda: not self._has_room() or self._closed, max(0.0, self._left_s()))
        total_ms = itertools.accumulate(each.cost_ms for each in self._queued[: self._max_size])
        return max(1, sum(cost_ms <= BATCH_MS for cost_ms in total_ms))

    def _has_room(self) -> bool:
        return len(self._queued) < self._max_size


class PriorityLane(Lane):
    """Larger pictures, one at a time: those that arrived earlier and cost less go first.

    Pictures of jobs yield to requests that arrive shortly after them. Cost and size of the queue are bounded
    for requests; pictures of jobs are always accepted.
    """

    def __init__(self, jobs: str, max_cost_ms: float, max_bytes: int) -> None:
        """jobs: the topic of jobs."""
        super().__init__()
        self._jobs = jobs
        self._max_cost_ms = max_cost_ms
        self._max_bytes = max_bytes

    def add(self, queued: Queued, *, force: bool = False) -> bool:
        """False if the lane is full. An empty lane accepts any picture; force accepts it in any case."""
        with self._changed:
            if not (force or self._is_job(queued) or self._has_room_for(queued)):
                return False
            bisect.insort(self._queued, queued, key=self._turn)
            self._changed.notify_all()
        return True

    def _turn(self, queued: Queued) -> float:
        delay_s = _JOB_DELAY_S if self._is_job(queued) else 0.0
        return queued.received_at + _DELAY_PER_COST * queued.cost_ms / 1000 + delay_s

    def _is_job(self, queued: Queued) -> bool:
        return queued.delivery.topic == self._jobs

    def _has_room_for(self, queued: Queued) -> bool:
        cost_ms = sum(each.cost_ms for each in self._queued) + queued.cost_ms
        size_bytes = sum(each.size_bytes for each in self._queued) + queued.size_bytes
        return not self._queued or (cost_ms <= self._max_cost_ms and size_bytes <= self._max_bytes)


class PreparedLane(Lane):
    """Prepared pictures, one at a time, so that small ones wait for the model no longer than one takes.

    A decoder is at most two ahead of the model.
    """

    def add(self, queued: Queued) -> bool:
        """Wait for room, and add it. False if the lane is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._queued) < _MOST_PREPARED)
            if self._closed:
                return False
            self._queued.append(queued)
            self._changed.notify_all()
            return True


class Lanes:
    """One lane for each size of picture, so that no picture waits for one that takes longer than itself."""

    def __init__(
        self,
        jobs: str,
        *,
        max_batch_size: int,
        max_batch_wait_s: float,
        max_waiting_cost_ms: float,
        max_waiting_bytes: int,
        max_pixels: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """jobs: the topic of jobs. max_waiting_…: bounds on the requests in each lane of larger pictures."""
        self._jobs = jobs
        self._max_pixels = max_pixels
        self._clock = clock
        self.small = BatchLane(max_batch_size, max_batch_wait_s, clock)
        self.medium = PriorityLane(jobs, max_waiting_cost_ms, max_waiting_bytes)
        self.large = PriorityLane(jobs, max_waiting_cost_ms, max_waiting_bytes)
        self.prepared = PreparedLane()

    def in_order(self) -> Sequence[tuple[Lane, Size]]:
        """Each after those that may pass pictures to it. With the size of decoder that it may need."""
        return (
            (self.small, Size.SMALL),
            (self.medium, Size.MEDIUM),
            (self.large, Size.LARGE),
            (self.prepared, Size.MEDIUM),
        )

    def add(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Queue each picture in the lane of its size. Returns the requests whose lane is full."""
        now = self._clock()
        small: list[Queued] = []
        rejected: list[Delivery] = []
        for delivery in deliveries:
            queued = assess(delivery, self._max_pixels, now)
            size = size_of(queued.cost_ms)
            if size is Size.SMALL:
                small.append(queued)
            elif not (self.medium if size is Size.MEDIUM else self.large).add(queued):
                rejected.append(delivery)
        self.small.add(small)
        return rejected

    def pass_on(self, prepared: Queued) -> bool:
        """Have a prepared picture wait for the model. False if nothing is predicted any more."""
        return self.prepared.add(prepared)

    def isolate(self, queued: Iterable[Queued]) -> None:
        """Process each picture of a batch that ended the model process on its own."""
        for each in queued:
            self.medium.add(each, force=True)

    def room_for_jobs(self, max_jobs: int) -> int:
        """How many more pictures of jobs to take if at most max_jobs may be queued.

        None while a large one is queued: the next may be as large, and cannot be given back.
        """
        if self.large.count_of(self._jobs):
            return 0
        lanes = (self.small, self.medium, self.prepared)
        return max(0, max_jobs - sum(lane.count_of(self._jobs) for lane in lanes))
