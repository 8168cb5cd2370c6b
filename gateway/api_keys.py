"""API keys: who has to send one, how often each may call, and the file with their digests."""

import hashlib
import hmac
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from starlette.types import Scope

from gateway.errors import RateLimited, Unauthorized
from gateway.metrics import GatewayMetrics

NAME_IS = "a name is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_FORM = "name sha256-hex [requests_per_second [burst]]"
_LOOK_EVERY_S = 1.0

_log = logging.getLogger("mlaas.gateway")

_Stamp = tuple[int, int, int] | None


class KeyFileError(Exception):
    """The file of API keys cannot be used. The message says why, and never quotes what may be a key."""


class ApiKeys:
    """Admits requests that have a key and keep to its rate.

    Decides by the request's head: it reads nothing of a refused body. Browsers send OPTIONS before they may
    send a key, so OPTIONS needs none.
    """

    def __init__(
        self,
        file: "KeyFile",
        is_open: Callable[[str], bool],
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """is_open: whether a path needs no key."""
        self._file = file
        self._is_open = is_open
        self._metrics = metrics
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    def check(self, scope: Scope) -> None:
        """Note the key's name, see middleware.owner_of. Raises Unauthorized or RateLimited."""
        if scope["method"] != "OPTIONS" and not self._is_open(scope["path"]):
            scope.setdefault("state", {})["api_key_name"] = self._admit(given_key(scope["headers"]))

    def _admit(self, key: bytes) -> str:
        """Return the key's name. Raises Unauthorized or RateLimited."""
        now = self._clock()
        keyring = self._file.current(now)
        name = keyring.name_of(key)
        if name is None:
            raise Unauthorized("unknown API key")
        rate = keyring.rates.get(name)
        wait_s = 0.0 if rate is None else self._bucket(name, rate, now).take(now)
        if rate is not None and wait_s > 0:
            self._metrics.rate_limited(name)
            raise RateLimited(f"API key {name!r} exceeded {rate.per_second:g} requests per second", wait_s)
        return name

    def _bucket(self, name: str, rate: "Rate", now: float) -> "TokenBucket":
        bucket = self._buckets.get(name)
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[name] = TokenBucket(rate, now)
        return bucket


def given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key in X-API-Key or Authorization: Bearer. Raises Unauthorized if there is none, or several."""
    keys = set()
    for name, value in headers:
        if name == b"x-api-key":
            keys.add(value.strip())
        elif name == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                keys.add(credentials.strip())
    if not keys:
        raise Unauthorized("send an API key as X-API-Key, or as Authorization: Bearer")
    if len(keys) > 1:
        raise Unauthorized("the request has several different API keys; send one")
    return keys.pop()


class Rate(NamedTuple):
    """burst: how many requests may come at once after a pause."""

    per_second: float
    burst: int


class TokenBucket:
    """Starts full. Times are monotonic seconds."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate.burst)
        self._counted_at = now

    def take(self, now: float) -> float:
        """Take a token and return 0, or return in how many seconds there will be one."""
        passed = max(0.0, now - self._counted_at)
        self._tokens = min(float(self.rate.burst), self._tokens + passed * self.rate.per_second)
        self._counted_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate.per_second


class Keyring:
    """The keys of a file. Keys with the same name share its rate: one of them is replacing the other."""

    def __init__(self, digests: Sequence[tuple[bytes, str]], rates: Mapping[str, Rate]) -> None:
        self._digests = digests
        self.rates = rates

    def __len__(self) -> int:
        return len(self._digests)

    def name_of(self, key: bytes) -> str | None:
        """None for an unknown key. Compares with every digest, so that the time taken reveals nothing."""
        digest = hashlib.sha256(key).digest()
        found = None
        for known, name in self._digests:
            if hmac.compare_digest(known, digest):
                found = name
        return found


class KeyFile:
    """The keys in a file, read again when it changes.

    A file that breaks or disappears later leaves the keys as they were, and is logged once.
    """

    def __init__(self, path: Path, now: float) -> None:
        """Raises KeyFileError."""
        self._path = path
        self._stamp = _stamp(path)
        self._looked_at = now
        self._keyring = _read(path)

    def current(self, now: float) -> Keyring:
        """Look at the file at most once a second. now: monotonic seconds."""
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
    """None for an empty path: the gateway has no keys. Raises KeyFileError."""
    return KeyFile(Path(path), time.monotonic()) if path else None


def digest_of(key: str) -> str:
    """The key's SHA-256 digest in hexadecimal, as the file has it."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def parse(text: str) -> Keyring:
    """Raises KeyFileError, also for a file without a key, with which nobody could call."""
    names: dict[bytes, str] = {}
    rates: dict[str, Rate] = {}
    for line in _lines(text):
        if line.digest in names:
            raise KeyFileError(f"line {line.number}: this key's digest is on an earlier line, too")
        names[line.digest] = line.name
        if line.rate is not None and rates.setdefault(line.name, line.rate) != line.rate:
            raise KeyFileError(f"line {line.number}: {line.name} has another rate above; its keys share one")
    if not names:
        raise KeyFileError(f"has no key; a line is: {_FORM}")
    return Keyring(list(names.items()), rates)


class _Line(NamedTuple):
    number: int
    name: str
    digest: bytes
    rate: Rate | None


def _lines(text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            yield _line(number, words)


def _line(number: int, words: list[str]) -> _Line:
    if not 2 <= len(words) <= 4:
        raise KeyFileError(f"line {number} has {len(words)} words; a line is: {_FORM}")
    name, digest, *limits = words
    if not is_name(name):
        raise KeyFileError(f"line {number}: {NAME_IS}")
    if not _DIGEST.fullmatch(digest):
        raise KeyFileError(f"line {number}: the second word is not a SHA-256 digest of 64 hexadecimal digits")
    return _Line(number, name, bytes.fromhex(digest), _rate(number, limits) if limits else None)


def _rate(number: int, limits: list[str]) -> Rate:
    try:
        per_second = float(limits[0])
        burst = int(limits[1]) if len(limits) == 2 else max(1, math.ceil(per_second))
    except (ValueError, OverflowError):
        raise KeyFileError(
            f"line {number}: requests_per_second must be a number, and burst a whole number"
        ) from None
    if not (0 < per_second < math.inf and burst > 0):
        raise KeyFileError(f"line {number}: requests_per_second and burst must be above 0")
    return Rate(per_second, burst)


def _stamp(path: Path) -> _Stamp:
    """Changes with the content. Includes the inode: a mounted secret is replaced by changing a link."""
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
        raise KeyFileError(f"gateway.api_keys_file {path}: the file is not UTF-8 text") from error
    except KeyFileError as error:
        raise KeyFileError(f"gateway.api_keys_file {path} {error}") from None
