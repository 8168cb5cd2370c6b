"""The front door: settings, the mlaas command, the one-command start; `from mlaas import Client`."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from client import *  # noqa: F403

_OF_CLIENT = [
    "AsyncClient",
    "Client",
    "DeadlineExceeded",
    "Item",
    "Job",
    "MlaasError",
    "Model",
    "NotFound",
    "Overloaded",
    "PictureUnreadable",
    "Prediction",
    "Refused",
    "ServerFailed",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]


def __getattr__(name: str) -> object:
    """The client's names, loaded when asked for: gateways and workers run where there is no httpx."""
    if name not in _OF_CLIENT:
        raise AttributeError(f"module 'mlaas' has no attribute {name!r}")
    import client

    return getattr(client, name)
