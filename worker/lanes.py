"""What waits for the model: in one lane small pictures, in the other those that take long to decode."""

from collections.abc import Iterable, Mapping

from messaging.broker import Delivery
from worker.batching import NextBatch
from worker.pipe import Lane

# A JPEG of so many bytes takes some 2 ms to decode: as long as a few small pictures take altogether.
_LARGE_BYTES = 128 * 1024


class Lanes:
    """Between the thread that receives and those that have the model work, one for each lane."""

    def __init__(self, max_size: int, max_wait_s: float) -> None:
        self.batches: Mapping[Lane, NextBatch] = {
            Lane.SMALL: NextBatch(max_size, max_wait_s),
            Lane.LARGE: NextBatch(max_size, 0.0, most_at_once=1),
        }

    @property
    def small(self) -> NextBatch:
        return self.batches[Lane.SMALL]

    @property
    def large(self) -> NextBatch:
        return self.batches[Lane.LARGE]

    def wait_for_room(self, timeout: float) -> int:
        """How many more may be added, whatever they are: 0 if a lane was full for so many seconds."""
        return min(batch.wait_for_room(timeout) for batch in self.batches.values())

    def add(self, deliveries: Iterable[Delivery]) -> None:
        sorted_out: dict[Lane, list[Delivery]] = {lane: [] for lane in Lane}
        for delivery in deliveries:
            sorted_out[lane_of(delivery)].append(delivery)
        for lane, its_own in sorted_out.items():
            if its_own:
                self.batches[lane].add(its_own)

    def close(self) -> None:
        """Nothing will be added any more."""
        for batch in self.batches.values():
            batch.close()


def lane_of(delivery: Delivery) -> Lane:
    """By the size of the file alone: what it decodes to, only a decoder can be trusted with."""
    return Lane.LARGE if len(delivery.message.body) > _LARGE_BYTES else Lane.SMALL
