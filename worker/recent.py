"""Replies given lately, for requests that are delivered again."""

import hashlib
from collections import OrderedDict

from messaging.contract import Reply
from worker.triage import Task

_MOST_KEPT = 4_096

Key = tuple[str, str, str]


class RecentReplies:
    """Used by one thread. What is asked under the same id with another picture is another request."""

    def __init__(self, most_kept: int = _MOST_KEPT) -> None:
        self._most_kept = most_kept
        self._replies: OrderedDict[Key, Reply] = OrderedDict()

    def get(self, task: Task, sha256: str) -> Reply | None:
        """The reply to the same request; None if there was none, or long ago."""
        return self._replies.get(_key(task, sha256))

    def keep(self, task: Task, reply: Reply) -> None:
        self._replies[_key(task, reply.sha256)] = reply
        if len(self._replies) > self._most_kept:
            self._replies.popitem(last=False)


def digest(task: Task) -> str:
    """The SHA-256 of the picture."""
    return hashlib.sha256(task.request.body).hexdigest()


def _key(task: Task, sha256: str) -> Key:
    return task.address.reply_to, task.request.correlation_id, sha256
