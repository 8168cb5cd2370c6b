"""Which files of a folder are new, and complete. Pure: what the folder has is an argument."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """What changes when a file is written."""

    size_bytes: int
    modified_ns: int


Listing = Mapping[Path, Stamp]


class Arrivals:
    """A file is complete when it did not change from one look to the next."""

    def __init__(self, there: Listing) -> None:
        """there: what need not be given out."""
        self._given: dict[Path, Stamp] = dict(there)
        self._last: Listing = {}

    def settled(self, listing: Listing) -> list[Path]:
        """Those that are new since they were given out last; a file that is written anew is new."""
        complete = [
            path
            for path, stamp in sorted(listing.items())
            if stamp.size_bytes and self._last.get(path) == stamp and self._given.get(path) != stamp
        ]
        self._last = dict(listing)
        self._given = {path: stamp for path, stamp in self._given.items() if path in listing}
        self._given |= {path: listing[path] for path in complete}
        return complete

    def again(self, paths: list[Path]) -> None:
        """Give them out once more."""
        for path in paths:
            self._given.pop(path, None)


def look(folder: Path, suffixes: tuple[str, ...]) -> Listing:
    """Raises OSError if the folder is gone. A file that goes meanwhile is not there."""
    found: dict[Path, Stamp] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            try:
                its = path.stat()
            except FileNotFoundError:
                continue
            found[path] = Stamp(its.st_size, its.st_mtime_ns)
    return found
