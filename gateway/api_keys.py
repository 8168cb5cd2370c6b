"""Who may ask, and how often."""

import time
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import RateLimited, Unauthorized
from gateway.key_file import KeyFile
from gateway.keyring import Keyring
from gateway.metrics import GatewayMetrics
from gateway.token_bucket import TokenBucket

_OPEN = frozenset({"/", "/docs", "/metrics", "/openapi.json"})
_OPEN_BELOW = ("/health/", "/v2/health/", "/docs/", "/page/")


def is_open(method: str, path: str) -> bool:
    """Whether it is answered to anybody. OPTIONS is: a browser asks it before it may send a key."""
    return method == "OPTIONS" or path in _OPEN or path.startswith(_OPEN_BELOW)


def given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Out of X-API-Key or Authorization: Bearer. Raises Unauthorized if there is none, or several."""
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
        raise Unauthorized("several different API keys came with the request; send one")
    return keys.pop()


class ApiKeys:
    """Lets a request pass that has a key, and not more of them than the key's name may send.

    It decides by the request's head: of what it refuses, no byte of the body is read.
    """

    def __init__(
        self,
        app: ASGIApp,
        file: KeyFile,
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._file = file
        self._metrics = metrics
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_open(scope["method"], scope["path"]):
            scope.setdefault("state", {})["api_key_name"] = self._admit(given_key(scope["headers"]))
        await self._app(scope, receive, send)

    def _admit(self, key: bytes) -> str:
        """The key's name. Raises Unauthorized or RateLimited."""
        now = self._clock()
        keyring = self._file.current(now)
        name = keyring.name_of(key)
        if name is None:
            raise Unauthorized("this API key is not known here")
        wait_s = self._wait_s(keyring, name, now)
        if wait_s > 0:
            self._metrics.rate_limited(name)
            raise RateLimited(f"over {keyring.rates[name].per_second:g} requests a second of {name}", wait_s)
        return name

    def _wait_s(self, keyring: Keyring, name: str, now: float) -> float:
        rate = keyring.rates.get(name)
        if rate is None:
            return 0.0
        bucket = self._buckets.get(name)
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[name] = TokenBucket(rate, now)
        return bucket.take(now)
