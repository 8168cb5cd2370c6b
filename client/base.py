"""What both clients are made of."""

import inspect
import os
from collections.abc import Callable
from functools import update_wrapper
from inspect import Parameter
from typing import Any, get_args

import httpx

from client.calls import Asked, Calls

DEFAULT_URL = "http://localhost:8000"


class Base:
    """url and api_key are else taken from MLAAS_URL and MLAAS_API_KEY; transport is one of httpx, for tests.

    A call ends within timeout_s seconds, which the gateway is told, and one more. 429, 503 and lost
    connections are tried again, so often at most. Safe to share; close it, or use it in a with statement.
    """

    _new: Any  # one of httpx's classes

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 4,
        transport: Any = None,
    ) -> None:
        """Raises ValueError for a URL that is none."""
        url = url or os.environ.get("MLAAS_URL") or DEFAULT_URL
        url = url if "://" in url else f"http://{url}"
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is not the URL of a gateway, as {DEFAULT_URL}")
        key = (api_key or os.environ.get("MLAAS_API_KEY") or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the API key has characters that no header can carry")
        headers = {"X-API-Key": key} if key else {}
        self._calls = Calls(timeout_s, retries)
        try:
            self._http: Any = self._new(base_url=url, headers=headers, transport=transport)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url!r} is not the URL of a gateway: {error}") from error


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
