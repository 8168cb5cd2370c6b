"""A model that outlives the pictures that kill it."""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack

from messaging.contract import ErrorCode
from worker.model_process import ModelDied, ModelProcess
from worker.pipe import Lane, Loaded, Outcome, Picture, Predicted

_log = logging.getLogger("mlaas.worker")


class IsolatedModel:
    """Starts a model process, and another when it dies or hangs. A lane is used by one thread at a time.

    Lanes share the process, so one picture costs every lane its batch. Who works with a lane holds its lock;
    who looks for the culprit holds all of them, so that nobody else's picture can be it, and does so without
    the process that died last: while it waited, other lanes may have gone on and killed a later one than its.
    """

    def __init__(self, start: Callable[[], ModelProcess]) -> None:
        self._start = start
        self._process: ModelProcess | None = None
        self._dead: ModelProcess | None = None
        self._changing = threading.Lock()
        self._lanes = {lane: threading.Lock() for lane in Lane}
        self.starts = 0

    def load(self) -> Loaded:
        """Raises ModelUnavailable."""
        return self._running().loaded

    def predict(self, pictures: list[Picture], lane: Lane = Lane.SMALL) -> Predicted:
        """Outcome i is picture i's. If the process dies over the batch, it runs again one by one.

        A picture that kills it alone, too, gets the error `internal`, with what happened as its detail.
        Raises ModelUnavailable when no process can be started any more.
        """
        with self._lanes[lane]:
            process = self._running()
            try:
                return process.predict(pictures, lane)
            except ModelDied as error:
                self._dead = process
                _log.warning("%s, over a batch of %d; running it one by one", error, len(pictures))
        with ExitStack() as nobody_else:
            for lock in self._lanes.values():
                nobody_else.enter_context(lock)
            self._replace(self._dead)
            return Predicted([self._predict_alone(picture, lane) for picture in pictures])

    def close(self) -> None:
        if self._process is not None:
            self._replace(self._process)

    def _predict_alone(self, picture: Picture, lane: Lane) -> Outcome:
        process = self._running()
        try:
            return process.predict([picture], lane).outcomes[0]
        except ModelDied as error:
            _log.error("%s, over one picture of %d bytes", error, len(picture.content))
            self._replace(process)
            return Outcome(error=ErrorCode.INTERNAL, detail=str(error))

    def _running(self) -> ModelProcess:
        with self._changing:
            if self._process is None:
                self._process = self._start()
                self.starts += 1
            return self._process

    def _replace(self, dead: ModelProcess | None) -> None:
        """By the next that is needed; another lane may have done so already."""
        with self._changing:
            if dead is not None and self._process is dead:
                dead.close()
                self._process = None
