"""Proxies and certificate authorities, as environment variables name them.

httpx reads the same variables, but it evaluates all of them for every address, and its errors do not say
which one is wrong. Here, only those that apply to the gateway count, and an error names the variable.
"""

import os
import re
import ssl
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
    """The arguments of httpx's clients for a gateway at this address. Raises Misconfigured."""
    return {"proxy": _checked_proxy(url), "verify": _trusted(url), "trust_env": False}


def route(url: httpx.URL) -> str:
    """The proxy in front of the gateway, for an error message; empty if there is none."""
    proxy = _proxy(url)
    if proxy is None:
        return ""
    through = urlsplit(proxy.address).netloc.rpartition("@")[2]  # without user and password
    return f"through the proxy {through} that {proxy.variable} names; NO_PROXY={url.host} bypasses it"


def _checked_proxy(url: httpx.URL) -> httpx.Proxy | None:
    proxy = _proxy(url)
    if proxy is None:
        return None
    around = f"NO_PROXY={url.host} bypasses it"
    try:
        checked = httpx.Proxy(proxy.address)
    except (ValueError, httpx.InvalidURL) as error:
        what = "not the URL of a proxy, such as http://HOST:PORT or socks5://HOST:PORT"
        raise Misconfigured(f"{proxy.variable} is {what}; {around}") from error
    if checked.url.scheme.startswith("socks") and find_spec("socksio") is None:
        another = "which needs another package: pip install socksio"
        raise Misconfigured(f"{proxy.variable} names a SOCKS proxy, {another}; {around}")
    return checked


def _proxy(url: httpx.URL) -> _Proxy | None:
    proxies = getproxies()  # on macOS and Windows, those of the system's settings too
    for kind in (url.scheme, "all"):
        if address := proxies.get(kind):
            names = (f"{kind}_proxy", f"{kind}_proxy".upper())
            variable = next((name for name in names if os.environ.get(name) == address), "the system")
            excepted = any(_names(entry, url) for entry in re.split(r"[\s,]+", proxies.get("no", "")))
            complete = address if "://" in address else f"http://{address}"
            return None if excepted else _Proxy(complete, variable)
    return None


def _names(entry: str, url: httpx.URL) -> bool:
    """Whether an entry of NO_PROXY names this address: *, a host or its domain, host:port, an IP network."""
    if entry == "*":
        return True
    try:
        network = ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        return _is_in(url.host, network)
    try:
        its = urlsplit(entry if "://" in entry else f"//{entry}")
        name, port = (its.hostname or "").lstrip("*").strip("."), its.port
    except ValueError:
        return False
    if its.scheme not in ("", "all", url.scheme) or port not in (None, url.port or _PORTS[url.scheme]):
        return False
    return bool(name) and f".{url.host}".endswith(f".{name}")


def _is_in(host: str, network: Any) -> bool:
    try:
        return ip_address(host) in network
    except ValueError:
        return False


def _trusted(url: httpx.URL) -> ssl.SSLContext:
    if url.scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # required by httpx; nothing speaks TLS
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        named = " or ".join(name for name in _CERTIFICATES if os.environ.get(name)) or "certifi"
        raise Misconfigured(
            f"the file that {named} names cannot be used ({error.strerror or error}): correct or unset it"
        ) from error
