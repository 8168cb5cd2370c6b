"""The thread that stores the workers' replies, and has the store sweep."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway.jobs.job import Asked, Result, picture_of
from gateway.jobs.rendering import answered
from gateway.jobs.store import Added, Store, StoreError
from gateway.settings import JobSettings
from messaging import codec
from messaging.broker import (
    Broker,
    BrokerError,
    BrokerUnavailable,
    Delivery,
    Message,
    Subscription,
)
from messaging.contract import ContractError

_log = logging.getLogger("mlaas.jobs")

_MOST_AT_ONCE = 500
_RETRY_S = 0.5
_MOST_BYTES_KNOWN = 2_097_152  # 65,000 pictures of large jobs, or 4,000 jobs of one picture
_NO_RESULTS = 1_000_000  # more than a job can have, so that the store returns none of them

MOST_SWEPT = 1_000


class Collector:
    """Acknowledges replies once the store has committed them. Survives the loss of broker and store.

    Calls back from its own thread: on_stored gets the ids of the jobs that replies came for, what became of
    the replies, and how many could not be the reply to their picture.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        store: Store,
        settings: JobSettings,
        on_stored: Callable[[Sequence[str], Added, int], None],
        instance_id: str = "",
    ) -> None:
        """instance_id: keeps this gateway's share of the replies while it is away for a short time."""
        self._broker = broker
        self._topic = topic
        self._store = store
        self._settings = settings
        self._on_stored = on_stored
        self._instance_id = instance_id
        self._stopping = threading.Event()
        self._subscription: Subscription | None = None
        self._in_hand: Sequence[Delivery] = ()
        self._known = KnownJobs(store)
        self._sweeping = Sweeping(store, settings.sweep_interval_ms / 1000)
        self._said = ""
        self._thread = threading.Thread(target=self._run, name="job-collector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Block until the group is left."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
                self._said = ""
            except (BrokerError, StoreError) as error:
                self._wait_after(str(error))
            except Exception as error:
                _log.exception("collecting results of jobs")
                self._wait_after(repr(error))
        self._leave()

    def _turn(self) -> None:
        """Receive replies, store them, acknowledge them. Replies that the store did not take come first."""
        self._sweeping.turn(time.monotonic(), _now_ms())
        if self._subscription is None:
            self._subscription = self._join()
        if not self._in_hand:
            self._in_hand = self._received(self._subscription)
        if self._in_hand:
            self._keep(self._in_hand)
            self._subscription.acknowledge(self._in_hand)
            self._in_hand = ()

    def _join(self) -> Subscription:
        """Gateways of another store must be in another group: each would drop results of the other's jobs."""
        group = f"{self._settings.group}.{self._store.identity()}"
        return self._broker.subscribe(self._topic, group, self._instance_id)

    def _received(self, subscription: Subscription) -> Sequence[Delivery]:
        """Start over after an error: to acknowledge later replies would pass over those read before it."""
        try:
            return subscription.receive(_MOST_AT_ONCE, 0.2)
        except BrokerUnavailable:  # nothing was read
            raise
        except Exception:
            self._leave()
            raise

    def _keep(self, deliveries: Sequence[Delivery]) -> None:
        """A reply that cannot be its picture's is dropped, for the true one may still come."""
        now_ms = _now_ms()
        results: list[Result] = []
        unusable: list[ContractError] = []
        for delivery in deliveries:
            picture = picture_of(codec.correlation_id(delivery.message))
            asked = picture and self._known.asked(picture[0], now_ms)
            if not picture or not asked:
                continue
            try:
                results.append(_result(picture, asked, delivery.message, now_ms))
            except ContractError as error:
                unusable.append(error)
        if unusable:
            _log.warning("dropped %d replies that cannot be used, the first: %s", len(unusable), unusable[0])
        added = self._store.add(results, now_ms)
        unknown = len(deliveries) - len(results) - len(unusable)
        self._on_stored(
            sorted({result.job_id for result in results}),
            added._replace(unknown=added.unknown + unknown),
            len(unusable),
        )

    def _leave(self) -> None:
        """Replies in hand are delivered again, here or elsewhere."""
        subscription, self._subscription, self._in_hand = self._subscription, None, ()
        try:
            if subscription is not None:
                subscription.close()
        except Exception:  # the thread goes on
            _log.exception("leaving the group")

    def _wait_after(self, what: str) -> None:
        if what != self._said:
            _log.warning("results of jobs cannot be collected, trying again: %s", what)
        self._said = what
        self._stopping.wait(_RETRY_S)


def _result(picture: tuple[str, int], asked: Asked, message: Message, now_ms: int) -> Result:
    """Raises ContractError."""
    job_id, index = picture
    try:
        reply = codec.decode_prediction(message, asked.sha256_of(index))
        return Result(job_id, index, answered(reply, now_ms))
    except ContractError:
        raise
    except Exception as error:  # the thread goes on; trying again would fail again
        _log.exception("a reply that cannot be read")
        raise ContractError(repr(error)) from error


class KnownJobs:
    """What recent jobs asked, without the file names: it never changes, and is looked up for each reply."""

    def __init__(self, store: Store, most_bytes: int = _MOST_BYTES_KNOWN) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._bytes = 0

    def asked(self, job_id: str, now_ms: int) -> Asked | None:
        """None if there is no such job. Raises StoreError."""
        if job_id in self._asked:
            self._asked.move_to_end(job_id)
            return self._asked[job_id]
        found = self._store.get(job_id, now_ms, after=_NO_RESULTS)
        if found is None:
            return None
        self._asked[job_id] = asked = Asked(filenames=[], digests=found[0].asked.digests)
        self._bytes += _size(asked)
        while self._bytes > self._most_bytes and len(self._asked) > 1:
            _, oldest = self._asked.popitem(last=False)
            self._bytes -= _size(oldest)
        return asked


def _size(asked: Asked) -> int:
    """In bytes, with its id and its entry."""
    return len(asked.digests) + 500


class Sweeping:
    """Sweeps the store at intervals. After a sweep that fails, for it may be too slow, the next is halved."""

    def __init__(self, store: Store, interval_s: float) -> None:
        self._store = store
        self._interval_s = interval_s
        self._swept_at_s = float("-inf")
        self._most = MOST_SWEPT

    def turn(self, at_s: float, now_ms: int) -> None:
        """Sweep if it is time to. at_s: of a monotonic clock."""
        if at_s - self._swept_at_s <= self._interval_s:
            return
        self._swept_at_s = at_s
        failed = True
        try:
            self._store.sweep(now_ms, self._most)
            failed = False
        except StoreError as error:
            _log.warning("sweeping %d jobs: %s", self._most, error)
        except Exception:
            _log.exception("sweeping %d jobs", self._most)
        self._most = next_most(self._most, failed=failed)


def next_most(most: int, *, failed: bool) -> int:
    """How many jobs to sweep after a sweep of so many."""
    return max(1, most // 2) if failed else min(2 * most, MOST_SWEPT)


def _now_ms() -> int:
    return int(time.time() * 1000)
