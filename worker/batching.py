"""When a micro-batch opens and closes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from messaging.broker import Delivery

Receive = Callable[[int, float], Sequence[Delivery]]


@dataclass(frozen=True, slots=True)
class Batch:
    """received_at: when its first message was in hand, in the clock's seconds."""

    deliveries: list[Delivery]
    received_at: float


def collect(
    receive: Receive, *, max_size: int, max_wait_s: float, patience_s: float, clock: Callable[[], float]
) -> Batch | None:
    """Wait up to patience_s for a first message, then up to max_wait_s for more. None if none came.

    With max_wait_s 0 a lone message goes on at once; batches form while the model is busy.
    """
    deliveries = list(receive(max_size, patience_s))
    if not deliveries:
        return None
    received_at = clock()
    while len(deliveries) < max_size and (left := received_at + max_wait_s - clock()) > 0:
        deliveries += receive(max_size - len(deliveries), left)
    return Batch(deliveries, received_at)
