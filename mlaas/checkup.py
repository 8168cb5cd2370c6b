"""What `mlaas doctor` concludes from what it saw: which links hold, which is broken, what mends it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

_ITS_OWN = "inside `mlaas up`, or the one that --broker named"
_BROKER_KNOWN = "no worker"  # so begins the reason of a gateway that reached its broker


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, with what came of it. An error is its text; None is none.

    topics: partitions by name, None if the broker did not say; creates_topics: the broker does, as they are
    used; wanted: what the settings have.
    worker: an answer came over the broker, None if that was not tried. not_ready: the gateway's reason.
    """

    models: Sequence[str]
    model_error: str | None
    broker_url: str
    broker_error: str | None
    topics: Mapping[str, int] | None
    creates_topics: bool
    wanted: Mapping[str, int]
    worker: bool | None
    url: str
    gateway_error: str | None
    is_mlaas: bool
    live_error: str | None
    not_ready: str | None
    answer: str
    answer_error: str | None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One link. unknown: it cannot be looked at while another is broken."""

    check: str
    status: Literal["ok", "failed", "unknown"]
    said: str
    mend: str = ""


def ok(check: str, said: str) -> Finding:
    return Finding(check=check, status="ok", said=said)


def failed(check: str, said: str, mend: str) -> Finding:
    return Finding(check=check, status="failed", said=said, mend=mend)


def unknown(check: str, said: str) -> Finding:
    return Finding(check=check, status="unknown", said=said)


def findings(seen: Seen) -> list[Finding]:
    """From the inside out: the first that failed is the one to mend."""
    return [_model(seen), _broker(seen), _topics(seen), _worker(seen), *_gateway(seen), _round_trip(seen)]


def lines(found: Iterable[Finding]) -> Iterable[str]:
    for its in found:
        status = {"ok": "ok", "failed": "FAILED", "unknown": "--"}[its.status]
        yield f"{status:6}  {its.check:10}  {its.said}" + (f"; {its.mend}" if its.mend else "")


def _model(seen: Seen) -> Finding:
    if seen.model_error is not None:
        return failed("model", seen.model_error, "`git checkout weights` brings the shipped files back")
    return ok("model", f"{', '.join(seen.models)}: the files are those that were trained")


def _broker(seen: Seen) -> Finding:
    if seen.broker_error is None:
        return ok("broker", f"{seen.broker_url} answers")
    if _has_its_own(seen):
        return ok("broker", f"the gateway has one that answers ({_ITS_OWN}), not {seen.broker_url}")
    return failed(
        "broker",
        f"{seen.broker_url} does not answer: {seen.broker_error}",
        "start it or name another with --broker; `mlaas up` brings its own",
    )


def _topics(seen: Seen) -> Finding:
    if seen.topics is None:
        return (
            ok("topics", f"those of the gateway's broker, {_ITS_OWN}")
            if _has_its_own(seen)
            else _later("topics")
        )
    missing = [name for name in seen.wanted if name not in seen.topics]
    if missing and not seen.creates_topics:
        return failed("topics", f"the broker has no {', '.join(missing)}", "`mlaas topics create` makes them")
    fewer = [
        f"{name} has {seen.topics[name]} partitions of {wanted}"
        for name, wanted in seen.wanted.items()
        if seen.topics.get(name, wanted) < wanted
    ]
    if fewer:
        return ok("topics", f"all there; {', '.join(fewer)}: so many workers share the work at most")
    return ok("topics", ", ".join(f"{name} ({count})" for name, count in seen.wanted.items()))


def _worker(seen: Seen) -> Finding:
    if seen.worker or _is_ready(seen):
        return ok("worker", "answers")
    if seen.worker is None and not _has_its_own(seen):
        return _later("worker")
    said = "none answers" if seen.worker is not None else f"the gateway says: {seen.not_ready}"
    return failed("worker", said, "`mlaas worker` starts one; the log of one that runs says why it is silent")


def _gateway(seen: Seen) -> Iterable[Finding]:
    if seen.gateway_error is not None:
        mend = "`mlaas up` starts everything, `mlaas gateway` this alone; --url names another"
        yield failed("port", f"nobody answers at {seen.url}: {seen.gateway_error}", mend)
        yield from map(_later, ("live", "ready"))
        return
    if not seen.is_mlaas:
        mend = "start mlaas on another --port, and say so with --url"
        yield failed("port", f"what answers at {seen.url} is not mlaas", mend)
        yield from map(_later, ("live", "ready"))
        return
    yield ok("port", f"{seen.url} is mlaas")
    if seen.live_error is not None:
        yield failed("live", seen.live_error, "start the gateway anew")
    else:
        yield ok("live", "the gateway is sound")
    if seen.not_ready is not None:
        mend = "mend what failed above; it notices by itself"
        yield failed("ready", f"no picture would be answered: {seen.not_ready}", mend)
    else:
        yield ok("ready", "a picture would be answered")


def _round_trip(seen: Seen) -> Finding:
    if not _is_ready(seen):
        return _later("round trip")
    if seen.answer_error is not None:
        return failed("round trip", seen.answer_error, "the logs of gateway and worker say more")
    return ok("round trip", seen.answer)


def _is_ready(seen: Seen) -> bool:
    return seen.is_mlaas and seen.not_ready is None


def _has_its_own(seen: Seen) -> bool:
    """The gateway reached a broker, and it is not the one of these settings."""
    knows = seen.is_mlaas and (seen.not_ready is None or seen.not_ready.startswith(_BROKER_KNOWN))
    return knows and seen.broker_error is not None


def _later(check: str) -> Finding:
    return unknown(check, "not looked at while what it needs is broken")
