"""Log lines: text for people, JSON for machines."""

import json
import logging
import sys
from datetime import UTC, datetime

from mlaas.settings import LogSettings


class _TextLines(logging.Formatter):
    """One line for each message: what strangers chose, such as a reply_to, cannot start another."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in record.message)
        return super().formatMessage(record)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(settings: LogSettings, process: str) -> None:
    """process: who speaks, where several write to one terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines()
        if settings.format == "json"
        else _TextLines(f"%(asctime)s %(levelname)-7s {process}: %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # Every start and stop would be said twice.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
