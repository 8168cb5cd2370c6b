"""How much memory the bodies of all requests may take."""

from gateway.errors import TooManyInFlight

UNCOUNTED_BYTES = 65_536
"""uvicorn keeps as much of each connection, read or not. So small requests do not suffer from large ones."""


class BodyMemory:
    """Of one process. One body is admitted whatever its size. Belongs to the event loop."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0

    def admit(self, size: int, counted: int = 0) -> None:
        """Raises TooManyInFlight without room for one of so many bytes, some of them counted before."""
        others = self._bytes - counted
        if others and others + size > self._most_bytes:
            raise TooManyInFlight(
                f"{others} bytes of other bodies are in memory, and {size} more are over the limit"
            )

    def grow(self, size: int, counted: int) -> int:
        """Another part of one has come: it has so many bytes now. Returns how many are counted of it now."""
        self.admit(size, counted)
        self._bytes += size - counted
        return size

    def release(self, counted: int) -> None:
        """The body is not held any more."""
        self._bytes -= counted
