"""A model that outlives the pictures that kill it."""

import logging
from collections.abc import Callable

from messaging.contract import ErrorCode
from worker.model_process import ModelDied, ModelProcess
from worker.pipe import Loaded, Outcome, Picture, Predicted

_log = logging.getLogger("mlaas.worker")


class IsolatedModel:
    """Starts a model process, and another when it dies or hangs. Used by one thread at a time."""

    def __init__(self, start: Callable[[], ModelProcess]) -> None:
        self._start = start
        self._process: ModelProcess | None = None
        self.starts = 0

    def load(self) -> Loaded:
        """Raises ModelUnavailable."""
        return self._running().loaded

    def predict(self, pictures: list[Picture]) -> Predicted:
        """Outcome i is picture i's. If the batch costs the process its life, it runs again one by one.

        A picture that kills it alone, too, gets the error `internal`, with what happened as its detail.
        Raises ModelUnavailable when no process can be started any more.
        """
        try:
            return self._running().predict(pictures)
        except ModelDied as error:
            _log.warning("%s, over a batch of %d; running it one by one", error, len(pictures))
            self.close()
        return Predicted([self._predict_alone(picture) for picture in pictures])

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def _predict_alone(self, picture: Picture) -> Outcome:
        try:
            return self._running().predict([picture]).outcomes[0]
        except ModelDied as error:
            _log.error("%s, over one picture of %d bytes", error, len(picture.content))
            self.close()
            return Outcome(error=ErrorCode.INTERNAL, detail=str(error))

    def _running(self) -> ModelProcess:
        if self._process is None:
            self._process = self._start()
            self.starts += 1
        return self._process
