"""What `mlaas dlq` prints. Headers are a stranger's word: no control character passes. Pure."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from messaging.broker import Delivery
from messaging.contract import ErrorCode, Reply
from messaging.dead_letters import Letter, Origin, decode_letter
from mlaas.columns import aligned, harmless

_WIDEST = 60
_TITLES = ("LETTER", "WHEN (UTC)", "BYTES", "MODEL", "REQUEST", "ORIGINAL", "REASON")


def table(letters: Sequence[Letter]) -> Iterable[str]:
    """A title line, and one line for each; what is too long for a column is cut."""
    return aligned([_TITLES, *(_row(letter) for letter in letters)])


def as_json(letter: Letter) -> str:
    """One line."""
    return json.dumps(_facts(letter))


def details(delivery: Delivery) -> str:
    """Everything but the picture itself, a fact a line."""
    facts = {name.replace("_", " "): value for name, value in _facts(decode_letter(delivery)).items()}
    origin = decode_letter(delivery).original
    facts |= {"original": origin and _where(origin), "sha256": _sha256(delivery)}
    lines = [f"{name:12} {_line(value)}".rstrip() for name, value in facts.items()]
    lines += ["headers", *(f"  {_line(name)}: {_line(value)}" for name, value in _headers(delivery).items())]
    return "\n".join(lines)


def details_as_json(delivery: Delivery) -> str:
    facts = _facts(decode_letter(delivery))
    return json.dumps({**facts, "sha256": _sha256(delivery), "headers": _headers(delivery)})


def outcome(reply: Reply) -> str:
    """What became of a letter that was replayed."""
    if reply.error is None:
        if not reply.probabilities:
            return f"answered by {_line(reply.model)}"
        label, share = max(reply.probabilities.items(), key=lambda entry: entry[1])
        return f"answered: {_line(label)} ({share:.1%})"
    if reply.error.code is ErrorCode.INTERNAL:
        return "failed again, and is among the dead letters once more"
    return f"refused, {reply.error.code}: {_line(reply.error.detail)}"


def _row(letter: Letter) -> Sequence[str]:
    return (
        f"{letter.partition}:{letter.offset}",
        _when(letter).replace("T", " ").removesuffix("Z"),
        str(letter.size_bytes),
        _cell(letter.model),
        _cell(letter.request_id),
        _cell(_where(letter.original)) if letter.original else "-",
        _cell(letter.reason),
    )


def _facts(letter: Letter) -> dict[str, object]:
    its = letter.original
    return {
        "letter": f"{letter.partition}:{letter.offset}",
        "at": _when(letter),
        "reason": _text(letter.reason),
        "model": _text(letter.model),
        "request_id": _text(letter.request_id),
        "size_bytes": letter.size_bytes,
        "original": its and {"topic": _text(its.topic), "partition": its.partition, "offset": its.offset},
    }


def _when(letter: Letter) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(letter.buried_at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _where(origin: Origin) -> str:
    """As the worker's log has it."""
    return f"{origin.topic}/{origin.partition}@{origin.offset}"


def _headers(delivery: Delivery) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in sorted(delivery.message.headers.items())}


def _sha256(delivery: Delivery) -> str:
    return hashlib.sha256(delivery.message.body).hexdigest()


def _cell(text: str) -> str:
    line = _line(text)
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"


def _line(value: object) -> str:
    """Fit for a terminal: in one line, control characters as Python would write them; - where it is empty."""
    return harmless("" if value is None else str(value)) or "-"


def _text(text: str) -> str:
    r"""Bytes that were not UTF-8 as \x80."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
