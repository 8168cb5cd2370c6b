"""The typed client of an mlaas gateway, blocking and for asyncio."""

from mlaas_client.aio import AsyncClient
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
from mlaas_client.results import Item, Job, Model, Prediction
from mlaas_client.sync import Client

__all__ = [
    "AnswerMismatch",
    "AsyncClient",
    "Client",
    "DeadlineExceeded",
    "Item",
    "Job",
    "Misconfigured",
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
