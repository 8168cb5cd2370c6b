"""What waits for the model: small pictures for the next batch, larger ones for their turn."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from messaging import picture_header
from messaging.broker import Delivery
from messaging.picture_header import MAX_SCANS, HeaderError, Size, size_of

BATCH_MS = 5.0
"""What a batch of small pictures may cost together: whoever comes then waits for so long."""

# What costs a second has its turn before what comes ten seconds later, however little that costs.
_PATIENCE = 10.0
_JOBS_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message, and what its picture costs by its header. received_at: in the clock's seconds.

    refusal: why the picture is not to be decoded, or nothing.
    """

    delivery: Delivery
    cost_ms: float
    received_at: float
    refusal: str = ""

    @property
    def size_bytes(self) -> int:
        return len(self.delivery.message.body)


@dataclass(frozen=True, slots=True)
class Batch:
    """received_at: when its first message was in hand, in the clock's seconds."""

    waiting: Sequence[Waiting]
    received_at: float


def judged(delivery: Delivery, max_pixels: int, received_at: float) -> Waiting:
    """Whoever published it may have judged otherwise. What is no picture goes on to who says so."""
    message = delivery.message
    try:
        header = picture_header.read(message.body)
    except HeaderError as error:
        return Waiting(delivery, 0.0, received_at, str(error))
    if header is None:
        return Waiting(delivery, 0.0, received_at)
    refusal = ""
    if header.pixels > max_pixels:
        refusal = (
            f"The picture has {header.width} x {header.height} pixels; at most {max_pixels} are allowed."
        )
    elif header.scans > MAX_SCANS:
        refusal = f"The JPEG picture has over {MAX_SCANS} scans."
    cost_ms = 0.0 if refusal else header.cost_ms(message.headers.get("mode") or "auto")
    return Waiting(delivery, cost_ms, received_at, refusal)


class Lane(Protocol):
    """Between the thread that receives and one that has the model work."""

    def count_of(self, topic: str) -> int:
        """How many of this topic wait."""

    def take(self) -> Batch | None:
        """Waits for a first message. None when it is closed and nothing is left."""

    def close(self) -> None:
        """Nothing will be added any more."""


class NextBatch:
    """Micro-batches of small pictures: one grows while the model works on the one before.

    With max_wait_s 0 a lone message goes on at once; batches form while the model is busy. max_wait_s counts
    from a batch's first message. Together the pictures of a batch cost BATCH_MS at most.
    """

    def __init__(self, max_size: int, max_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_size = max_size
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[Waiting] = []
        self._closed = False

    def is_empty(self) -> bool:
        return not self._waiting

    def count_of(self, topic: str) -> int:
        with self._changed:
            return sum(each.delivery.topic == topic for each in self._waiting)

    def wait_for_room(self, timeout: float) -> int:
        """How many more may be added: 0 if it was full for so many seconds."""
        with self._changed:
            self._changed.wait_for(self._has_room, timeout)
            return max(0, self._max_size - len(self._waiting))

    def wait_until_taken(self, timeout: float) -> None:
        """So many seconds at most."""
        with self._changed:
            self._changed.wait_for(self.is_empty, timeout)

    def add(self, waiting: Iterable[Waiting]) -> None:
        with self._changed:
            self._waiting += waiting
            self._changed.notify_all()

    def take(self) -> Batch | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            left_s = self._waiting[0].received_at + self._max_wait_s - self._clock()
            self._changed.wait_for(lambda: not self._has_room() or self._closed, max(0.0, left_s))
            count = self._count_within(BATCH_MS)
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            self._changed.notify_all()
            return Batch(taken, taken[0].received_at)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return len(self._waiting) < self._max_size

    def _count_within(self, cost_ms: float) -> int:
        """At least one."""
        costs = itertools.accumulate(each.cost_ms for each in self._waiting[: self._max_size])
        return max(1, sum(cost <= cost_ms for cost in costs))


class Turns:
    """Pictures that go one at a time: the earlier they came and the less they cost, the earlier.

    Those of jobs let others go first for a while. Requests are taken while what waits costs and weighs no
    more than it may.
    """

    def __init__(self, jobs: str, max_cost_ms: float, max_bytes: int) -> None:
        self._jobs = jobs
        self._max_cost_ms = max_cost_ms
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Waiting]] = []
        self._closed = False

    def count_of(self, topic: str) -> int:
        with self._changed:
            return sum(each.delivery.topic == topic for _, _, each in self._waiting)

    def add(self, waiting: Waiting, *, whatever: bool = False) -> bool:
        """False if there is no room. There is for the first one, and always for a job's picture."""
        is_job = waiting.delivery.topic == self._jobs
        turn = waiting.received_at + _PATIENCE * waiting.cost_ms / 1000 + (_JOBS_AFTER_S if is_job else 0.0)
        with self._changed:
            if not (is_job or whatever or self._has_room_for(waiting)):
                return False
            heapq.heappush(self._waiting, (turn, next(self._numbers), waiting))
            self._changed.notify_all()
        return True

    def take(self) -> Batch | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            _, _, waiting = heapq.heappop(self._waiting)
            return Batch([waiting], waiting.received_at)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room_for(self, waiting: Waiting) -> bool:
        cost_ms = sum(each.cost_ms for _, _, each in self._waiting) + waiting.cost_ms
        size_bytes = sum(each.size_bytes for _, _, each in self._waiting) + waiting.size_bytes
        return not self._waiting or (cost_ms <= self._max_cost_ms and size_bytes <= self._max_bytes)


class Lanes:
    """One for each size of picture, so that none waits for what takes longer than itself."""

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
        """max_waiting_cost_ms, max_waiting_bytes: of the requests in each lane but that of small ones."""
        self._jobs = jobs
        self._max_pixels = max_pixels
        self._clock = clock
        self.small = NextBatch(max_batch_size, max_batch_wait_s, clock)
        self.medium = Turns(jobs, max_waiting_cost_ms, max_waiting_bytes)
        self.large = Turns(jobs, max_waiting_cost_ms, max_waiting_bytes)

    def of(self, size: Size) -> Lane:
        return (self.small, self.medium, self.large)[size]

    def add(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Returns the requests for which there is no room."""
        now = self._clock()
        small: list[Waiting] = []
        left: list[Delivery] = []
        for delivery in deliveries:
            waiting = judged(delivery, self._max_pixels, now)
            size = size_of(waiting.cost_ms)
            if size is Size.SMALL:
                small.append(waiting)
            elif not (self.medium if size is Size.MEDIUM else self.large).add(waiting):
                left.append(delivery)
        if small:
            self.small.add(small)
        return left

    def one_by_one(self, waiting: Iterable[Waiting]) -> None:
        """What was in a batch that ended the model process."""
        for each in waiting:
            self.medium.add(each, whatever=True)

    def most_jobs(self, most: int) -> int:
        """How many more pictures of jobs to take, where so many may wait.

        None while a large one waits: the next may be as large, and cannot be given back.
        """
        if self.large.count_of(self._jobs):
            return 0
        return max(0, most - self.small.count_of(self._jobs) - self.medium.count_of(self._jobs))
