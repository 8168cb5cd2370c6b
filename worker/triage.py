"""What each message of a batch is: work, a ping, or nothing that can be worked on. Pure."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from messaging import codec
from messaging.broker import Delivery
from messaging.contract import ContractError, ErrorCode, Failure, Request, ReturnAddress
from worker.batching import Waiting
from worker.pipe import Loaded, LoadedModel


@dataclass(frozen=True, slots=True)
class Task:
    """A message that gets a reply, and the model that it is for."""

    waiting: Waiting
    address: ReturnAddress
    request: Request
    model: LoadedModel

    @property
    def delivery(self) -> Delivery:
        return self.waiting.delivery


@dataclass(slots=True)
class Triage:
    """unusable: nobody can be answered. refused: somebody can, with an error. Nobody waits for the
    expired and the cancelled.
    """

    work: list[Task] = field(default_factory=list)
    pings: list[Task] = field(default_factory=list)
    expired: list[Delivery] = field(default_factory=list)
    cancelled: list[Delivery] = field(default_factory=list)
    refused: list[tuple[Delivery, ReturnAddress, Failure]] = field(default_factory=list)
    unusable: list[tuple[Delivery, str]] = field(default_factory=list)


def triage(
    waiting: Iterable[Waiting],
    *,
    now_ms: float,
    loaded: Loaded,
    reply_topics: Container[str],
    cancelled: Container[str],
) -> Triage:
    """Headers are a stranger's word: only reply topics that are allowed are written to."""
    sorted_out = Triage()
    for each in waiting:
        delivery = each.delivery
        try:
            address = codec.return_address(delivery.message)
        except ContractError as error:
            sorted_out.unusable.append((delivery, str(error)))
            continue
        if address.reply_to.partition("/")[0] not in reply_topics:
            sorted_out.unusable.append((delivery, f"reply_to {address.reply_to[:100]!r} is not allowed"))
            continue
        if address.correlation_id in cancelled:
            sorted_out.cancelled.append(delivery)
            continue
        _sort(sorted_out, each, address, now_ms, loaded)
    return sorted_out


def _sort(into: Triage, waiting: Waiting, address: ReturnAddress, now_ms: float, loaded: Loaded) -> None:
    delivery = waiting.delivery
    try:
        request = codec.decode_request(delivery.message)
    except ContractError as error:
        into.refused.append((delivery, address, Failure(error.code, str(error))))
        return
    if request.deadline_ms is not None and request.deadline_ms < now_ms:
        into.expired.append(delivery)
    elif request.is_ping:
        into.pings.append(Task(waiting, address, request, loaded.default))
    elif (model := loaded.named(request.model)) is None:
        known = ", ".join(model.name for model in loaded.models)
        failure = Failure(ErrorCode.UNKNOWN_MODEL, f"no model {request.model[:100]!r} here; known: {known}")
        into.refused.append((delivery, address, failure))
    elif waiting.refusal:
        into.refused.append((delivery, address, Failure(ErrorCode.INVALID_PICTURE, waiting.refusal)))
    else:
        into.work.append(Task(waiting, address, request, model))
