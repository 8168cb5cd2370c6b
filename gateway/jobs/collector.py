"""The thread that brings the workers' replies into the store."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from gateway.jobs.job import Result, picture_of
from gateway.jobs.rendering import answered
from gateway.jobs.settings import JobSettings
from gateway.jobs.store import Added, Store, StoreError
from gateway.jobs.sweeping import Sweeping
from messaging import codec
from messaging.broker import (
    Broker,
    BrokerError,
    BrokerUnavailable,
    ClientBroken,
    Delivery,
    Message,
    Subscription,
)
from messaging.contract import ContractError

_log = logging.getLogger("mlaas.jobs")

_MOST_AT_ONCE = 500
_RETRY_S = 0.5


class Collector:
    """Acknowledges replies once the store has committed them. Outlives broker and store.

    Calls back from its own thread: on_stored gets the ids of jobs that replies
    came for, and what became of those.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        store: Store,
        settings: JobSettings,
        on_stored: Callable[[Sequence[str], Added], None],
        instance_id: str = "",
    ) -> None:
        """instance_id: keeps this gateway's share for it while it is away for a short time."""
        self._broker = broker
        self._topic = topic
        self._store = store
        self._settings = settings
        self._on_stored = on_stored
        self._instance_id = instance_id
        self._stopping = threading.Event()
        self._subscription: Subscription | None = None
        self._in_hand: Sequence[Delivery] = ()
        self._sweeping = Sweeping(store, settings.sweep_interval_ms / 1000)
        self._said = ""
        self._thread = threading.Thread(target=self._run, name="job-collector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks until the group is left."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
                self._said = ""
            except (BrokerError, StoreError) as error:
                if isinstance(error, ClientBroken):
                    self._leave()
                    self._instance_id = ""  # another gateway has the same
                self._wait_after(str(error))
            except Exception as error:
                _log.exception("collecting results of jobs")
                self._wait_after(repr(error))
        self._leave()

    def _turn(self) -> None:
        """Take replies, store them, acknowledge them; what the store did not take is tried again first."""
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
        """In one group with gateways of another store, each would drop results of the other's jobs."""
        group = f"{self._settings.group}.{self._store.identity()}"
        return self._broker.subscribe(self._topic, group, self._instance_id)

    def _received(self, subscription: Subscription) -> Sequence[Delivery]:
        """What was read before an error comes again; acknowledging what comes later would pass over it."""
        try:
            return subscription.receive(_MOST_AT_ONCE, 0.2)
        except BrokerUnavailable:  # nothing was read
            raise
        except Exception:
            self._leave()
            raise

    def _keep(self, deliveries: Sequence[Delivery]) -> None:
        now_ms = _now_ms()
        results = list(_results((delivery.message for delivery in deliveries), now_ms))
        added = self._store.add(results, now_ms)
        strange = len(deliveries) - len(results)
        self._on_stored(
            sorted({result.job_id for result in results}), added._replace(unknown=added.unknown + strange)
        )

    def _leave(self) -> None:
        """What is in hand comes again, here or elsewhere."""
        subscription, self._subscription, self._in_hand = self._subscription, None, ()
        try:
            if subscription is not None:
                subscription.close()
        except Exception:  # the thread goes on
            _log.exception("leaving the group")

    def _wait_after(self, what: str) -> None:
        if what != self._said:
            _log.warning("results of jobs wait: %s", what)
        self._said = what
        self._stopping.wait(_RETRY_S)


def _results(replies: Iterable[Message], now_ms: int) -> Iterable[Result]:
    """Of those that are replies to a job's picture."""
    for reply in replies:
        picture = picture_of(codec.correlation_id(reply))
        if picture is None:
            continue
        try:
            body = answered(reply, now_ms)
        except ContractError as error:
            _log.warning("%s", error)
        except Exception:  # it would be the same each time that it is tried again
            _log.exception("a reply that cannot be read")
        else:
            yield Result(*picture, body)


def _now_ms() -> int:
    return int(time.time() * 1000)
