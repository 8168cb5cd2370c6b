"""Looking at every link between a client and the model."""

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx

from messaging import codec
from messaging.broker import Broker, BrokerError
from messaging.contract import PING, Request
from messaging.settings import BrokerSettings
from messaging.topics import partitions, wanted_partitions
from mlaas.checkup import Seen
from mlaas.connect import connect
from mlaas.made_pictures import made
from mlaas.settings import Settings
from mlaas_client import Client, MlaasError, environment
from model import manifest
from model.manifest import ModelError
from model.settings import ModelSettings

_PATIENCE_S = 5.0
_TRIP_S = 15.0


def look(settings: Settings, url: str) -> Seen:
    """Takes up to half a minute where something does not answer."""
    models, model_error = _models(settings.model)
    topics, broker_error = _topics(settings.broker)
    wanted = wanted_partitions(settings.topics)
    creates = parse_qs(urlsplit(settings.broker.url).query).get("allow.auto.create.topics") == ["true"]
    whole = topics is not None and (creates or wanted.keys() <= topics.keys())
    gateway = _gateway(url)
    answer, answer_error = _round_trip(url) if gateway.is_ready else ("", None)
    return Seen(
        models=models,
        model_error=model_error,
        broker_url=_without_secrets(settings.broker.url),
        broker_error=broker_error,
        topics=topics,
        creates_topics=creates,
        wanted=wanted,
        worker=_worker_answers(settings) if whole and not gateway.is_ready else None,
        url=url,
        gateway_error=gateway.error,
        is_mlaas=gateway.is_mlaas,
        live_error=gateway.live_error,
        not_ready=gateway.not_ready,
        answer=answer,
        answer_error=answer_error,
    )


def _models(settings: ModelSettings) -> tuple[list[str], str | None]:
    """Those whose files are the ones that their manifests name."""
    folder = Path(settings.weights_dir)
    found = []
    try:
        for name in settings.names:
            its = manifest.read(folder, name)
            manifest.verify(folder / its.keras_file, its.keras_sha256)
            manifest.verify(folder / its.onnx_file, its.onnx_sha256)
            manifest.verify(folder / its.ood_file, its.ood_sha256)
            found.append(f"{its.name} {its.version}")
    except ModelError as error:
        return found, str(error)
    return found, None


def _topics(broker: BrokerSettings) -> tuple[Mapping[str, int] | None, str | None]:
    if urlsplit(broker.url).scheme != "kafka":
        return None, "it runs inside another process"
    try:
        return partitions(broker, _PATIENCE_S), None
    except (BrokerError, ValueError) as error:
        return None, str(error)


def _worker_answers(settings: Settings) -> bool:
    """Whether a ping that goes over the broker comes back: without a gateway."""
    broker = connect(settings.broker)
    try:
        return _ping(broker, settings)
    except BrokerError:
        return False
    finally:
        broker.close()


def _ping(broker: Broker, settings: Settings) -> bool:
    correlation_id = f"doctor.{uuid.uuid4().hex}"
    inbox = broker.open_inbox(settings.topics.replies, correlation_id)
    try:
        ping = Request(
            body=b"",
            correlation_id=correlation_id,
            reply_to=inbox.address,
            deadline_ms=int((time.time() + _PATIENCE_S) * 1000),
            content_type=PING,
        )
        broker.publish(settings.topics.requests, codec.encode_request(ping)).result(_PATIENCE_S)
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            if any(codec.correlation_id(its) == correlation_id for its in inbox.receive(100, 0.2)):
                return True
        return False
    except TimeoutError:
        return False
    finally:
        inbox.close()


class _Gateway(NamedTuple):
    error: str | None = None
    is_mlaas: bool = False
    live_error: str | None = None
    not_ready: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.is_mlaas and self.not_ready is None


def _gateway(url: str) -> _Gateway:
    try:
        address = httpx.URL(url)
        with httpx.Client(base_url=url, timeout=_PATIENCE_S, **environment.options(address)) as http:
            live, ready = http.get("/health/live"), http.get("/health/ready")
    except httpx.TransportError as error:
        return _Gateway(f"{error or type(error).__name__} {environment.route(address)}".rstrip())
    except (httpx.HTTPError, httpx.InvalidURL, MlaasError) as error:
        return _Gateway(str(error) or type(error).__name__)
    states = [_state(its) for its in (live, ready)]
    if not all(states):
        return _Gateway()
    reasons = [str(state.get("reason", state["status"])) for state in states]
    return _Gateway(
        is_mlaas=True,
        live_error=None if live.is_success else reasons[0],
        not_ready=None if ready.is_success else reasons[1],
    )


def _state(response: httpx.Response) -> dict[str, Any]:
    """Empty if it is not the gateway's word."""
    try:
        state = response.json()
    except ValueError:
        return {}
    return state if isinstance(state, dict) and "status" in state else {}


def _round_trip(url: str) -> tuple[str, str | None]:
    started = time.monotonic()
    try:
        with Client(url, retries=1, timeout_s=_TRIP_S) as client:
            found = client.predict(made(1)[0])
    except (MlaasError, ValueError) as error:
        return "", str(error)
    took_ms = (time.monotonic() - started) * 1000
    return f"{found.model} {found.version} answered a picture in {took_ms:.0f} ms", None


def _without_secrets(url: str) -> str:
    """Without user, password, and whatever else the query has."""
    its = urlsplit(url)
    return f"{its.scheme}://{its.netloc.rpartition('@')[2]}"
