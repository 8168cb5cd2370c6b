"""A call of the client, driven by hand: nothing is sent, and time is the test's."""

from typing import Any

import httpx

import mlaas_client
from mlaas_client.calls import Call, Calls
from tests.unit.gateways import SANDAL

ANSWER = {"label": "Sandal", "confidence": 0.9, "probabilities": {"Sandal": 0.9}, "request_id": "r"}
BUSY = {"type": "urn:mlaas:problem:too-many-in-flight", "title": "Too many", "status": 429, "detail": "busy"}
REQUEST = httpx.Request("POST", "http://g:1/predict")

Reaction = httpx.Response | httpx.RequestError


def response(status: int, document: object = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=document, headers=named, request=REQUEST)


def refused() -> httpx.ConnectError:
    return httpx.ConnectError("refused", request=REQUEST)


class Driven:
    """A call with its clock; each attempt takes a second and gets the next reaction."""

    def __init__(self, *reactions: Reaction, retries: int = 4, timeout_s: float = 30.0) -> None:
        self.now = 100.0
        self.calls = Calls(timeout_s, retries, clock=lambda: self.now, chance=lambda: 0.0)
        self.reactions = list(reactions)
        self.attempts: list[dict[str, Any]] = []
        self.pauses: list[float] = []

    def run(self, call: Call[Any]) -> Any:
        came: Reaction | None = None
        while True:
            try:
                step = call.send(came)
            except StopIteration as end:
                return end.value
            if isinstance(step, float):
                self.pauses.append(step)
                self.now, came = self.now + step, None
            else:
                self.attempts.append({**step, "headers": dict(step["headers"])})
                self.now, came = self.now + 1, self.reactions.pop(0)

    def predict(self, **asked: Any) -> mlaas_client.Prediction:
        return self.run(self.calls.predict(SANDAL, **asked))
