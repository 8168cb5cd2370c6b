"""The file of API keys, read again when it changes."""

import logging
import time
from pathlib import Path

from gateway.keyring import KeyFileError, Keyring, parse

_log = logging.getLogger("mlaas.gateway")

_LOOK_EVERY_S = 1.0

_Stamp = tuple[int, int, int] | None


class KeyFile:
    """A file that is broken or gone later on leaves the keys as they were, and says so in the log once.

    Raises KeyFileError if it is so at first.
    """

    def __init__(self, path: Path, now: float) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._looked_at = now
        self._keyring = _read(path)

    def current(self, now: float) -> Keyring:
        """now: monotonic seconds. Looks at the file at most once a second."""
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_again()
        return self._keyring

    def _read_again(self) -> None:
        try:
            self._keyring = _read(self._path)
        except KeyFileError as error:
            _log.error("the API keys stay as they were: %s", error)
        else:
            _log.info("read %d API keys from %s", len(self._keyring), self._path)


def open_key_file(path: str) -> KeyFile | None:
    """None if no path is set: there are no keys. Raises KeyFileError."""
    return KeyFile(Path(path), time.monotonic()) if path else None


def _stamp(path: Path) -> _Stamp:
    """Changes with the content. The inode, since a mounted secret is replaced by changing a link."""
    try:
        its = path.stat()
    except OSError:
        return None
    return its.st_mtime_ns, its.st_ino, its.st_size


def _read(path: Path) -> Keyring:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeyFileError(f"gateway.api_keys_file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"gateway.api_keys_file {path}: not a text in UTF-8") from error
    except KeyFileError as error:
        raise KeyFileError(f"gateway.api_keys_file {path} {error}") from None
