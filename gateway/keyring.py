"""API keys as a file has them: one a line, with # for comments."""

import hashlib
import hmac
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gateway.token_bucket import Rate

NAME_IS = "a name is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_FORM = "name sha256-hex [requests_per_second [burst]]"


class KeyFileError(Exception):
    """The file of API keys cannot be used; says why. Never quotes what may be a key."""


class _Line(NamedTuple):
    number: int
    name: str
    digest: bytes
    rate: Rate | None


class Keyring:
    """Several keys of one name, as there are while one replaces another, share the name's rate."""

    def __init__(self, digests: Sequence[tuple[bytes, str]], rates: Mapping[str, Rate]) -> None:
        self._digests = digests
        self.rates = rates

    def __len__(self) -> int:
        return len(self._digests)

    def name_of(self, key: bytes) -> str | None:
        """None if it is no key. Compares with all of them, so that the time taken says nothing."""
        digest = hashlib.sha256(key).digest()
        found = None
        for its_digest, name in self._digests:
            if hmac.compare_digest(its_digest, digest):
                found = name
        return found


def digest_of(key: str) -> str:
    """As the file has it."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def parse(text: str) -> Keyring:
    """Raises KeyFileError, also for a file without a key: nobody could ask anything."""
    lines = list(_lines(text))
    if not lines:
        raise KeyFileError(f"has no key; a line is: {_FORM}")
    names: dict[bytes, str] = {}
    rates: dict[str, Rate] = {}
    for line in lines:
        if line.digest in names:
            raise KeyFileError(f"line {line.number}: the digest of this key is there already")
        names[line.digest] = line.name
        if line.rate is not None and rates.setdefault(line.name, line.rate) != line.rate:
            raise KeyFileError(f"line {line.number}: {line.name} had another rate before; its keys share one")
    return Keyring(list(names.items()), rates)


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
        raise KeyFileError(f"line {number}: requests_per_second is a number, burst a whole one") from None
    if not (0 < per_second < math.inf and burst > 0):
        raise KeyFileError(f"line {number}: requests_per_second and burst must be above 0")
    return Rate(per_second, burst)
