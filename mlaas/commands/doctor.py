"""doctor: find which part between a client and the model is broken."""

import os
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec
from msgspec.structs import replace

from messaging import SHARED
from messaging.broker import BrokerError, BrokerRefuses, Planned
from mlaas.commands import BROKER, JSON, Chosen, pass_chosen
from mlaas.commands.bench import made_pictures
from mlaas.commands.broker import Requester, connected
from mlaas.errors import UserError, require

if TYPE_CHECKING:
    import httpx

    from messaging import Queue
    from mlaas.settings import Settings
    from model import ModelSettings

_PATIENCE_S = 5.0
_ROUND_TRIP_S = 15.0
_OWN_BROKER = "inside `mlaas up`, or named with --broker"
_BROKER_KNOWN = "no worker"  # how the gateway's reason begins once it has reached its broker


@click.command()
@click.option(
    "--url", metavar="URL", help="The gateway.  [default: MLAAS_URL, else gateway.host and gateway.port]"
)
@BROKER
@JSON
@pass_chosen
def doctor(chosen: Chosen, url: str | None, as_json: bool) -> None:
    """Check every part of the service, and classify a picture.

    Prints a line for each check: ok, FAILED and how to fix it, or -- if it depends on a check that failed.
    The exit status is 1 if any check failed.
    """
    require("client")
    found = _check(chosen, url)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        for line in lines(found):
            click.echo(line)
    if any(its.status == "failed" for its in found):
        sys.exit(1)


def _check(chosen: Chosen, url: str | None) -> "list[Finding]":
    from mlaas.settings import SettingsError

    try:
        settings = chosen.and_also(None, (("log.level", "error"),)).load("doctor")
    except SettingsError as error:
        return [failed("settings", str(error), "`mlaas config show` prints the settings in effect")]
    url = url or os.environ.get("MLAAS_URL") or _own_url(settings)
    url = url if "://" in url else f"http://{url}"
    return [ok("settings", "valid"), *findings(look(settings, url.rstrip("/")))]


def _own_url(settings: "Settings") -> str:
    from mlaas.up import reachable, url_of

    return url_of(reachable(settings.gateway.host), settings.gateway.port)


# Looking.


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks saw. Fields that end in _error hold messages.

    topics: what the broker has of what the settings need; None if it did not answer. is_refused: whether it
    answered, but did not let this client in. queues: the models of each queue that workers should take.
    workers: by queue, whether one answered, over the broker or to the gateway; the others were not asked.
    is_other: whether the gateway has workers, and none answered over this broker.
    not_ready: why the gateway is not.
    """

    models: Sequence[str] = ()
    model_error: str | None = None
    broker_url: str
    broker_error: str | None = None
    is_refused: bool = False
    topics: Sequence[Planned] | None = None
    queues: Mapping[str, Sequence[str]]
    workers: Mapping[str, bool] = {}
    is_other: bool = False
    url: str
    gateway_error: str | None = None
    is_mlaas: bool = False
    live_error: str | None = None
    not_ready: str | None = None
    answer: str = ""
    answer_error: str | None = None
    answer_hint: str = "see the logs of gateway and worker"

    @property
    def is_ready(self) -> bool:
        return self.is_mlaas and self.not_ready is None

    @property
    def has_topics(self) -> bool:
        return self.topics is not None and all(its.state != "missing" for its in self.topics)

    @property
    def has_own_broker(self) -> bool:
        """Whether the gateway has reached a broker other than the one in these settings."""
        knows = self.is_ready or (self.is_mlaas and (self.not_ready or "").startswith(_BROKER_KNOWN))
        return knows and (self.broker_error is not None or self.is_other)


def look(settings: "Settings", url: str) -> Seen:
    """Looks at every part, which takes up to half a minute if some do not answer."""
    queues = _taken(settings)
    looked = _at_models(settings.model) | _at_broker(settings) | _at_gateway(url)
    seen = Seen(url=url, queues={queue.name: queue.models for queue in queues}, **looked)
    if seen.is_ready:
        is_here = seen.has_topics and any(_answering(settings, queues).values())
        default = settings.model.default_name
        trip = _at_round_trip(url, default if default in settings.topics.queues else None)
        return replace(seen, is_other=seen.topics is not None and not is_here, **trip)
    return replace(seen, workers=_answering(settings, queues)) if seen.has_topics else seen


def _taken(settings: "Settings") -> "Sequence[Queue]":
    """Those of topics.queues, and the shared one unless all of model.names have others."""
    if not settings.model.names:
        return settings.topics.all_queues()
    used = settings.topics.shares(settings.model.names)
    return [queue for queue in settings.topics.all_queues() if queue.name != SHARED or queue in used]


def _at_models(settings: "ModelSettings") -> dict[str, Any]:
    """Compares the files of each model with the digests in its manifest."""
    import model.manifest as manifest
    import model.serving as serving
    from model.manifest import ModelError

    folder, sound, broken = Path(settings.weights_dir), [], []
    try:
        names = serving.names(settings)
    except ModelError as error:
        return {"model_error": str(error)}
    for name in names:
        try:
            its_folder = manifest.folder(folder, name, serving.current(folder, name).version)
            for file in (its := manifest.read(its_folder)).files():
                manifest.verify(its_folder / file.file, file.sha256)
            sound.append(f"{its.name} {its.version}")
        except ModelError as error:
            broken.append(str(error))
    return {"models": sound, "model_error": "; ".join(broken) or None}


def _at_broker(settings: "Settings") -> dict[str, Any]:
    from messaging import address, administration

    about = {"broker_url": address(settings.broker.url)}
    try:
        wanted = settings.topics.wanted(settings.worker.group)
        planned = administration(settings.broker, settings.topics).plan(wanted, _PATIENCE_S)
        return {**about, "topics": planned}
    except (BrokerError, ValueError) as error:
        return {**about, "broker_error": str(error), "is_refused": isinstance(error, BrokerRefuses)}


def _answering(settings: "Settings", queues: "Iterable[Queue]") -> dict[str, bool]:
    """Whether a worker answers, by queue."""
    try:
        with (
            connected(settings.broker) as broker,
            Requester(broker, settings.topics, f"doctor.{uuid.uuid4().hex}") as requester,
        ):
            return {queue.name: requester.ping(queue, _PATIENCE_S) for queue in queues}
    except UserError:
        return {queue.name: False for queue in queues}


def _at_gateway(url: str) -> dict[str, Any]:
    import httpx

    from mlaas_client import MlaasError, environment

    try:
        address = httpx.URL(url)
        with httpx.Client(base_url=url, timeout=_PATIENCE_S, **environment.options(address)) as http:
            live, ready = http.get("/health/live"), http.get("/health/ready")
    except httpx.TransportError as error:
        said = f"{error or type(error).__name__} {environment.route(address)}"
        return {"gateway_error": said.rstrip()}
    except (httpx.HTTPError, httpx.InvalidURL, MlaasError) as error:
        return {"gateway_error": str(error) or type(error).__name__}
    if not (_state(live) and _state(ready)):
        return {}
    workers = _state(ready).get("queues", {})
    return {"is_mlaas": True, "live_error": _reason(live), "not_ready": _reason(ready), "workers": workers}


def _state(response: "httpx.Response") -> dict[str, Any]:
    """The document of a health check; empty if the response is not from a gateway."""
    try:
        state = response.json()
    except ValueError:
        return {}
    return state if isinstance(state, dict) and "status" in state else {}


def _reason(response: "httpx.Response") -> str | None:
    state = _state(response)
    return None if response.is_success else str(state.get("reason", state["status"]))


def _at_round_trip(url: str, model: str | None) -> dict[str, Any]:
    from mlaas_client import Client, MlaasError, Unauthorized

    started = time.monotonic()
    try:
        with Client(url, retries=1, timeout_s=_ROUND_TRIP_S) as client:
            found = client.predict(made_pictures(1)[0], model=model)
    except Unauthorized as error:
        return {"answer_error": str(error), "answer_hint": "set MLAAS_API_KEY to a valid key"}
    except (MlaasError, ValueError) as error:
        return {"answer_error": str(error)}
    took_ms = (time.monotonic() - started) * 1000
    return {"answer": f"{found.model} {found.version} answered in {took_ms:.0f} ms"}


# Concluding.


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check: unknown if it depends on one that failed."""

    check: str
    status: Literal["ok", "failed", "unknown"]
    detail: str
    fix: str = ""


def ok(check: str, detail: str) -> Finding:
    return Finding(check=check, status="ok", detail=detail)


def failed(check: str, detail: str, fix: str) -> Finding:
    return Finding(check=check, status="failed", detail=detail, fix=fix)


def _skipped(check: str) -> Finding:
    return Finding(check=check, status="unknown", detail="not checked: it depends on a check that failed")


def lines(found: Iterable[Finding]) -> Iterable[str]:
    """Each finding as a line of text."""
    found = list(found)
    width = max(len(its.check) for its in found)
    for its in found:
        status = {"ok": "ok", "failed": "FAILED", "unknown": "--"}[its.status]
        yield f"{status:6}  {its.check:{width}}  {its.detail}" + (f"; {its.fix}" if its.fix else "")


def findings(seen: Seen) -> list[Finding]:
    """The findings from the model outwards: the first that failed is the one to fix."""
    return [
        _of_model(seen),
        _of_broker(seen),
        _of_topics(seen),
        *(_of_worker(seen, queue, models) for queue, models in seen.queues.items()),
        *_of_gateway(seen),
        _of_round_trip(seen),
    ]


def _of_model(seen: Seen) -> Finding:
    if seen.model_error is not None:
        fix = "`git checkout weights` restores the shipped files; one of your own, add again or remove"
        return failed("model", seen.model_error, fix)
    return ok("model", f"{', '.join(seen.models)}: the files match their manifests")


def _of_broker(seen: Seen) -> Finding:
    if seen.has_own_broker:
        return ok("broker", f"the gateway uses another ({_OWN_BROKER}), not {seen.broker_url}")
    if seen.broker_error is None:
        return ok("broker", f"{seen.broker_url} answers")
    if seen.is_refused:
        return failed(
            "broker", seen.broker_error, "correct the user, password or CA in broker.url, or the broker"
        )
    return failed(
        "broker",
        f"{seen.broker_url} does not answer: {seen.broker_error}",
        "start it, or name another with --broker; `mlaas up` starts its own",
    )


def _of_topics(seen: Seen) -> Finding:
    if seen.topics is None or seen.is_other:
        where = f"on the gateway's own broker ({_OWN_BROKER})"
        return ok("topics", where) if seen.has_own_broker else _skipped("topics")
    by_state = defaultdict(list)
    for its in seen.topics:
        by_state[its.state].append(its)
    if missing := by_state["missing"]:
        return failed(
            "topics",
            f"the broker has no {', '.join(its.what for its in missing)}, or this user has no right to them",
            "`mlaas topics create` creates them, `mlaas topics grant` gives the rights",
        )
    if unfit := by_state["unfit"]:
        which = ", ".join(its.what for its in unfit)
        return failed("topics", f"{which}: {unfit[0].detail}", f"for each, {unfit[0].fix}")
    if differs := by_state["differs"]:
        which = "; ".join(f"{its.what}: {its.detail}" for its in differs)
        return ok("topics", f"all exist, but {which}")
    return ok("topics", ", ".join(its.what.removeprefix("topic ") for its in seen.topics))


def _of_worker(seen: Seen, queue: str, models: Sequence[str]) -> Finding:
    is_shared, answers = queue == SHARED, seen.workers.get(queue)
    check = "worker" if is_shared else f"worker {queue}"
    if answers or (answers is None and seen.is_ready and is_shared):
        return ok(check, "answers")
    if answers is None and seen.is_ready:
        return failed(check, "the gateway has no such queue", "start it with the same topics.queues")
    if answers is None and not seen.has_own_broker:
        return _skipped(check)
    detail = "none answers" if answers is not None else f"the gateway reports: {seen.not_ready}"
    command = "mlaas worker" if is_shared else f"mlaas worker --models {','.join(models)}"
    return failed(check, detail, f"`{command}` starts one; if one is running, see its log")


def _of_gateway(seen: Seen) -> Iterable[Finding]:
    if not seen.is_mlaas:
        if seen.gateway_error is not None:
            fix = "`mlaas up` starts everything, `mlaas gateway` only the gateway; --url names another"
            yield failed("port", f"nothing answers at {seen.url}: {seen.gateway_error}", fix)
        else:
            fix = "start mlaas on another --port, and pass its URL to --url"
            yield failed("port", f"the server at {seen.url} is not mlaas", fix)
        yield from map(_skipped, ("live", "ready"))
        return
    yield ok("port", f"{seen.url} is mlaas")
    if seen.live_error is not None:
        yield failed("live", seen.live_error, "restart the gateway")
    else:
        yield ok("live", "the gateway works")
    if seen.not_ready is not None:
        fix = "fix the checks that failed above; the gateway then recovers by itself"
        yield failed("ready", f"no picture would be answered: {seen.not_ready}", fix)
    else:
        yield ok("ready", "a picture would be answered")


def _of_round_trip(seen: Seen) -> Finding:
    if not seen.is_ready:
        return _skipped("round trip")
    if seen.answer_error is not None:
        return failed("round trip", seen.answer_error, seen.answer_hint)
    return ok("round trip", seen.answer)
