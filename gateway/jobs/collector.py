"""The collector: a thread that stores workers' replies to jobs and sweeps the store."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway import JobSettings
from gateway.jobs.rendering import encode_reply
from gateway.jobs.store import Added, JobRequest, Result, Store, StoreError, now_ms, picture_of
from messaging import codec
from messaging.broker import Broker, BrokerError, BrokerUnavailable, Delivery, Message, Subscription
from messaging.contract import ContractError

_log = logging.getLogger("mlaas.jobs")

_MOST_RECEIVED = 500
_RETRY_S = 0.5
_CACHE_BYTES = 2_097_152  # the digests of 65,000 pictures in large jobs, or of 4,000 jobs of one picture
_CACHE_ENTRY_BYTES = 500
_SKIP_ALL = 1_000_000  # exceeds the results of any job, so that the store returns none

MOST_SWEPT = 1_000


class Collector:
    """Stores replies, then acknowledges them. Outlasts failures of the broker and of the store.

    on_stored is called from the collector's thread with the ids of the jobs that got replies, the store's
    counts, and the number of unusable replies.
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
        """instance_id lets a gateway that restarts quickly keep its partitions of the topic."""
        self._broker = broker
        self._topic = topic
        self._store = store
        self._settings = settings
        self._on_stored = on_stored
        self._instance_id = instance_id
        self._stopping = threading.Event()
        self._subscription: Subscription | None = None
        self._in_hand: Sequence[Delivery] = ()
        self._requests = RequestCache(store)
        self._sweeper = Sweeper(store, settings.sweep_interval_ms / 1000)
        self._last_failure = ""
        self._thread = threading.Thread(target=self._run, name="job-collector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Leave the consumer group. Blocks until that is done."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
                self._last_failure = ""
            except (BrokerError, StoreError) as error:
                self._wait_after(str(error))
            except Exception as error:
                _log.exception("unexpected error while collecting job results")
                self._wait_after(repr(error))
        self._leave()

    def _turn(self) -> None:
        """Store and acknowledge replies, beginning with those that the store failed to take last time."""
        self._sweeper.turn(time.monotonic(), now_ms())
        if self._subscription is None:
            # Gateways with another store need another group: each would drop results of the other's jobs.
            group = f"{self._settings.group}.{self._store.identity()}"
            self._subscription = self._broker.subscribe(self._topic, group, self._instance_id)
        if not self._in_hand:
            self._in_hand = self._receive(self._subscription)
        if self._in_hand:
            self._save(self._in_hand)
            self._subscription.acknowledge(self._in_hand)
            self._in_hand = ()

    def _receive(self, subscription: Subscription) -> Sequence[Delivery]:
        """Resubscribes on failure: acknowledging later replies would skip those read before the failure."""
        try:
            return subscription.receive(_MOST_RECEIVED, 0.2)
        except BrokerUnavailable:  # nothing was read
            raise
        except Exception:
            self._leave()
            raise

    def _save(self, deliveries: Sequence[Delivery]) -> None:
        """Drops replies that do not match their picture; the right one may still arrive."""
        at_ms = now_ms()
        results: list[Result] = []
        unusable: list[ContractError] = []
        for delivery in deliveries:
            picture = picture_of(codec.correlation_id(delivery.message))
            request = picture and self._requests.get(picture[0], at_ms)
            if not picture or not request:
                continue
            try:
                results.append(_result(*picture, request, delivery.message, at_ms))
            except ContractError as error:
                unusable.append(error)
        if unusable:
            _log.warning("dropped %d unusable replies to jobs; the first: %s", len(unusable), unusable[0])
        added = self._store.add(results, at_ms)
        unknown = added.unknown + len(deliveries) - len(results) - len(unusable)
        job_ids = sorted({result.job_id for result in results})
        self._on_stored(job_ids, added._replace(unknown=unknown), len(unusable))

    def _leave(self) -> None:
        """The broker redelivers unacknowledged replies, here or to another gateway."""
        subscription, self._subscription, self._in_hand = self._subscription, None, ()
        try:
            if subscription is not None:
                subscription.close()
        except Exception:
            _log.exception("closing the subscription to job replies failed")

    def _wait_after(self, failure: str) -> None:
        if failure != self._last_failure:
            _log.warning("cannot collect job results, retrying: %s", failure)
        self._last_failure = failure
        self._stopping.wait(_RETRY_S)


def _result(job_id: str, index: int, request: JobRequest, message: Message, at_ms: int) -> Result:
    """Raises ContractError if the reply cannot be decoded or belongs to another picture."""
    try:
        reply = codec.decode_prediction(message, request.sha256_of(index))
        return Result(job_id, index, encode_reply(reply, at_ms))
    except ContractError:
        raise
    except Exception as error:  # decoding the same bytes again would fail again
        _log.exception("decoding a reply failed")
        raise ContractError(repr(error)) from error


class RequestCache:
    """The requests of recent jobs, without file names. A request never changes, and every reply needs it."""

    def __init__(self, store: Store, most_bytes: int = _CACHE_BYTES) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._requests: OrderedDict[str, JobRequest] = OrderedDict()
        self._bytes = 0

    def get(self, job_id: str, at_ms: int) -> JobRequest | None:
        """None if there is no such job. Raises StoreError."""
        if job_id in self._requests:
            self._requests.move_to_end(job_id)
            return self._requests[job_id]
        found = self._store.get(job_id, at_ms, after=_SKIP_ALL)
        if found is None:
            return None
        self._requests[job_id] = request = JobRequest(filenames=[], digests=found[0].request.digests)
        self._bytes += len(request.digests) + _CACHE_ENTRY_BYTES
        while self._bytes > self._most_bytes and len(self._requests) > 1:
            _, oldest = self._requests.popitem(last=False)
            self._bytes -= len(oldest.digests) + _CACHE_ENTRY_BYTES
        return request


class Sweeper:
    """Sweeps the store at intervals. A failure, possibly a timeout, halves the next sweep."""

    def __init__(self, store: Store, interval_s: float) -> None:
        self._store = store
        self._interval_s = interval_s
        self._swept_at_s = float("-inf")
        self._most = MOST_SWEPT

    def turn(self, at_s: float, at_ms: int) -> None:
        """Sweep if the interval has passed. at_s is monotonic time, at_ms epoch time."""
        if at_s - self._swept_at_s <= self._interval_s:
            return
        self._swept_at_s = at_s
        most = self._most
        self._most = max(1, most // 2)  # unless the sweep succeeds
        try:
            self._store.sweep(at_ms, most)
            self._most = min(2 * most, MOST_SWEPT)
        except StoreError as error:
            _log.warning("sweeping %d jobs failed: %s", most, error)
        except Exception:
            _log.exception("sweeping %d jobs failed", most)
