"""What a broker's refusal means to who asked over HTTP."""

from gateway.errors import GatewayError, TooLarge, TooManyInFlight, Unavailable
from messaging.broker import MessageTooLarge, QueueFull


def as_gateway_error(error: BaseException) -> GatewayError:
    if isinstance(error, MessageTooLarge):
        return TooLarge(str(error))
    if isinstance(error, QueueFull):
        return TooManyInFlight(str(error))
    return Unavailable(str(error))
