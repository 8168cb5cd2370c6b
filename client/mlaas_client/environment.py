"""Proxies and certificate authorities from environment variables.

httpx evaluates these variables even where they do not apply to the address, and its errors do not name the
variable at fault.
"""

import os
import re
import ssl
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from mlaas_client.errors import Misconfigured

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
_PORTS = {"http": 80, "https": 443}


class _Proxy(NamedTuple):
    address: str
    variable: str


def options(url: httpx.URL) -> dict[str, Any]:
    """Keyword arguments of httpx's clients for this address. Raises Misconfigured."""
    return {"proxy": _checked_proxy(url), "verify": _trusted(url), "trust_env": False}


def route(url: httpx.URL) -> str:
    """A note for error messages that names the proxy; empty if there is none."""
    proxy = _proxy(url)
    if proxy is None:
        return ""
    host = urlsplit(proxy.address).netloc.rpartition("@")[2]  # without user and password
    return f"through the proxy {host} that {proxy.variable} names; NO_PROXY={url.host} bypasses it"


def _checked_proxy(url: httpx.URL) -> httpx.Proxy | None:
    proxy = _proxy(url)
    if proxy is None:
        return None
    bypass = f"NO_PROXY={url.host} bypasses it"
    try:
        checked = httpx.Proxy(proxy.address)
    except (ValueError, httpx.InvalidURL) as error:
        examples = "http://HOST:PORT or socks5://HOST:PORT"
        raise Misconfigured(
            f"{proxy.variable} is not the URL of a proxy, such as {examples}; {bypass}"
        ) from error
    if checked.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise Misconfigured(
            f"{proxy.variable} names a SOCKS proxy, which needs socksio: pip install socksio; {bypass}"
        )
    return checked


def _proxy(url: httpx.URL) -> _Proxy | None:
    proxies = getproxies()  # includes the system settings of macOS and Windows
    for kind in (url.scheme, "all"):
        if address := proxies.get(kind):
            names = (f"{kind}_proxy", f"{kind}_proxy".upper())
            variable = next((name for name in names if os.environ.get(name) == address), "the system")
            excepted = any(_names(entry, url) for entry in re.split(r"[\s,]+", proxies.get("no", "")))
            complete = address if "://" in address else f"http://{address}"
            return None if excepted else _Proxy(complete, variable)
    return None


def _names(entry: str, url: httpx.URL) -> bool:
    """Whether a NO_PROXY entry matches: *, a host or its domain, host:port, or an IP network."""
    if entry == "*":
        return True
    with suppress(ValueError):
        return ip_address(url.host) in ip_network(entry.strip("[]"), strict=False)
    try:
        parts = urlsplit(entry if "://" in entry else f"//{entry}")
        name, port = (parts.hostname or "").lstrip("*").strip("."), parts.port
    except ValueError:
        return False
    if parts.scheme not in ("", "all", url.scheme) or port not in (None, url.port or _PORTS[url.scheme]):
        return False
    return bool(name) and f".{url.host}".endswith(f".{name}")


def _trusted(url: httpx.URL) -> ssl.SSLContext:
    if url.scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx requires one; it is not used
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        named = " or ".join(name for name in _CERTIFICATES if os.environ.get(name)) or "certifi"
        raise Misconfigured(
            f"the file that {named} names cannot be used ({error.strerror or error}): correct or unset it"
        ) from error
