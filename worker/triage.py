"""Sorts messages by what a worker does with them, before any model sees them."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from messaging import codec
from messaging.broker import Delivery
from messaging.contract import (
    ContractError,
    ErrorCode,
    Failure,
    Request,
    ReturnAddress,
    ServedModel,
    sha256_of,
)
from worker.batching import Queued
from worker.roster import Roster


@dataclass(slots=True)
class Task:
    """A message to reply to, and the model it is for."""

    queued: Queued
    address: ReturnAddress
    request: Request
    model: ServedModel
    _sha256: str = ""

    @property
    def sha256(self) -> str:
        """Of the request's body: half a millisecond for a megabyte, once."""
        if not self._sha256:
            self._sha256 = self.queued.sha256 or sha256_of(self.request.body)
        return self._sha256

    @property
    def delivery(self) -> Delivery:
        return self.queued.delivery

    @property
    def is_outdated(self) -> bool:
        """Whether it was prepared for a version that has been replaced since."""
        prepared = self.queued.prepared
        return prepared is not None and prepared.model != (self.model.name, self.model.version)


@dataclass(slots=True)
class Triage:
    """Messages by what to do with them.

    Nobody waits for the expired and the cancelled. The refused are answered with an error. The unusable
    cannot be answered at all.
    """

    work: list[Task] = field(default_factory=list)
    pings: list[Task] = field(default_factory=list)
    expired: list[Delivery] = field(default_factory=list)
    cancelled: list[Delivery] = field(default_factory=list)
    refused: list[tuple[Delivery, ReturnAddress, Failure]] = field(default_factory=list)
    unusable: list[tuple[Delivery, str]] = field(default_factory=list)


def triage(
    queued: Iterable[Queued],
    *,
    now_ms: float,
    roster: Roster,
    reply_topics: Container[str],
    cancelled: Container[str],
) -> Triage:
    """Sort messages by what to do with them. now_ms: epoch.

    Anyone may have written the headers, so replies go only to reply_topics.
    """
    found = Triage()
    for each in queued:
        delivery = each.delivery
        try:
            address = codec.return_address(delivery.message)
            if address.reply_to.partition("/")[0] not in reply_topics:
                raise ContractError(f"reply_to {address.reply_to[:100]!r} is not allowed")
        except ContractError as error:
            found.unusable.append((delivery, str(error)))
            continue
        if address.correlation_id in cancelled:
            found.cancelled.append(delivery)
            continue
        try:
            request = codec.decode_request(delivery.message, address)
            if request.deadline_ms is not None and request.deadline_ms < now_ms:
                found.expired.append(delivery)
            elif request.is_ping:
                found.pings.append(Task(each, address, request, roster.default))
            else:
                found.work.append(Task(each, address, request, _model_for(request, each.refusal, roster)))
        except ContractError as error:
            found.refused.append((delivery, address, Failure(error.code, str(error))))
    return found


def _model_for(request: Request, refusal: str, roster: Roster) -> ServedModel:
    """Raises ContractError if the request is to be refused."""
    model = roster.choose(request)
    if model.kind == "tensor" and not request.is_tensor:
        raise ContractError(
            f'{model.name} takes {model.input}, not pictures: send {{"inputs": [row]}} as JSON'
        )
    if request.is_tensor and (request.explain or request.mode != "auto"):
        raise ContractError(f"mode and explain are for pictures; {model.name} gets these numbers as they are")
    if not model.takes_mode and request.mode != "auto":
        raise ContractError(f"mode is for models of clothing; {model.name} prepares every picture alike")
    if refusal:
        raise ContractError(refusal, ErrorCode.INVALID_PICTURE)
    return model
