"""The pictures of one predict_many."""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from mlaas_client.errors import PictureUnreadable
from mlaas_client.pictures import Picture, Upload, read
from mlaas_client.results import Outcome

Progress: TypeAlias = Callable[[int, int], object]
_FILES = 32  # as many as a worker takes at once; docs/decisions/0004-predict-many.md
_BYTES = 4 * 1024 * 1024  # what the embedded broker has room for


class Many:
    """Shared by the threads or tasks that ask: each takes some pictures, and brings their outcomes back."""

    def __init__(self, pictures: Iterable[Picture], concurrency: int, progress: Progress | None) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        its = list(pictures)
        self.outcomes: list[Outcome] = [PictureUnreadable("not asked")] * len(its)
        self._files = min(_FILES, -(-len(its) // concurrency))
        self._left, self._done, self._progress = enumerate(its), 0, progress
        self._lock = threading.RLock()

    def take(self) -> dict[int, Upload]:
        """The next pictures; empty at the end. Read only now, so that not all are in memory at once."""
        taken: dict[int, Upload] = {}
        with self._lock:
            for index, picture in self._left:
                try:
                    taken[index] = read(picture)
                except PictureUnreadable as error:
                    self.bring({index: error})
                if len(taken) >= self._files or sum(len(its.content) for its in taken.values()) >= _BYTES:
                    break
        return taken

    def bring(self, outcomes: Mapping[int, Outcome]) -> None:
        with self._lock:
            for index, outcome in outcomes.items():
                self.outcomes[index] = outcome
            self._done += len(outcomes)
            if self._progress:
                self._progress(self._done, len(self.outcomes))

    def stop(self) -> None:
        with self._lock:
            self._left = enumerate(())
