"""The command `mlaas`, its settings, and the one-command start; also `from mlaas import Client`."""

from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from mlaas_client import *  # noqa: F403


def __getattr__(name: str) -> object:
    """Loads the classes of mlaas_client on first use: images of gateway and worker have no httpx."""
    if name[0].isupper():
        import mlaas_client

        if name in mlaas_client.__all__:
            return getattr(mlaas_client, name)
    raise AttributeError(f"module 'mlaas' has no attribute {name!r}")
