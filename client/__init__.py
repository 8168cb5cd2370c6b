"""Asks a gateway over HTTP. `from mlaas import Client` gives the same as `from client import Client`."""

from client.aio import AsyncClient
from client.errors import (
    DeadlineExceeded,
    MlaasError,
    NotFound,
    Overloaded,
    PictureUnreadable,
    Refused,
    ServerFailed,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from client.results import Item, Job, Model, Prediction
from client.sync import Client

__all__ = [
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
