"""What both clients share: the address, the API key, and connections for each process and event loop."""

import inspect
import os
from collections.abc import Callable
from functools import partial, update_wrapper
from inspect import Parameter
from typing import Any, get_args

import httpx

from mlaas_client import environment
from mlaas_client.calls import Asked, Calls

DEFAULT_URL = "http://localhost:8000"


class Base:
    """url and api_key default to MLAAS_URL and MLAAS_API_KEY; transport is one of httpx's, for tests.

    A call ends within timeout_s seconds, which the gateway is told, plus one. 429, 503 and lost connections
    are retried, at most `retries` times. Create one and share it: between threads, and with processes that
    fork from this one or get a pickled copy. Each process has connections of its own. Close it, or use it in
    a with statement.
    """

    _new: Any  # httpx.Client or httpx.AsyncClient

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 4,
        transport: Any = None,
    ) -> None:
        """Raises ValueError for an invalid URL or API key."""
        self._url = _address(url) if url else _address(os.environ.get("MLAAS_URL"), "MLAAS_URL: ")
        self._key = _Key((api_key or os.environ.get("MLAAS_API_KEY") or "").strip())
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError("the API key has characters that no header can carry")
        self._given = {"timeout_s": timeout_s, "retries": retries, "transport": transport}
        self._calls = Calls(timeout_s, retries)
        self._pools: dict[tuple[int, Any], Any] = {}
        self._is_closed = False

    def __reduce__(self) -> Any:
        """An unpickled copy opens connections of its own."""
        return partial(type(self), str(self._url), api_key=str(self._key), **self._given), ()

    def _loop(self) -> Any:
        """The event loop that connections belong to; None for those that block."""
        return None

    def _http(self) -> Any:
        """The connections of this process and event loop. Raises Misconfigured.

        Processes that share a connection read each other's answers. Connections inherited from a parent are
        kept, unused: freeing those of an event loop would remove them from the selector it shares with ours.
        """
        if self._is_closed:
            raise RuntimeError("this client is closed: create another")
        here = (os.getpid(), self._loop())
        if http := self._pools.get(here):
            return http
        for pid, loop in [*self._pools]:
            if pid == here[0] and loop and loop.is_closed():
                self._pools.pop((pid, loop), None)
        return self._pools.setdefault(here, self._connect())

    def _connect(self) -> Any:
        transport = self._given["transport"]
        how = {"transport": transport} if transport else environment.options(self._url)
        headers = {"X-API-Key": str(self._key)} if self._key else {}
        return self._new(base_url=self._url, headers=headers, **how)

    def _close(self) -> Any:
        """The connections to close: those of this process and event loop."""
        self._is_closed = True
        return self._pools.pop((os.getpid(), self._loop()), None)

    def _noted(self, error: httpx.RequestError) -> httpx.RequestError:
        """With a note about the proxy, if there is one."""
        if not self._given["transport"] and (route := environment.route(self._url)):
            error.add_note(route)
        return error


class _Key(str):
    """A string whose repr does not show it."""

    def __repr__(self) -> str:
        return "'***'"


def _address(text: str | None, source: str = "") -> httpx.URL:
    text = text or DEFAULT_URL
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
        if url.scheme in ("http", "https") and url.host:
            return url
        reason = ""
    except httpx.InvalidURL as error:
        reason = f": {error}"
    raise ValueError(f"{source}{text!r} is not the URL of a gateway, such as {DEFAULT_URL}{reason}")


def documented(method: Callable[..., Any], call: Callable[..., Any]) -> None:
    """Give a client's method the name, docstring and signature of its call, with options one by one."""
    update_wrapper(method, call)
    its = inspect.signature(call)
    plain = [one for one in its.parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    hints = Asked.__annotations__.items() if len(plain) < len(its.parameters) else ()
    options = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=hint) for name, hint in hints]
    (*_, returned) = get_args(its.return_annotation)
    shown = its.replace(parameters=[*plain, *options], return_annotation=returned)
    setattr(method, "__signature__", shown)  # noqa: B010
