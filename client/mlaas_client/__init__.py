"""A typed client of the mlaas gateway, blocking and for asyncio."""

from mlaas_client.clients import AsyncClient, Client
from mlaas_client.errors import (
    AnswerMismatch,
    DeadlineExceeded,
    Misconfigured,
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
from mlaas_client.results import Item, Job, Model, Prediction, Version

__all__ = [
    "AnswerMismatch", "AsyncClient", "Client", "DeadlineExceeded", "Item", "Job", "Misconfigured",
    "MlaasError", "Model", "NotFound", "Overloaded", "PictureUnreadable", "Prediction", "Refused",
    "ServerFailed", "Unauthorized", "Unavailable", "Unreachable", "Version",
]  # fmt: skip
