"""The front door: settings, the mlaas command, the one-command start; `from mlaas import Client`."""

from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from mlaas_client import *  # noqa: F403


def __getattr__(name: str) -> object:
    """The client's classes, loaded when asked for: gateways and workers run where there is no httpx."""
    if name[0].isupper():
        import mlaas_client

        if name in mlaas_client.__all__:
            return getattr(mlaas_client, name)
    raise AttributeError(f"module 'mlaas' has no attribute {name!r}")
