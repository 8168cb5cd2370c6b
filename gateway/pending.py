"""Requests that wait for their replies, and whether one more may. Belongs to the event loop."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from heapq import heappop, heappush

from gateway.errors import TooManyInFlight, Unavailable
from messaging.broker import Message
from messaging.contract import Reply
from messaging.picture_header import Size, size_of

_SLOT_S = 0.01
_MEMORY_S = 2.0
_BUSY_MEMORY_S = 5.0
_STANDSTILL_S = 1.0
# Answers before an estimate is made: a worker that has just started is slow at first.
_ENOUGH = 5.0
# Of the time that the caller allows: a longer wait would miss the deadline at the slightest delay.
_SAFE_SHARE = 0.7
# A worker takes this many at once and answers them together, in the time of one.
_SURE_FROM_PLACE = 32

Decode = Callable[[Message], Reply]
"""Raises ContractError for a message that cannot be the reply."""

# What pictures of each size may take of a bound, together with larger ones: small, medium, large.
_SHARES = (1.0, 0.75, 0.5)


class Capacity:
    """What all waiting requests of a process may take together. Each queue has a Pending."""

    def __init__(self, max_requests: int, max_bytes: int, max_cost_ms: float) -> None:
        self.requests = _Limit(max_requests)
        self.bytes = _Limit(max_bytes)
        self.cost_ms = _Limit(max_cost_ms)


class Pending:
    """Bounds the number of a queue's waiting requests, their bytes, and the cost of decoding their pictures.

    Also refuses requests whose estimated wait is too long. Larger pictures never crowd out smaller ones,
    which have a share of each bound to themselves and a wait estimated from pictures of their own size. Nor
    does a queue crowd out another: the only one may take the whole capacity, one of several half of what the
    others leave.
    """

    def __init__(self, capacity: Capacity, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests = _Bound(capacity.requests, "requests", "gateway.max_in_flight")
        self._bytes = _Bound(capacity.bytes, "bytes", "gateway.max_in_flight_bytes")
        self._cost_ms = _Bound(capacity.cost_ms, "ms of decoding", "gateway.max_in_flight_cost_ms")
        self._waiters: dict[str, _Waiter] = {}
        self._published: dict[str, Future[None]] = {}
        self._waiting = [0 for _ in Size]
        self._estimates = [WaitEstimate() for _ in Size]

    def __len__(self) -> int:
        return len(self._waiters)

    def waiting(self, cost_ms: float) -> int:
        """How many requests wait with pictures of the same size: small, medium or large."""
        return self._waiting[size_of(cost_ms)]

    def admit(self, size_bytes: int, cost_ms: float, timeout_s: float) -> None:
        """Raises TooManyInFlight if the request would exceed a bound, or be answered too late.

        One is always admitted while no other picture of its size (small, medium or large) is in flight.
        """
        size = size_of(cost_ms)
        waiting, estimate = self._waiting[size], self._estimates[size]
        if not waiting:
            return
        for bound, amount in ((self._requests, 1), (self._bytes, size_bytes), (self._cost_ms, cost_ms)):
            if not bound.has_room(size, amount):
                detail = (
                    f"{bound.taken(size):.0f} {bound.unit} are in flight; {amount:.0f} more would exceed the "
                    f"limit of {bound.most(size):.0f} for {size.name.lower()} pictures ({bound.setting})"
                )
                raise self._too_many(detail, size, timeout_s)
        if estimate.is_too_long(waiting + 1, timeout_s):
            wait_s = estimate.wait_s(waiting + 1)
            detail = f"the estimated wait of {wait_s:.1f} s is too close to the deadline of {timeout_s:g} s"
            raise self._too_many(detail, size, timeout_s)

    def waiter(self, correlation_id: str, size_bytes: int, cost_ms: float, decode: Decode) -> "_Waiter":
        """A context whose block is that of the request, in which it is to be published; gives the reply."""
        return _Waiter(self, correlation_id, size_bytes, cost_ms, decode)

    def enter(self, waiter: "_Waiter") -> None:
        self._waiters[waiter.correlation_id] = waiter
        self._take(waiter.size, 1, waiter.size_bytes, waiter.cost_ms)
        waiter.place, waiter.since = self._waiting[waiter.size], self._clock()

    def leave(self, waiter: "_Waiter") -> None:
        del self._waiters[waiter.correlation_id]
        self._published.pop(waiter.correlation_id, None)
        self._take(waiter.size, -1, -waiter.size_bytes, -waiter.cost_ms)
        reply = waiter.reply
        if waiter.size_bytes and reply.done() and not reply.cancelled() and reply.exception() is None:
            now = self._clock()
            self._estimates[waiter.size].answered(waiter.place, now - waiter.since, now)

    def resolve(self, correlation_id: str, message: Message) -> bool:
        """Hand the reply to whoever waits for it; False if nobody does.

        Raises ContractError for a message that cannot be the reply; the request keeps waiting.
        """
        waiter = self._waiters.get(correlation_id)
        if waiter is None or waiter.reply.done():
            return False
        waiter.reply.set_result(waiter.decode(message))
        return True

    def fail(self, correlation_id: str, error: Exception) -> None:
        waiter = self._waiters.get(correlation_id)
        if waiter is not None and not waiter.reply.done():
            waiter.reply.set_exception(error)

    def publishing(self, correlation_id: str, published: Future[None]) -> None:
        """published: completes when the broker has the request."""
        self._published[correlation_id] = published

    def fail_unpublished(self, reason: str) -> None:
        """Fail the requests that the broker, now away, has not confirmed."""
        for correlation_id, published in self._published.items():
            if not published.done():
                self.fail(correlation_id, Unavailable(reason))

    def fail_all(self, reason: str) -> None:
        for correlation_id in list(self._waiters):
            self.fail(correlation_id, Unavailable(reason))

    def _take(self, size: Size, count: int, size_bytes: int, cost_ms: float) -> None:
        self._waiting[size] += count
        self._requests.take(size, count)
        self._bytes.take(size, size_bytes)
        self._cost_ms.take(size, cost_ms)

    def _too_many(self, detail: str, size: Size, timeout_s: float) -> TooManyInFlight:
        return TooManyInFlight(detail, self._estimates[size].retry_after_s(self._waiting[size], timeout_s))


class _Waiter:
    """A request's block in `with`. place: in its queue, counted from 1. since: monotonic seconds."""

    def __init__(
        self, pending: Pending, correlation_id: str, size_bytes: int, cost_ms: float, decode: Decode
    ) -> None:
        self.pending = pending
        self.correlation_id = correlation_id
        self.size_bytes = size_bytes
        self.cost_ms = cost_ms
        self.size = size_of(cost_ms)
        self.decode = decode
        self.place, self.since = 0, 0.0
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> "asyncio.Future[Reply]":
        self.pending.enter(self)
        return self.reply

    def __exit__(self, *_: object) -> None:
        self.pending.leave(self)


class Deadlines:
    """The replies that are due, by slots of time, so that one timer serves all. Times are monotonic seconds.

    A reply is due up to _SLOT_S late, and never early.
    """

    def __init__(self) -> None:
        self._slots: dict[int, dict[asyncio.Future[Reply], float]] = {}
        self._order: list[int] = []

    def add(self, reply: "asyncio.Future[Reply]", now: float, timeout_s: float) -> int:
        """Returns its slot."""
        slot = math.ceil((now + timeout_s) / _SLOT_S)
        if slot not in self._slots:
            self._slots[slot] = {}
            heappush(self._order, slot)
        self._slots[slot][reply] = timeout_s
        return slot

    def remove(self, slot: int, reply: "asyncio.Future[Reply]") -> None:
        if slot in self._slots:
            self._slots[slot].pop(reply, None)

    def next_at(self) -> float:
        """When the next ones are due; infinite if there are none."""
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heappop(self._order)]
        return self._order[0] * _SLOT_S if self._order else math.inf

    def due(self, now: float) -> "list[tuple[asyncio.Future[Reply], float]]":
        """Take those that are due, each with its timeout_s."""
        found: list[tuple[asyncio.Future[Reply], float]] = []
        while self._order and self._order[0] * _SLOT_S <= now:
            found += self._slots.pop(heappop(self._order)).items()
        return found


@dataclass(slots=True)
class _Limit:
    """taken: by the requests of all queues."""

    most: float
    queues: int = 0
    taken: float = 0.0

    def of_one(self, taken: float) -> float:
        """How much a queue may take that has taken this much."""
        if self.queues == 1:
            return self.most
        left = self.most - (self.taken - taken)
        return max(0.0, left / 2)


class _Bound:
    """A bound on what a queue's requests take. Larger pictures leave the smaller ones a share of it."""

    def __init__(self, limit: _Limit, unit: str, setting: str) -> None:
        self.unit = unit
        self.setting = setting
        self._limit = limit
        self._taken = [0.0 for _ in Size]
        limit.queues += 1

    def take(self, size: Size, amount: float) -> None:
        """A negative amount gives back."""
        self._taken[size] += amount
        self._limit.taken += amount

    def taken(self, size: Size) -> float:
        """What pictures of this size and larger ones take; the larger ones count up to their share."""
        most, larger = self._limit.of_one(sum(self._taken)), 0.0
        for each in range(Size.LARGE, size, -1):
            larger = min(larger + self._taken[each], _SHARES[each] * most)
        return larger + self._taken[size]

    def most(self, size: Size) -> float:
        """What pictures of this size and larger ones may take."""
        return _SHARES[size] * self._limit.of_one(sum(self._taken))

    def has_room(self, size: Size, amount: float) -> bool:
        limit = self._limit
        if limit.queues == 1 and limit.taken + amount <= _SHARES[size] * limit.most:
            return True  # even if all counted
        return self.taken(size) + amount <= self.most(size)


class WaitEstimate:
    """Estimates how long a request will wait, as its place in the queue times the cost of a place.

    The cost is the lesser of two averages, in which recent answers count more. One is the wait per place: a
    request that was the n-th in the queue and waited t seconds gives t / n. After a standstill it is too
    high, because the first requests answered then waited longest at the lowest places. The other is the time
    per answer while requests waited, to which a standstill adds at most a second. Times are in seconds.
    """

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._places = 0.0
        self._busy_s = 0.0
        self._answers = 0.0
        self._updated_at = 0.0

    def answered(self, place: int, waited_s: float, now: float) -> None:
        """Learn from a request that came at this place, counted from 1, and is now answered."""
        since_s = max(0.0, now - self._updated_at) if self._answers else waited_s
        kept = math.exp(-since_s / _MEMORY_S)
        self._waited_s = self._waited_s * kept + waited_s
        self._places = self._places * kept + place
        busy_s = min(since_s, waited_s, _STANDSTILL_S)
        kept = math.exp(-busy_s / _BUSY_MEMORY_S)
        self._busy_s = self._busy_s * kept + busy_s
        self._answers = self._answers * kept + 1
        self._updated_at = now

    def wait_s(self, place: int) -> float:
        """How long a request at this place waits for its answer; 0 before enough is known."""
        if self._answers < _ENOUGH:
            return 0.0
        return place * min(self._waited_s / self._places, self._busy_s / self._answers)

    def is_too_long(self, place: int, timeout_s: float) -> bool:
        """Whether a request at this place would be answered too late. The first few are always admitted."""
        return place > _SURE_FROM_PLACE and self.wait_s(place) > _SAFE_SHARE * timeout_s

    def retry_after_s(self, waiting: int, timeout_s: float) -> int:
        """Whole seconds until the queue is short enough for one more to be answered in time."""
        excess_s = self.wait_s(waiting) - _SAFE_SHARE * timeout_s
        return max(1, math.ceil(excess_s if excess_s > 0 else self.wait_s(waiting)))
