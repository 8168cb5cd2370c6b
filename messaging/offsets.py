"""Which offset may be committed when messages finish out of order."""


class OffsetTracker:
    """One partition's finished prefix: a commit says "everything before this is done"."""

    def __init__(self) -> None:
        self._is_finished: dict[int, bool] = {}  # in the order received
        self._last = -1

    def received(self, offset: int) -> None:
        """Offsets rise; one that was seen before means that the partition is read anew."""
        if offset <= self._last:
            self._is_finished.clear()
        self._is_finished[offset] = False
        self._last = offset

    def finished(self, offset: int) -> int | None:
        """Return the next offset to read, if the prefix grew; else None."""
        if offset not in self._is_finished:
            return None
        self._is_finished[offset] = True
        following = None
        while self._is_finished and self._is_finished[first := next(iter(self._is_finished))]:
            del self._is_finished[first]
            following = first + 1
        return following
