"""From settings to a broker."""

import os

from messaging import connect as by_url
from messaging.broker import Broker
from messaging.settings import BrokerSettings
from mlaas.errors import reported


def connect(settings: BrokerSettings) -> Broker:
    """The broker that the URL names. Raises BrokerError."""
    with reported(os.EX_CONFIG, ValueError):
        return by_url.connect(
            settings.url,
            max_message_bytes=settings.max_message_bytes,
            publish_timeout_ms=settings.publish_timeout_ms,
        )
