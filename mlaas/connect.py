"""From settings to a broker."""

from messaging import broker
from messaging.settings import BrokerSettings


def connect(settings: BrokerSettings) -> broker.Broker:
    """Raises BrokerError, and ValueError for a URL that is none."""
    return broker.connect(
        settings.url,
        max_message_bytes=settings.max_message_bytes,
        publish_timeout_ms=settings.publish_timeout_ms,
    )
