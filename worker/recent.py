"""The latest replies, for requests that are delivered again."""

import sys
from collections import OrderedDict

from messaging.contract import Reply
from worker.triage import Task

_MOST_BYTES = 16_777_216  # 16 MiB: 8,000 replies with ten labels, or 200 with a thousand
_ENTRY_BYTES = 800  # of a reply's numbers, its timings and its share of the table, measured
_LABEL_BYTES = 80

Key = tuple[str, str, str]


class RecentReplies:
    """Used by one thread. The same id with another picture is another request."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._replies: OrderedDict[Key, Reply] = OrderedDict()
        self._bytes = 0

    def get(self, task: Task, sha256: str) -> Reply | None:
        """The reply to the same request; None if there was none, or too long ago."""
        return self._replies.get(_key(task, sha256))

    def keep(self, task: Task, reply: Reply) -> None:
        key = _key(task, reply.sha256)
        self._forget(key)
        self._replies[key] = reply
        self._bytes += _size(key, reply)
        while self._bytes > self._most_bytes:
            self._forget(next(iter(self._replies)))

    def _forget(self, key: Key) -> None:
        reply = self._replies.pop(key, None)
        if reply is not None:
            self._bytes -= _size(key, reply)


def _key(task: Task, sha256: str) -> Key:
    return task.address.reply_to, task.request.correlation_id, sha256


def _size(key: Key, reply: Reply) -> int:
    """About how many bytes of memory they take; labels and names are the model's own."""
    texts = (*key, *reply.warnings, reply.error.detail if reply.error else "")
    inputs = len(reply.input or b"")
    return _ENTRY_BYTES + sum(map(sys.getsizeof, texts)) + inputs + _LABEL_BYTES * len(reply.probabilities)
