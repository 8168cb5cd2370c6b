"""What a worker remembers of its latest requests."""

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from messaging.contract import Reply
from worker.triage import Task

_MOST_BYTES = 16_777_216  # 16 MiB: 8,000 replies with ten labels, or 200 with a thousand
_ENTRY_BYTES = 800  # of a reply's numbers, its timings and its share of the table, measured
_LABEL_BYTES = 80

_MOST_CULPRITS = 4_096
_CULPRITS_KEPT_S = 600.0

Key = tuple[str, str, str]


class RecentReplies:
    """For requests that are delivered again. Used by one thread.

    The same id with another picture is another request.
    """

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


class Culprits:
    """Pictures that ended a process, for some minutes: their copies need not end it again.

    Shared by threads. Not for longer, because processes are killed for other reasons, too.
    """

    def __init__(self, most_kept: int = _MOST_CULPRITS, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_kept = most_kept
        self._clock = clock
        self._lock = threading.Lock()
        self._until: OrderedDict[Key, float] = OrderedDict()

    def add(self, task: Task, sha256: str) -> None:
        with self._lock:
            self._until[_picture(task, sha256)] = self._clock() + _CULPRITS_KEPT_S
            if len(self._until) > self._most_kept:
                self._until.popitem(last=False)

    def has(self, task: Task, sha256: str) -> bool:
        """Whether the same picture ended the process of the same model, prepared in the same way."""
        until = self._until.get(_picture(task, sha256))
        return until is not None and self._clock() < until


def _picture(task: Task, sha256: str) -> Key:
    return task.model.name, task.request.mode, sha256


def _key(task: Task, sha256: str) -> Key:
    return task.address.reply_to, task.request.correlation_id, sha256


def _size(key: Key, reply: Reply) -> int:
    """About how many bytes of memory they take; labels and names are the model's own."""
    texts = (*key, *reply.warnings, reply.error.detail if reply.error else "")
    inputs = len(reply.input or b"")
    return _ENTRY_BYTES + sum(map(sys.getsizeof, texts)) + inputs + _LABEL_BYTES * len(reply.probabilities)
