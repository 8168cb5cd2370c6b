"""What to do about an error of the client or the broker, for who types commands. Pure."""

_HINTS = {
    "BrokerUnavailable": "is it running? --broker takes another URL; `mlaas up` prints that of its own",
    "DeadlineExceeded": "`mlaas doctor` says whether every part runs",
    "NotFound": "is this a gateway of mlaas, and of this version?",
    "Overloaded": "come back later, or send fewer at once",
    "ServerFailed": "the gateway's log says more",
    "Unauthorized": "put the key into MLAAS_API_KEY",
    "Unavailable": "`mlaas doctor` names the part that is missing",
    "Unreachable": "is it running? `mlaas up` starts it; --url and MLAAS_URL take another address",
}
_MODULES = ("mlaas_client.errors", "messaging.broker")
# Their details name what there is.
_SAY_IT_ALL = ("urn:mlaas:problem:unknown-model", "urn:mlaas:problem:unknown-job")


def with_hint(error: Exception) -> str:
    """One line."""
    said = " ".join(str(error).split())
    hint = _HINTS.get(type(error).__name__) if type(error).__module__ in _MODULES else None
    if hint is None or getattr(error, "problem", {}).get("type") in _SAY_IT_ALL:
        return said
    request_id = getattr(error, "request_id", "")
    return f"{said}; {hint}" + (f" (request {request_id})" if request_id else "")
