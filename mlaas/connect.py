"""From settings to a broker."""

from messaging import connect as by_url
from messaging.broker import Broker
from messaging.settings import BrokerSettings


def connect(settings: BrokerSettings) -> Broker:
    """Raises BrokerError, and ValueError for a URL that is none."""
    return by_url.connect(
        settings.url,
        max_message_bytes=settings.max_message_bytes,
        publish_timeout_ms=settings.publish_timeout_ms,
    )
