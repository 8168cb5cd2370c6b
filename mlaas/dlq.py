"""Dead letters: finding them, asking the workers once more, deleting them."""

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from messaging import codec, dead_letters
from messaging.broker import Broker, BrokerUnavailable, Delivery, Inbox, NotSupported, Records
from messaging.contract import ContractError, Reply, sha256_of
from messaging.dead_letters import Letter
from mlaas.connect import connect
from mlaas.settings import Settings

_PATIENCE_S = 0.2


class NoSuchLetter(Exception):
    """Nothing is there; the text says what is."""


class NotAnswered(Exception):
    """No worker answers what is replayed."""


class Place(NamedTuple):
    """Where a letter is in the topic of dead letters."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read PARTITION:OFFSET. Raises ValueError."""
        partition, colon, offset = text.partition(":")
        if not (colon and _is_number(partition) and _is_number(offset)):
            raise ValueError(f"{text!r} is not PARTITION:OFFSET, as 3:12")
        return cls(int(partition), int(offset))

    @classmethod
    def of(cls, letter: Delivery | Letter) -> Self:
        return cls(letter.partition, letter.offset)

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Broker, Records]]:
    """The broker and its dead letters. Raises BrokerError, and ValueError for a URL that is none."""
    url = urlsplit(settings.broker.url)
    if url.scheme in ("embedded", "memory"):
        raise NotSupported(
            f"{url.scheme}:// keeps dead letters in the process it runs in: while `mlaas up` runs, name the"
            " broker that it prints at its start, with --broker URL"
        )
    broker = connect(settings.broker)
    try:
        records = broker.records(settings.topics.dead_letters)
        try:
            yield broker, records
        finally:
            records.close()
    except BrokerUnavailable as error:
        servers = url.netloc.rpartition("@")[2]
        raise BrokerUnavailable(f"no broker answers at {servers} ({error})") from error
    finally:
        broker.close()


def summaries(records: Records, limit: int | None) -> list[Letter]:
    """The newest, at most so many, the oldest of them first."""
    letters = [
        dead_letters.decode_letter(delivery)
        for partition, offsets in records.bounds().items()
        for delivery in records.read(partition, offsets if limit is None else offsets[-limit:])
    ]
    letters.sort(key=lambda letter: (letter.buried_at_ms, letter.partition, letter.offset))
    return letters if limit is None else letters[-limit:]


def find(records: Records, places: Collection[Place]) -> Iterator[Delivery]:
    """Read these, in their order. Raises NoSuchLetter before the first if one is not there for sure."""
    bounds = records.bounds()
    for place in places:
        if place.offset not in bounds.get(place.partition, ()):
            raise _no_such_letter(place, bounds)
    return (_one(records, place, bounds) for place in places)


def _one(records: Records, place: Place, bounds: Mapping[int, range]) -> Delivery:
    for delivery in records.read(place.partition, range(place.offset, place.offset + 1)):
        return delivery
    raise _no_such_letter(place, bounds)


def _no_such_letter(place: Place, bounds: Mapping[int, range]) -> NoSuchLetter:
    held = bounds.get(place.partition)
    if held is None:
        has = f"partitions are 0 to {max(bounds)}"
    else:
        has = f"partition {place.partition} has {f'{held[0]} to {held[-1]}' if held else 'none'}"
    return NoSuchLetter(f"no letter {place}: {has}; `mlaas dlq ls` shows all")


def every(records: Records, bounds: Mapping[int, range]) -> Iterator[Delivery]:
    for partition, offsets in bounds.items():
        yield from records.read(partition, offsets)


def replay(
    broker: Broker,
    inbox: Inbox,
    requests_topic: str,
    letters: Iterable[Delivery],
    *,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> Iterator[tuple[Delivery, Reply]]:
    """Ask the workers one letter after the other, each under a new id with a new deadline.

    The new id keeps it from being taken for one that was answered or cancelled lately.
    Raises NotAnswered for the first that is not: the others would not be, either.
    """
    for letter in letters:
        correlation_id = f"replay.{uuid.uuid4().hex}"
        request = dead_letters.revive(
            letter.message,
            correlation_id=correlation_id,
            reply_to=inbox.address,
            deadline_ms=int((wall_clock() + timeout_s) * 1000),
        )
        broker.publish(requests_topic, request).result()
        yield letter, _answer(inbox, correlation_id, letter, timeout_s, clock)


def _answer(
    inbox: Inbox, correlation_id: str, letter: Delivery, timeout_s: float, clock: Callable[[], float]
) -> Reply:
    end = clock() + timeout_s
    sha256 = sha256_of(letter.message.body)
    while clock() < end:
        for message in inbox.receive(100, _PATIENCE_S):
            if codec.correlation_id(message) == correlation_id:
                with suppress(ContractError):  # the true reply may still come
                    return codec.decode_prediction(message, sha256)
    raise NotAnswered(
        f"{Place.of(letter)} was not answered within {timeout_s:g} s, and nothing after it was replayed:"
        " is a worker alive? --timeout waits longer"
    )


def up_to(bounds: Mapping[int, range], place: Place) -> dict[int, int]:
    """What to delete so that the letters before this one in its partition are gone. Raises NoSuchLetter."""
    if place.partition not in bounds:
        raise _no_such_letter(place, bounds)
    held = bounds[place.partition]
    end = min(place.offset, held.stop)
    return {place.partition: end} if end > held.start else {}


def up_to_end(bounds: Mapping[int, range]) -> dict[int, int]:
    """What to delete so that all of them are gone."""
    return {partition: held.stop for partition, held in bounds.items() if held}


def up_to_first_kept(bounds: Mapping[int, range], done: Collection[Place]) -> dict[int, int]:
    """What to delete so that none goes that is not done: a broker deletes from the old end only."""
    ends = {}
    for partition, held in bounds.items():
        end = next((offset for offset in held if (partition, offset) not in done), held.stop)
        if end > held.start:
            ends[partition] = end
    return ends


def count(bounds: Mapping[int, range], ends: Mapping[int, int]) -> int:
    """How many letters go when each of these partitions is deleted up to there."""
    return sum(end - bounds[partition].start for partition, end in ends.items())
